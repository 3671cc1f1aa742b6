import type { EndCause, Ending } from './store.js';

/** Milliseconds for which whoever still brings the cookie of an ended session is told why. */
const TELL_CAUSE_FOR = 60 * 60 * 1000;

/** @param keepRevocation milliseconds to keep the refresh token's envelope for its revocation; 0 for none */
export function endingBy(cause: EndCause, keepRevocation = 0): Ending {
  return { cause, keepRevocation, keepCause: TELL_CAUSE_FOR };
}
