import { compactVerify, decodeProtectedHeader } from 'jose';
import type { ProviderConfig } from '../config/config.js';
import { isTooDeep } from './nesting.js';
import type { Fetch } from './provider-fetch.js';
import { TokenError } from './signed-token.js';
import type { SigningKeys } from './signing-keys.js';
import { UnusableAnswerError } from './unusable-answer.js';

/**
 * Asks the UserInfo endpoint (OpenID Connect Core 1.0 section 5.3) for claims, plain or signed.
 *
 * @param subject who the claims must be about
 * @throws {TokenError} when they are about somebody else, or signed with an algorithm that is not allowed
 * @throws {UnusableAnswerError} for everything that is no answer; jose's own errors for a wrong signature
 */
export async function readUserinfo(
  config: ProviderConfig,
  from: { endpoint: string; jwksUri: string; accessToken: string; subject: string },
  fetch: Fetch,
  keys: SigningKeys,
): Promise<Record<string, unknown>> {
  const response = await fetch(from.endpoint, {
    headers: { authorization: `Bearer ${from.accessToken}`, accept: 'application/json, application/jwt' },
    signal: AbortSignal.timeout(config.timeout),
  });
  if (response.status !== 200) throw new UnusableAnswerError(`userinfo answered ${String(response.status)}`);
  const text = await response.text();
  const signed = /^application\/jwt\b/i.test(response.headers.get('content-type') ?? '');
  const json = signed ? await verifiedPayload(config, text, from.jwksUri, keys) : text;
  const claims: unknown = JSON.parse(json);
  if (typeof claims !== 'object' || claims === null || isTooDeep(claims)) {
    throw new UnusableAnswerError('userinfo is no object of claims');
  }
  // Section 5.3.2: without the same subject the claims are about somebody else.
  if ((claims as { sub?: unknown }).sub !== from.subject) throw new TokenError('userinfo-sub');
  return claims as Record<string, unknown>;
}

async function verifiedPayload(
  config: ProviderConfig,
  token: string,
  jwksUri: string,
  keys: SigningKeys,
): Promise<string> {
  const { alg = '', kid } = decodeProtectedHeader(token);
  if (!config.idTokenAlgs.includes(alg)) throw new TokenError('alg');
  const header = { alg, ...(kid === undefined ? {} : { kid }) };
  const { payload } = await keys.withKeys(jwksUri, header, (key) =>
    compactVerify(token, key, { algorithms: [alg] }),
  );
  return Buffer.from(payload).toString('utf8');
}
