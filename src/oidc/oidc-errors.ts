import { AuthorizationResponseError, ClientError, ResponseBodyError } from 'openid-client';
import { CloakroomError } from '../errors.js';
import { ProviderCallError } from './provider-fetch.js';
import { GateClosedError } from './provider-gate.js';
import { TokenError } from './signed-token.js';

/**
 * What a failed call to a provider's token endpoint means.
 * - `refused`: a definite no to this grant; the refresh token is dead
 * - `misconfigured`: the provider does not know this client or this address; nothing is wrong with the session
 * - `limited`: not now; nothing was spent
 * - `unreachable`: the request never arrived; nothing was spent
 * - `unknown`: it may have been executed although no usable answer came back
 * - `rejected`: tokens came back, but the ID token with them is not about this session
 */
export type ProviderFailure =
  | { kind: 'refused'; status: number; error: string | undefined }
  | { kind: 'misconfigured'; reason: string }
  | { kind: 'limited' | 'unreachable'; retryAfter: number | undefined }
  | { kind: 'unknown'; answered: boolean }
  | { kind: 'rejected'; reason: string };

/** 4xx that speak about the address or the connection, not about the grant. */
const NOT_ABOUT_THE_GRANT = new Set([404, 405, 408, 421, 425]);

/** Never looks at a message: only at types, codes and the status of the answer. */
export function providerFailure(error: unknown): ProviderFailure {
  if (error instanceof TokenError) return { kind: 'rejected', reason: error.reason };
  if (error instanceof GateClosedError) return { kind: 'limited', retryAfter: error.remaining / 1000 };
  if (error instanceof CloakroomError) return { kind: 'unreachable', retryAfter: error.retryAfter };
  const call = callError(error);
  if (call !== undefined) {
    return call.sent
      ? { kind: 'unknown', answered: call.answered }
      : { kind: 'unreachable', retryAfter: undefined };
  }
  if (error instanceof ResponseBodyError) {
    return byStatus(error.status, error.error, error.response.headers.get('retry-after'));
  }
  const response = findResponse(error);
  if (response !== undefined && response.status >= 300) {
    return byStatus(response.status, undefined, response.headers.get('retry-after'));
  }
  return { kind: 'unknown', answered: true };
}

/** Whether the provider itself seems to be well; decides when it is left alone for a while. */
export function isHealthy(failure: ProviderFailure): boolean {
  return failure.kind !== 'unreachable' && !(failure.kind === 'unknown' && !failure.answered);
}

function byStatus(status: number, error: string | undefined, retryAfter: string | null): ProviderFailure {
  const seconds = retryAfter !== null && /^\d{1,6}$/.test(retryAfter) ? Number(retryAfter) : undefined;
  if (status === 429) return { kind: 'limited', retryAfter: seconds };
  if (status >= 500) return { kind: 'unknown', answered: false };
  if (status < 400) return { kind: 'unknown', answered: true };
  if (error === 'invalid_client') return { kind: 'misconfigured', reason: error };
  if (NOT_ABOUT_THE_GRANT.has(status)) return { kind: 'misconfigured', reason: `status-${String(status)}` };
  return { kind: 'refused', status, error };
}

function callError(error: unknown): ProviderCallError | undefined {
  for (let current = error; current instanceof Error; current = current.cause) {
    if (current instanceof ProviderCallError) return current;
  }
  return undefined;
}

function findResponse(error: unknown): Response | undefined {
  for (let current = error; current instanceof Error; current = current.cause) {
    if (current.cause instanceof Response) return current.cause;
  }
  return undefined;
}

/** What a browser is told when the code could not be exchanged, and what the log calls it. */
export function exchangeFailure(error: unknown): { error: CloakroomError; event: string; reason: string } {
  if (error instanceof AuthorizationResponseError) {
    return { error: refused(error), event: 'callback_refused', reason: error.error.slice(0, 64) };
  }
  // The library checks the answer to the authorization request before it calls the token endpoint.
  if (error instanceof ClientError && error.code === 'OAUTH_INVALID_RESPONSE' && !aboutTokenAnswer(error)) {
    return { error: refused(error), event: 'callback_refused', reason: 'invalid-response' };
  }
  const failure = providerFailure(error);
  switch (failure.kind) {
    case 'rejected':
      return { error: refused(error), event: 'id_token_rejected', reason: failure.reason };
    case 'refused':
      return { error: refused(error), event: 'code_exchange_refused', reason: failure.error ?? 'refused' };
    case 'misconfigured':
      return { error: unavailable(error), event: 'client_misconfigured', reason: failure.reason };
    case 'limited':
    case 'unreachable':
      return {
        error: unavailable(error, failure.retryAfter),
        event: 'code_exchange_failed',
        reason: failure.kind,
      };
    case 'unknown': {
      const answer = failure.answered
        ? new CloakroomError('idp-invalid', { cause: error })
        : unavailable(error);
      const reason = failure.answered ? 'invalid-answer' : 'no-answer';
      return { error: answer, event: 'code_exchange_failed', reason };
    }
  }
}

/** The library uses one code for both; only complaints about the token endpoint's answer carry its body. */
function aboutTokenAnswer(error: Error): boolean {
  for (let current: unknown = error; current instanceof Error; current = current.cause) {
    if (typeof current.cause === 'object' && current.cause !== null && 'body' in current.cause) return true;
  }
  return false;
}

function refused(cause: unknown): CloakroomError {
  return new CloakroomError('callback-refused', { cause });
}

function unavailable(cause: unknown, retryAfter = 5): CloakroomError {
  return new CloakroomError('idp-unavailable', { retryAfter, cause });
}
