import { setTimeout as sleep } from 'node:timers/promises';
import type { OpenSession } from '../store/session-records.js';
import type { Claim, Store } from '../store/store.js';

/** Milliseconds before a store that did not answer is asked again. */
const PAUSE = 100;
/** Milliseconds between tries to give back what nobody knows whether it was taken. */
const LONGEST_PAUSE = 250;

/**
 * Claims the right to refresh a session's tokens.
 *
 * @param duration milliseconds the claim holds
 * @throws {CloakroomError} `store-unavailable`
 */
export async function takeClaim(
  store: Store,
  { handle, generation }: OpenSession,
  attempt: string,
  duration: number,
): Promise<Claim> {
  try {
    return await store.claim(handle, generation, attempt, duration);
  } catch {
    // The reply may be lost although the claim is ours. Asking again under the same name finds out.
    await sleep(PAUSE);
    return store.claim(handle, generation, attempt, duration).catch((error: unknown) => {
      void releaseLater(store, handle, attempt, duration);
      throw error;
    });
  }
}

/** A claim of which nobody knows whether it stands must not keep the others waiting once the store is back. */
async function releaseLater(store: Store, handle: string, attempt: string, within: number): Promise<void> {
  const until = performance.now() + within;
  while (performance.now() < until) {
    await sleep(LONGEST_PAUSE);
    try {
      await store.release(handle, attempt, { backoff: 0, doubtful: false });
      return;
    } catch {
      continue;
    }
  }
}
