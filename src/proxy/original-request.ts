import type { IncomingMessage } from 'node:http';
import type { ForwardAuthConfig } from '../config/config.js';
import { CloakroomError } from '../errors.js';
import { canonicalTarget, type Target } from '../http/canonical-path.js';

export const VERIFY_PATH = '/auth/verify';

/** The request that a gateway holds back while it asks about it. */
export interface OriginalRequest {
  method: string;
  path: string;
}

const METHOD = /^[A-Z]{1,20}$/;
const X_ORIGINAL = ['x-original-method', 'x-original-uri'] as const;
const X_FORWARDED = ['x-forwarded-method', 'x-forwarded-uri'] as const;
/** Names of the method's header and of the address's. Envoy sends the request itself, with a prefix before the path. */
const HEADERS = { nginx: X_ORIGINAL, traefik: X_FORWARDED, caddy: X_FORWARDED, envoy: undefined } as const;

/**
 * Which request a gateway asks about. Its headers are those of the question.
 *
 * @param target of the question
 * @throws {CloakroomError} `not-found`, `method-not-allowed`, `uri-too-long`; `bad-request`, with the name of the header in
 *   `reason` where the gateway does not send it exactly once
 */
export function originalRequest(
  request: IncomingMessage,
  target: Target,
  gateway: ForwardAuthConfig['gateway'],
): OriginalRequest {
  const names = HEADERS[gateway];
  if (names === undefined) {
    if (!target.path.startsWith(`${VERIFY_PATH}/`)) throw new CloakroomError('not-found');
    return { method: wellFormed(request.method), path: target.path.slice(VERIFY_PATH.length) };
  }
  if (target.path !== VERIFY_PATH) throw new CloakroomError('not-found');
  if (request.method !== 'GET') throw new CloakroomError('method-not-allowed', { allow: ['GET'] });
  const method = wellFormed(single(request.rawHeaders, names[0]));
  const original = canonicalTarget(single(request.rawHeaders, names[1]));
  if (original === 'too-long') throw new CloakroomError('uri-too-long');
  if (original === 'malformed') throw new CloakroomError('bad-request');
  return { method, path: original.path };
}

function wellFormed(method: string | undefined): string {
  if (method === undefined || !METHOD.test(method)) throw new CloakroomError('bad-request');
  return method;
}

/** Of two, one would be the gateway's and the other somebody else's. */
function single(rawHeaders: readonly string[], name: string): string {
  const values: string[] = [];
  for (let i = 0; i < rawHeaders.length; i += 2) {
    // Some servers in between write the one for the other.
    if (rawHeaders[i]?.toLowerCase().replaceAll('_', '-') === name) values.push(rawHeaders[i + 1] ?? '');
  }
  const [value] = values;
  if (value === undefined || values.length > 1)
    throw new CloakroomError('bad-request', { public: { reason: name } });
  return value;
}
