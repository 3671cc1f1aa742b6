import type { TokenAnswer } from '../oidc/oidc-client.js';
import type { GrantedToken, Tokens } from '../store/session-contents.js';

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
  /** Whether they were asked for before their time. */
  forced?: boolean;
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
  const granted = before?.granted;
  return {
    ...grantedToken(answer, before?.scope, rules, now, random),
    ...refreshTokenAfterGrant(answer, before, rules, now),
    ...(granted === undefined ? {} : { granted }),
  };
}

/** @param scope of the token so far, for an answer that does not say */
export function grantedToken(
  answer: TokenAnswer,
  scope: string | undefined,
  rules: LifetimeRules,
  now: number,
  random: number,
): GrantedToken {
  const life = answer.expiresIn === undefined ? rules.fallback : answer.expiresIn * 1000;
  const granted = answer.scope ?? scope;
  return {
    accessToken: answer.accessToken,
    expiresAt: now + life,
    refreshAt: now + life * (EARLIEST + (LATEST - EARLIEST) * random),
    epoch: rules.epoch,
    ...(granted === undefined ? {} : { scope: granted }),
    ...(rules.forced === true ? { forcedAt: now } : {}),
  };
}

/** The refresh token after a grant that used one, or brought the first. */
export function refreshTokenAfterGrant(
  answer: TokenAnswer,
  before: Tokens | undefined,
  rules: LifetimeRules,
  now: number,
): Pick<Tokens, 'refreshToken' | 'previous'> {
  const refreshToken = answer.refreshToken ?? before?.refreshToken;
  const spent = before?.refreshToken;
  const keepsSpent = rules.leeway > 0 && spent !== undefined && spent !== refreshToken;
  return {
    ...(refreshToken === undefined ? {} : { refreshToken }),
    ...(keepsSpent ? { previous: { refreshToken: spent, until: now + rules.leeway } } : {}),
  };
}

/** What a request should do about an access token: use it, use it and have it renewed meanwhile, or wait for a new one. */
export function tokenState(token: GrantedToken, now: number): 'fresh' | 'due' | 'over' {
  if (now < token.refreshAt) return 'fresh';
  const life = (token.expiresAt - token.refreshAt) / (1 - LATEST);
  return now < token.expiresAt - Math.min(SAFETY, life / 10) ? 'due' : 'over';
}
