import type { IncomingMessage } from 'node:http';
import { CloakroomError } from '../errors.js';

export const CSRF_HEADER = 'x-csrf';

/**
 * A request that uses the cookie must carry the header that only script of our own origin can add without a preflight,
 * and nothing else about it may speak of another origin. Every method, GET included.
 *
 * @param publicOrigin the only origin that is ours
 * @throws {CloakroomError} `csrf`, naming what is missing
 */
export function checkCsrf(request: IncomingMessage, publicOrigin: string): void {
  const { headers, method } = request;
  if (headers[CSRF_HEADER] !== '1') throw refused('header-missing', 'Send the header "X-CSRF: 1".');
  const site = headers['sec-fetch-site'];
  if (site === 'cross-site' || site === 'same-site') throw refused('foreign-site');
  if (headers.origin !== undefined) {
    if (headers.origin !== publicOrigin) throw refused('foreign-origin');
  } else if (method !== 'GET' && method !== 'HEAD' && site !== 'same-origin') {
    throw refused('origin-missing');
  }
}

function refused(reason: string, detail?: string): CloakroomError {
  return new CloakroomError('csrf', { public: { reason, ...(detail === undefined ? {} : { detail }) } });
}
