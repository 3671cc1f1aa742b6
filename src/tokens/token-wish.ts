import type { RouteConfig } from '../config/config.js';
import { audienceGrant, exchangeGrant, type Grant } from './grants.js';

/** The application's own token, by client credentials (RFC 6749 section 4.4). */
export interface ClientWish {
  kind: 'client';
  audience: string | undefined;
  scope: string | undefined;
}

/** Which access token a route wants, where it is not the session's plain one. */
export type TokenWish = ClientWish | { kind: 'session'; grant: Grant };

/** @returns undefined for the session's plain token, and for none */
export function tokenWish(
  route: Pick<RouteConfig, 'token' | 'audience' | 'exchange' | 'clientScope'>,
): TokenWish | undefined {
  const { token, audience, exchange, clientScope } = route;
  if (token === 'client') return { kind: 'client', audience, scope: clientScope };
  if (exchange !== undefined) return { kind: 'session', grant: exchangeGrant(exchange) };
  return audience === undefined ? undefined : { kind: 'session', grant: audienceGrant(audience) };
}
