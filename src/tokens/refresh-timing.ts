import type { ProviderConfig } from '../config/config.js';
import type { ProviderFailure } from '../oidc/oidc-errors.js';
import type { Tokens } from '../store/session-contents.js';

/** Milliseconds after which a sender that was paused (a stopped process, a long collection) no longer sends. */
export const SEND_WITHIN = 2000;

/** Milliseconds between two renewals of one token that nothing asks for but a word that it is no good. */
export const FORCED_PAUSE = 10_000;

const RETRY_UNKNOWN = 5000;
const RETRY_UNREACHABLE = 1000;
/** Milliseconds before the end of a provider's leeway in which its clock and ours may disagree. */
const LEEWAY_MARGIN = 2000;

/**
 * Milliseconds a claim lasts: longer than it may take from asking for it to writing the result, with the time limits of the
 * provider and of its keys used up.
 */
export function claimDuration(config: ProviderConfig): number {
  return SEND_WITHIN + config.timeout + config.metadataTimeout + 1000;
}

/**
 * How long to hold back because an earlier attempt may have spent the refresh token (milliseconds; 0: send now).
 *
 * A provider that takes a token twice for a while can be asked again within that while. One that revokes everything at
 * the second use is left alone as long as the access token is good; once it is over, one more try has nothing to lose.
 *
 * @param doubtfulFor milliseconds since that attempt began; undefined when there was none
 */
export function waitInDoubt(
  tokens: Tokens,
  { rotation }: ProviderConfig,
  doubtfulFor: number | undefined,
  now: number,
): number {
  if (doubtfulFor === undefined || rotation.policy === 'none') return 0;
  if (rotation.policy === 'leeway' && doubtfulFor < rotation.leeway - LEEWAY_MARGIN) return 0;
  return Math.max(0, tokens.expiresAt - now);
}

/**
 * Milliseconds before anybody tries again after a failure that is not final.
 * @param aboutRefresh whether it was the refresh token that was sent; otherwise refreshes must not wait long for it
 */
export function backoffAfter(failure: ProviderFailure, aboutRefresh = true): number {
  const least = failure.kind === 'unreachable' ? RETRY_UNREACHABLE : RETRY_UNKNOWN;
  const asked = 'retryAfter' in failure ? (failure.retryAfter ?? 0) * 1000 : 0;
  return aboutRefresh ? Math.max(asked, least) : least;
}

/** Whether asking again for the same, with nothing spent by asking, would be answered the same. */
export function isFinal(failure: ProviderFailure): boolean {
  return failure.kind === 'refused' || (failure.kind === 'unknown' && failure.answered);
}
