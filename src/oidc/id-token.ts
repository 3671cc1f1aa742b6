import { createHash } from 'node:crypto';
import { compactVerify, decodeProtectedHeader, type CryptoKey } from 'jose';
import { isTooDeep } from './nesting.js';
import { ProviderCallError } from './provider-fetch.js';
import type { SigningKeys } from './signing-keys.js';

export type Claims = Record<string, unknown> & { iss: string; sub: string };

/** Why an ID token was refused; `reason` is a stable word for the log. */
export class IdTokenError extends Error {
  readonly reason: string;

  constructor(reason: string, detail?: string, cause?: unknown) {
    super(detail ?? reason, { cause });
    this.name = 'IdTokenError';
    this.reason = reason;
  }
}

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

const MAX_LENGTH = 64 * 1024;
const MAX_ISSUED_AGO = 600;
/** Keys that a token brings itself are never used, and no honest ID token brings any. */
const KEY_HEADERS = ['jwk', 'jku', 'x5u', 'x5c', 'crit', 'b64'];
const LATEST_TIME = 1e11;

const SUBJECT = /^[\x20-\x7e]{1,255}$/;

/**
 * Verifies an ID token completely, signature included: OpenID Connect Core 1.0 section 3.1.3.7, with the choices it
 * leaves open made strictly.
 *
 * @throws {IdTokenError} with the reason
 */
export async function verifyIdToken(token: string, expected: Expected, keys: SigningKeys): Promise<Claims> {
  if (token.length > MAX_LENGTH) throw new IdTokenError('size');
  const header = readHeader(token, expected.algs);
  const payload = await verifySignature(token, header, expected, keys);
  const claims = parseClaims(payload);
  checkParties(claims, expected);
  checkTimes(claims, expected);
  if (expected.nonce !== undefined && claims['nonce'] !== expected.nonce) throw new IdTokenError('nonce');
  checkHash(claims['at_hash'], expected.accessToken, header.alg, 'at_hash');
  if (expected.code !== undefined) checkHash(claims['c_hash'], expected.code, header.alg, 'c_hash');
  return claims;
}

function readHeader(token: string, algs: readonly string[]): { alg: string; kid?: string } {
  let header;
  try {
    header = decodeProtectedHeader(token);
  } catch (error) {
    throw new IdTokenError('malformed', undefined, error);
  }
  // The library's types promise texts; what is there may be anything.
  const { alg, kid, typ }: Record<string, unknown> = header;
  if (typeof alg !== 'string' || !algs.includes(alg)) throw new IdTokenError('alg');
  for (const name of KEY_HEADERS) if (name in header) throw new IdTokenError('header', `header ${name}`);
  // `at+jwt` (RFC 9068) and `logout+jwt` (Back-Channel Logout) are signed with the same keys for other purposes.
  if (typ !== undefined && !(typeof typ === 'string' && typ.toLowerCase() === 'jwt'))
    throw new IdTokenError('typ');
  if (kid !== undefined && typeof kid !== 'string') throw new IdTokenError('malformed');
  return { alg, ...(kid === undefined ? {} : { kid }) };
}

async function verifySignature(
  token: string,
  header: { alg: string; kid?: string },
  expected: Expected,
  keys: SigningKeys,
): Promise<Uint8Array> {
  const verify = async (key: CryptoKey | Uint8Array): Promise<Uint8Array> =>
    (await compactVerify(token, key, { algorithms: [header.alg] })).payload;
  try {
    return await keys.withKeys(expected.jwksUri, header, verify);
  } catch (error) {
    // That the keys could not be read says nothing about the token.
    if (error instanceof ProviderCallError) throw error;
    throw new IdTokenError('signature', undefined, error);
  }
}

function parseClaims(payload: Uint8Array): Claims {
  let claims: unknown;
  try {
    claims = JSON.parse(Buffer.from(payload).toString('utf8'));
  } catch (error) {
    throw new IdTokenError('malformed', undefined, error);
  }
  const isObject = typeof claims === 'object' && claims !== null && !Array.isArray(claims);
  if (!isObject || isTooDeep(claims)) throw new IdTokenError('malformed');
  return claims as Claims;
}

function checkParties(claims: Record<string, unknown>, expected: Expected): void {
  const { iss, sub, aud, azp, events } = claims;
  if (iss !== expected.issuer) throw new IdTokenError('iss');
  if (typeof sub !== 'string' || !SUBJECT.test(sub)) throw new IdTokenError('sub');
  const audience: unknown[] = Array.isArray(aud) ? aud : [aud];
  if (audience.length !== 1 || audience[0] !== expected.clientId) throw new IdTokenError('aud');
  if (azp !== undefined && azp !== expected.clientId) throw new IdTokenError('azp');
  if (events !== undefined) throw new IdTokenError('typ', 'a security event is no ID token');
}

function checkTimes(claims: Record<string, unknown>, expected: Expected): void {
  const now = Date.now() / 1000;
  const tolerance = expected.tolerance / 1000;
  const exp = time(claims, 'exp', true);
  const iat = time(claims, 'iat', true);
  const nbf = time(claims, 'nbf', false);
  const authTime = time(claims, 'auth_time', expected.maxAge !== undefined);
  const skew = `clocks differ by about ${String(Math.round(iat - now))} s`;
  if (exp <= now - tolerance) throw new IdTokenError('exp', skew);
  if (iat > now + tolerance) throw new IdTokenError('iat', skew);
  // A token that answers a login was made just now; on refresh some providers hand out the one of the login again.
  if (expected.nonce !== undefined && iat < now - MAX_ISSUED_AGO) throw new IdTokenError('iat', skew);
  if (nbf > now + tolerance) throw new IdTokenError('nbf', skew);
  if (expected.maxAge !== undefined && authTime < now - expected.maxAge - tolerance) {
    throw new IdTokenError('auth_time');
  }
}

function time(claims: Record<string, unknown>, name: string, required: boolean): number {
  const value = claims[name];
  if (value === undefined && !required) return 0;
  const sensible = Number.isInteger(value) && (value as number) > 0 && (value as number) < LATEST_TIME;
  if (!sensible) throw new IdTokenError(name, `${name} is no time`);
  return value as number;
}

/** OpenID Connect Core section 3.1.3.8 and 3.3.2.10: the left half of the hash that goes with the signature's algorithm. */
function checkHash(claim: unknown, value: string, alg: string, name: string): void {
  if (claim === undefined) return;
  const bits = alg === 'EdDSA' || alg === 'Ed25519' ? '512' : alg.slice(2);
  const digest = createHash(`sha${bits}`).update(value, 'ascii').digest();
  if (claim !== digest.subarray(0, digest.length / 2).toString('base64url')) throw new IdTokenError(name);
}
