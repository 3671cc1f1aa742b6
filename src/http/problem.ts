import { STATUS_CODES, type IncomingMessage, type ServerResponse } from 'node:http';
import { ERRORS, type CloakroomError } from '../errors.js';
import { closeAfter, closeInStages } from './closing.js';
import { requestId } from '../observability/request-id.js';
import { DATA_CSP, securityHeaders } from './security-headers.js';

/**
 * The challenge of our own 401. A private scheme: browsers answer Basic, Bearer and Negotiate with a prompt.
 *
 * @see RFC 9110 section 11.6.1
 */
const CHALLENGE = 'Cloakroom realm="session"';
/** For operators, whose listener answers no browser. */
const ADMIN_CHALLENGE = 'Bearer realm="admin"';

/** The document of RFC 9457 for an error; `instance` is the reference in our log. */
export function problemDocument(error: CloakroomError, instance: string): Record<string, unknown> {
  return {
    type: error.code,
    title: ERRORS[error.code].title,
    status: error.status,
    instance,
    ...error.public,
  };
}

/** Header lines an error's answer has whatever its body looks like. */
export function problemHeaders(error: CloakroomError): [string, string][] {
  const headers: [string, string][] = [['cache-control', 'no-store']];
  if (error.status === 401) {
    headers.push(['www-authenticate', error.code === 'unauthorized' ? ADMIN_CHALLENGE : CHALLENGE]);
  }
  if (error.allow !== undefined) headers.push(['allow', error.allow.join(', ')]);
  if (error.retryAfter !== undefined) {
    headers.push(['retry-after', String(Math.max(1, Math.ceil(error.retryAfter)))]);
  }
  return headers;
}

/**
 * Answers a request outside the framework with a problem document.
 *
 * @param clearing `Set-Cookie` values that take a dead session away
 */
export function sendProblem(
  request: IncomingMessage,
  response: ServerResponse,
  error: CloakroomError,
  options: { secure: boolean; clearing?: string[]; close?: boolean },
): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const instance = requestId(request);
  for (const [name, value] of securityHeaders(options.secure)) response.setHeader(name, value);
  for (const [name, value] of problemHeaders(error)) response.setHeader(name, value);
  response.setHeader('x-request-id', instance);
  response.setHeader('content-security-policy', DATA_CSP);
  response.setHeader('content-type', 'application/problem+json');
  if (options.clearing !== undefined && options.clearing.length > 0) {
    response.setHeader('set-cookie', options.clearing);
  }
  const body = JSON.stringify(problemDocument(error, instance));
  // An unread request body must not be taken for the next request on this connection.
  const unread = !request.complete && (request.headers['content-length'] ?? '0') !== '0';
  if (options.close === true) closeAfter(request, response);
  else if (unread || request.headers['transfer-encoding'] !== undefined) closeInStages(request, response);
  response.statusCode = error.status;
  response.setHeader('content-length', Buffer.byteLength(body));
  response.end(request.method === 'HEAD' ? undefined : body);
}

/** The same answer as bytes, for a connection whose request could not even be parsed. */
export function rawProblem(error: CloakroomError, options: { secure: boolean; instance: string }): string {
  const body = JSON.stringify(problemDocument(error, options.instance));
  const headers = [
    ...securityHeaders(options.secure),
    ...problemHeaders(error),
    ['x-request-id', options.instance],
    ['content-security-policy', DATA_CSP],
    ['content-type', 'application/problem+json'],
    ['content-length', String(Buffer.byteLength(body))],
    ['connection', 'close'],
  ];
  const lines = headers.map(([name, value]) => `${name}: ${value}\r\n`).join('');
  return `HTTP/1.1 ${String(error.status)} ${STATUS_CODES[error.status] ?? ''}\r\n${lines}\r\n${body}`;
}
