/** An endpoint answered 200 with something that is no such answer. */
export class UnusableAnswerError extends Error {
  override name = 'UnusableAnswerError';
}
