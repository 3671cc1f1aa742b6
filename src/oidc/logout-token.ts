import { SUBJECT } from './id-token.js';
import { checkTimes, openSignedToken, TokenError } from './signed-token.js';
import type { SigningKeys } from './signing-keys.js';

/** What a provider says has ended: one of its sessions, or all of a person's. At least one of the two is there. */
export interface LogoutToken {
  subject: string | undefined;
  sid: string | undefined;
  /** Names this token among all of its issuer. */
  id: string;
  /** Milliseconds since the epoch. */
  issuedAt: number;
}

export interface ExpectedLogout {
  issuer: string;
  clientId: string;
  jwksUri: string;
  algs: readonly string[];
  /** Milliseconds the two clocks may differ. */
  tolerance: number;
  /** Demand what the specification only recommends: the type in the header, and an end of validity. */
  strict: boolean;
}

/** Seconds after it was made in which a logout token counts, whatever its `exp`, which many providers leave out. */
export const LOGOUT_TOKEN_AGE = 300;

const EVENT = 'http://schemas.openid.net/event/backchannel-logout';
const EXPLICIT_TYPES = ['logout+jwt', 'application/logout+jwt'];
const TYPES = [...EXPLICIT_TYPES, 'jwt', undefined];
const ID = /^[\x20-\x7e]{1,1024}$/;

/**
 * Verifies a logout token completely, signature included: OpenID Connect Back-Channel Logout 1.0 section 2.6. What keeps
 * an ID token out is the event it lacks and the nonce it has.
 *
 * @throws {TokenError} with the reason
 */
export async function verifyLogoutToken(
  token: string,
  expected: ExpectedLogout,
  keys: SigningKeys,
): Promise<LogoutToken> {
  const { tolerance, strict } = expected;
  const types = strict ? EXPLICIT_TYPES : TYPES;
  const { claims } = await openSignedToken(token, { ...expected, types, from: 'anybody' }, keys);
  const { iss, aud, iat, nonce, events } = claims;
  if (iss !== expected.issuer) throw new TokenError('iss');
  const audience: unknown[] = Array.isArray(aud) ? aud : [aud];
  if (!audience.includes(expected.clientId)) throw new TokenError('aud');
  checkTimes(claims, { tolerance, expires: strict ? 'always' : 'perhaps', issuedWithin: LOGOUT_TOKEN_AGE });
  if (!isObject(events) || !Object.hasOwn(events, EVENT) || !isObject(events[EVENT]))
    throw new TokenError('events');
  if (nonce !== undefined) throw new TokenError('nonce');
  const subject = textIfAny(claims, 'sub', SUBJECT);
  const sid = textIfAny(claims, 'sid', ID);
  if (subject === undefined && sid === undefined) throw new TokenError('sub');
  const id = textIfAny(claims, 'jti', ID);
  if (id === undefined) throw new TokenError('jti');
  return { subject, sid, id, issuedAt: Number(iat) * 1000 };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function textIfAny(claims: Record<string, unknown>, name: string, form: RegExp): string | undefined {
  const value = claims[name];
  if (value === undefined) return undefined;
  if (typeof value !== 'string' || !form.test(value)) throw new TokenError(name);
  return value;
}
