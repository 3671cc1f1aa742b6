import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Waits for work that goes on by itself when it takes longer.
 *
 * @param onLateFailure told of a failure that came when nobody waited any more
 * @returns whether the work was done in time
 * @throws what the work failed with in time
 */
export async function doneWithin(
  milliseconds: number,
  work: Promise<unknown>,
  onLateFailure: (error: unknown) => void,
): Promise<boolean> {
  const waiting = new AbortController();
  const late = sleep(milliseconds, false, { signal: waiting.signal }).catch(() => false);
  try {
    const done = await Promise.race([work.then(() => true), late]);
    if (!done) work.catch(onLateFailure);
    return done;
  } finally {
    waiting.abort();
  }
}
