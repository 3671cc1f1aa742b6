import type { OpenSession } from '../store/session-records.js';

export type EndReason = 'refresh-refused' | 'refresh-lost' | 'identity-changed' | 'token-expired';

/**
 * How a wish for a new token ended.
 * - `refreshed`: the session with a token newer than the one the wish began with, whoever fetched it
 * - `ended`: the session is over, for this reason; its record is gone
 * - `gone`: somebody else ended it meanwhile
 * - `refused`: the provider does not give this token; the session stays
 * - `unavailable`: not now; the session stays. Seconds until a retry makes sense
 */
export type RefreshOutcome =
  | { kind: 'refreshed'; session: OpenSession }
  | { kind: 'ended'; reason: EndReason }
  | { kind: 'gone' }
  | { kind: 'refused' }
  | { kind: 'unavailable'; retryAfter: number };

/** Who wants to know what refreshes lead to besides new tokens. */
export interface RefreshListener {
  ended(session: OpenSession, cause: EndReason): void;
  /** A refresh token came for a session that had ended meanwhile: nobody may use it any more. */
  stray(session: OpenSession, refreshToken: string): void;
}
