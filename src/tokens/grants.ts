import { createHash } from 'node:crypto';
import type { ExchangeConfig } from '../config/config.js';
import type { OidcClient, TokenAnswer } from '../oidc/oidc-client.js';
import type { GrantedToken, Tokens } from '../store/session-contents.js';
import {
  grantedToken,
  refreshTokenAfterGrant,
  tokensAfterGrant,
  type LifetimeRules,
} from './token-lifetime.js';

/** When and by which rules an answer is kept. */
export interface Keeping {
  rules: LifetimeRules;
  /** Milliseconds since the epoch. */
  now: number;
  /** In [0, 1). */
  random: number;
}

/** One way from what a session holds to an access token, and the place where that is kept. */
export interface Grant {
  /** Names it among the grants of a session. */
  readonly name: string;
  /** Whether asking spends the refresh token; otherwise it is the plain access token that is shown. */
  readonly spendsRefreshToken: boolean;
  held(tokens: Tokens): GrantedToken | undefined;
  /** Asks the provider, once. */
  ask(provider: OidcClient, tokens: Tokens): Promise<TokenAnswer>;
  /** What the session holds after the answer. */
  keep(answer: TokenAnswer, before: Tokens, keeping: Keeping): Tokens;
  /**
   * Whether a provider that refuses by this error means the session's whole grant, and not what was asked for beyond it.
   * @param error the code of RFC 6749 section 5.2, where there was one
   */
  endsSession(error: string | undefined): boolean;
}

/** The refresh of the session's plain access token (RFC 6749 section 6). */
export const PLAIN: Grant = {
  name: 'plain',
  spendsRefreshToken: true,
  held: (tokens) => tokens,
  ask: (provider, { refreshToken = '' }) => provider.refresh(refreshToken),
  keep: (answer, before, { rules, now, random }) => tokensAfterGrant(answer, before, rules, now, random),
  // Whatever it says: with nothing but the refresh token asked about, the refresh token is what it refuses.
  endsSession: () => true,
};

/** A refresh for one audience alone (RFC 8707 section 2.2), which may rotate the refresh token as any other does. */
export function audienceGrant(audience: string): Grant {
  const name = `audience ${audience}`;
  return {
    name,
    spendsRefreshToken: true,
    held: ({ granted }) => granted?.[name],
    ask: (provider, { refreshToken = '' }) => provider.refresh(refreshToken, audience),
    keep: (answer, before, { rules, now, random }) => {
      const token = grantedToken(answer, before.granted?.[name]?.scope, rules, now, random);
      return {
        ...before,
        ...refreshTokenAfterGrant(answer, before, rules, now),
        granted: { ...unexpired(before.granted, now), [name]: token },
      };
    },
    // Every other code may be about the audience; the next plain refresh finds out whether it was not.
    endsSession: (error) => error === 'invalid_grant',
  };
}

/** The plain access token, exchanged (RFC 8693). */
export function exchangeGrant(exchange: ExchangeConfig): Grant {
  const { audience, resource, scope } = exchange;
  const what = createHash('sha256').update(JSON.stringify([audience, resource, scope]));
  const name = `exchange ${what.digest('base64url').slice(0, 16)}`;
  return {
    name,
    spendsRefreshToken: false,
    held: ({ exchanged }) => exchanged?.[name],
    ask: (provider, { accessToken }) => provider.exchangeToken(accessToken, exchange),
    keep: (answer, before, { rules, now, random }) => {
      // No younger than what it was made from: that may be from before an epoch that began meanwhile.
      const token = grantedToken(answer, scope, { ...rules, epoch: before.epoch ?? 0 }, now, random);
      return { ...before, exchanged: { ...unexpired(before.exchanged, now), [name]: token } };
    },
    endsSession: () => false,
  };
}

/** Tokens for routes that the configuration no longer has would stay for as long as the session. */
function unexpired(
  tokens: Record<string, GrantedToken> | undefined,
  now: number,
): Record<string, GrantedToken> {
  return Object.fromEntries(Object.entries(tokens ?? {}).filter(([, { expiresAt }]) => expiresAt > now));
}
