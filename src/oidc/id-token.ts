import { createHash } from 'node:crypto';
import { checkTimes, openSignedToken, time, timeIfAny, TokenError } from './signed-token.js';
import type { SigningKeys } from './signing-keys.js';

export type Claims = Record<string, unknown> & { iss: string; sub: string };

export interface Expected {
  issuer: string;
  clientId: string;
  jwksUri: string;
  algs: readonly string[];
  /** Milliseconds the two clocks may differ. */
  tolerance: number;
  accessToken: string;
  /** Of a code flow; absent on refresh, where OpenID Connect Core section 12.2 asks for none. */
  nonce?: string;
  /** The authorization code, for `c_hash`. */
  code?: string;
  /** Seconds; the person must have signed in at most this long ago. */
  maxAge?: number;
}

const MAX_ISSUED_AGO = 600;
/** `at+jwt` (RFC 9068) and `logout+jwt` (Back-Channel Logout) are signed with the same keys for other purposes. */
const TYPES = [undefined, 'jwt'];

/** What a subject consists of: OpenID Connect Core 1.0 section 2. */
export const SUBJECT = /^[\x20-\x7e]{1,255}$/;

/**
 * Verifies an ID token completely, signature included: OpenID Connect Core 1.0 section 3.1.3.7, with the choices it
 * leaves open made strictly.
 *
 * @throws {TokenError} with the reason
 */
export async function verifyIdToken(token: string, expected: Expected, keys: SigningKeys): Promise<Claims> {
  const { alg, claims } = await openSignedToken(token, { ...expected, types: TYPES }, keys);
  checkParties(claims, expected);
  checkAge(claims, expected);
  if (expected.nonce !== undefined && claims['nonce'] !== expected.nonce) throw new TokenError('nonce');
  checkHash(claims['at_hash'], expected.accessToken, alg, 'at_hash');
  if (expected.code !== undefined) checkHash(claims['c_hash'], expected.code, alg, 'c_hash');
  return claims as Claims;
}

function checkParties(claims: Record<string, unknown>, expected: Expected): void {
  const { iss, sub, aud, azp, events } = claims;
  if (iss !== expected.issuer) throw new TokenError('iss');
  if (typeof sub !== 'string' || !SUBJECT.test(sub)) throw new TokenError('sub');
  const audience: unknown[] = Array.isArray(aud) ? aud : [aud];
  if (audience.length !== 1 || audience[0] !== expected.clientId) throw new TokenError('aud');
  if (azp !== undefined && azp !== expected.clientId) throw new TokenError('azp');
  if (events !== undefined) throw new TokenError('typ', 'a security event is no ID token');
}

function checkAge(claims: Record<string, unknown>, { tolerance, nonce, maxAge }: Expected): void {
  const authTime = maxAge === undefined ? timeIfAny(claims, 'auth_time') : time(claims, 'auth_time');
  // A token that answers a login was made just now; on refresh some providers hand out the one of the login again.
  const issuedWithin = nonce === undefined ? undefined : MAX_ISSUED_AGO;
  checkTimes(claims, { tolerance, expires: 'always', issuedWithin });
  if (maxAge !== undefined && (authTime ?? 0) < (Date.now() - tolerance) / 1000 - maxAge) {
    throw new TokenError('auth_time');
  }
}

/** OpenID Connect Core section 3.1.3.8 and 3.3.2.10: the left half of the hash that goes with the signature's algorithm. */
function checkHash(claim: unknown, value: string, alg: string, name: string): void {
  if (claim === undefined) return;
  const bits = alg === 'EdDSA' || alg === 'Ed25519' ? '512' : alg.slice(2);
  const digest = createHash(`sha${bits}`).update(value, 'ascii').digest();
  if (claim !== digest.subarray(0, digest.length / 2).toString('base64url')) throw new TokenError(name);
}
