import type { TokenAnswer } from '../oidc/oidc-client.js';
import type { Tokens } from '../store/session-contents.js';

/** A token is not handed to a request this close to its end (milliseconds); short-lived ones give a tenth of their life. */
const SAFETY = 5000;
const EARLIEST = 0.75;
const LATEST = 0.85;

export interface LifetimeRules {
  /** Milliseconds to assume when the provider does not say how long the token lives. */
  fallback: number;
  /** Milliseconds the provider goes on accepting a refresh token that was used; 0 for none. */
  leeway: number;
  /** The policy epoch as it was when the tokens were asked for. */
  epoch: number;
}

/**
 * The tokens of a session after a grant. What the answer leaves out stays as it was (RFC 6749 section 6).
 *
 * @param before the tokens so far; absent at login
 * @param now when the answer arrived
 * @param random in [0, 1): spreads the refreshes of sessions that began together
 */
export function tokensAfterGrant(
  answer: TokenAnswer,
  before: Tokens | undefined,
  rules: LifetimeRules,
  now: number,
  random: number,
): Tokens {
  const life = answer.expiresIn === undefined ? rules.fallback : answer.expiresIn * 1000;
  const refreshToken = answer.refreshToken ?? before?.refreshToken;
  const scope = answer.scope ?? before?.scope;
  const spent = before?.refreshToken;
  const keepsSpent = rules.leeway > 0 && spent !== undefined && spent !== refreshToken;
  return {
    accessToken: answer.accessToken,
    expiresAt: now + life,
    refreshAt: now + life * (EARLIEST + (LATEST - EARLIEST) * random),
    epoch: rules.epoch,
    ...(refreshToken === undefined ? {} : { refreshToken }),
    ...(keepsSpent ? { previous: { refreshToken: spent, until: now + rules.leeway } } : {}),
    ...(scope === undefined ? {} : { scope }),
  };
}

/** What a request should do about an access token: use it, use it and have it renewed meanwhile, or wait for a new one. */
export function tokenState(tokens: Tokens, now: number): 'fresh' | 'due' | 'over' {
  if (now < tokens.refreshAt) return 'fresh';
  const life = (tokens.expiresAt - tokens.refreshAt) / (1 - LATEST);
  return now < tokens.expiresAt - Math.min(SAFETY, life / 10) ? 'due' : 'over';
}
