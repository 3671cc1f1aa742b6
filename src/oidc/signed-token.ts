import { compactVerify, decodeProtectedHeader, type CryptoKey } from 'jose';
import { isTooDeep } from './nesting.js';
import { ProviderCallError } from './provider-fetch.js';
import type { SigningKeys } from './signing-keys.js';

/** Why a token of the provider was refused; `reason` is a stable word for the log. */
export class TokenError extends Error {
  readonly reason: string;

  constructor(reason: string, detail?: string, cause?: unknown) {
    super(detail ?? reason, { cause });
    this.name = 'TokenError';
    this.reason = reason;
  }
}

export interface Signed {
  jwksUri: string;
  algs: readonly string[];
  /** Values of `typ` in lower case, `undefined` among them if it may be absent: one key signs several kinds of token. */
  types: readonly (string | undefined)[];
  /** Who can have sent it: only the provider, or anybody who wants keys to be read. */
  from?: 'provider' | 'anybody';
}

interface Header {
  alg: string;
  kid?: string;
}

const MAX_LENGTH = 64 * 1024;
/** Keys that a token brings itself are never used, and no honest token brings any. */
const KEY_HEADERS = ['jwk', 'jku', 'x5u', 'x5c', 'crit', 'b64'];
const LATEST_TIME = 1e11;

/**
 * Opens a token that the provider signed, whatever it says.
 *
 * @throws {TokenError} with the reason
 * @throws {ProviderCallError} when the keys cannot be read, which says nothing about the token
 */
export async function openSignedToken(
  token: string,
  expected: Signed,
  keys: SigningKeys,
): Promise<{ alg: string; claims: Record<string, unknown> }> {
  if (token.length > MAX_LENGTH) throw new TokenError('size');
  const header = readHeader(token, expected);
  const payload = await verifySignature(token, header, expected, keys);
  return { alg: header.alg, claims: parseClaims(payload) };
}

function readHeader(token: string, { algs, types }: Signed): Header {
  let header;
  try {
    header = decodeProtectedHeader(token);
  } catch (error) {
    throw new TokenError('malformed', undefined, error);
  }
  // The library's types promise texts; what is there may be anything.
  const { alg, kid, typ }: Record<string, unknown> = header;
  if (typeof alg !== 'string' || !algs.includes(alg)) throw new TokenError('alg');
  for (const name of KEY_HEADERS) if (name in header) throw new TokenError('header', `header ${name}`);
  if (typ !== undefined && typeof typ !== 'string') throw new TokenError('typ');
  if (!types.includes(typ?.toLowerCase())) throw new TokenError('typ');
  if (kid !== undefined && typeof kid !== 'string') throw new TokenError('malformed');
  return { alg, ...(kid === undefined ? {} : { kid }) };
}

async function verifySignature(
  token: string,
  header: Header,
  { jwksUri, from }: Signed,
  keys: SigningKeys,
): Promise<Uint8Array> {
  const verify = async (key: CryptoKey | Uint8Array): Promise<Uint8Array> =>
    (await compactVerify(token, key, { algorithms: [header.alg] })).payload;
  try {
    return await keys.withKeys(jwksUri, header, verify, from);
  } catch (error) {
    if (error instanceof ProviderCallError) throw error;
    throw new TokenError('signature', undefined, error);
  }
}

function parseClaims(payload: Uint8Array): Record<string, unknown> {
  let claims: unknown;
  try {
    claims = JSON.parse(Buffer.from(payload).toString('utf8'));
  } catch (error) {
    throw new TokenError('malformed', undefined, error);
  }
  const isObject = typeof claims === 'object' && claims !== null && !Array.isArray(claims);
  if (!isObject || isTooDeep(claims)) throw new TokenError('malformed');
  return claims as Record<string, unknown>;
}

/**
 * Checks `exp`, `iat` and `nbf`.
 *
 * @param limits `tolerance`: milliseconds the two clocks may differ; `issuedWithin`: seconds the token may be old
 */
export function checkTimes(
  claims: Record<string, unknown>,
  limits: { tolerance: number; expires: 'always' | 'perhaps'; issuedWithin?: number | undefined },
): void {
  const now = Date.now() / 1000;
  const tolerance = limits.tolerance / 1000;
  const exp = limits.expires === 'always' ? time(claims, 'exp') : timeIfAny(claims, 'exp');
  const iat = time(claims, 'iat');
  const nbf = timeIfAny(claims, 'nbf');
  const skew = `clocks differ by about ${String(Math.round(iat - now))} s`;
  if (exp !== undefined && exp <= now - tolerance) throw new TokenError('exp', skew);
  if (iat > now + tolerance) throw new TokenError('iat', skew);
  if (limits.issuedWithin !== undefined && iat < now - limits.issuedWithin) throw new TokenError('iat', skew);
  if (nbf !== undefined && nbf > now + tolerance) throw new TokenError('nbf', skew);
}

/** A claim that is a time, in seconds. */
export function time(claims: Record<string, unknown>, name: string): number {
  const value = claims[name];
  const sensible = Number.isInteger(value) && (value as number) > 0 && (value as number) < LATEST_TIME;
  if (!sensible) throw new TokenError(name, `${name} is no time`);
  return value as number;
}

export function timeIfAny(claims: Record<string, unknown>, name: string): number | undefined {
  return claims[name] === undefined ? undefined : time(claims, name);
}
