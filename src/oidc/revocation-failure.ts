import { ResponseBodyError } from 'openid-client';
import { providerFailure } from './oidc-errors.js';

/**
 * What a failed revocation means.
 * - `revoked`: it did not fail after all; the provider says so in a way of its own
 * - `refused`: it never will be revoked: the provider does not take this token, or it is dead already
 * - `open`: nobody knows; the token may well be alive, and asking again does no harm
 */
export interface RevocationFailure {
  kind: 'revoked' | 'refused' | 'open';
  /** A word for the log. */
  reason: string;
  /** Seconds. */
  retryAfter: number | undefined;
}

/** RFC 7009 section 2.2.1, and what some providers answer for a token that is not valid any more. */
const DEFINITE = new Set(['unsupported_token_type', 'invalid_grant', 'invalid_token']);

/**
 * Stricter than for a refresh: there a 4xx ends the grant, here it would leave the token alive for good. A client that is
 * not known just now, an address that moved, a firewall's 403: all of it is asked again.
 */
export function revocationFailure(error: unknown): RevocationFailure {
  const response = answerTo(error);
  if (response === undefined) {
    const failure = providerFailure(error);
    const retryAfter = 'retryAfter' in failure ? failure.retryAfter : undefined;
    return { kind: 'open', reason: failure.kind === 'unreachable' ? 'unreachable' : 'no-answer', retryAfter };
  }
  const { status } = response;
  const code = error instanceof ResponseBodyError ? error.error : '';
  if (status >= 200 && status < 300) {
    return { kind: 'revoked', reason: `status-${String(status)}`, retryAfter: undefined };
  }
  const definite = status >= 400 && status < 500 && DEFINITE.has(code);
  return {
    kind: definite ? 'refused' : 'open',
    // Only what can be nothing but a code: the provider's words may hold what was sent to it.
    reason: /^[a-z_]{1,40}$/.test(code) ? code : `status-${String(status)}`,
    retryAfter: seconds(response.headers.get('retry-after')),
  };
}

function answerTo(error: unknown): Response | undefined {
  if (error instanceof ResponseBodyError) return error.response;
  for (let current = error; current instanceof Error; current = current.cause) {
    if (current.cause instanceof Response) return current.cause;
  }
  return undefined;
}

function seconds(header: string | null): number | undefined {
  if (header === null) return undefined;
  if (/^\d{1,6}$/.test(header)) return Number(header);
  const at = Date.parse(header);
  return Number.isNaN(at) ? undefined : Math.max(0, (at - Date.now()) / 1000);
}
