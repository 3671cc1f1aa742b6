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
  refuseForeign(request, publicOrigin);
  const said = headers.origin !== undefined || headers['sec-fetch-site'] === 'same-origin';
  if (!said && method !== 'GET' && method !== 'HEAD') throw refused('origin-missing');
}

/**
 * As {@link checkCsrf}, for what cannot add a header, such as `EventSource`: then the browser's own word that the request
 * comes from our origin takes its place.
 *
 * @see https://www.w3.org/TR/fetch-metadata/
 * @throws {CloakroomError} `csrf`
 */
export function checkCsrfByOrigin(request: IncomingMessage, publicOrigin: string): void {
  const { headers } = request;
  if (headers[CSRF_HEADER] === '1') {
    checkCsrf(request, publicOrigin);
    return;
  }
  refuseForeign(request, publicOrigin);
  if (headers.origin === undefined && headers['sec-fetch-site'] !== 'same-origin') {
    const detail = 'This browser does not say where the request comes from: send the header "X-CSRF: 1".';
    throw refused('origin-missing', detail);
  }
}

function refuseForeign({ headers }: IncomingMessage, publicOrigin: string): void {
  const site = headers['sec-fetch-site'];
  if (site === 'cross-site' || site === 'same-site') throw refused('foreign-site');
  if (headers.origin !== undefined && headers.origin !== publicOrigin) throw refused('foreign-origin');
}

function refused(reason: string, detail?: string): CloakroomError {
  return new CloakroomError('csrf', { public: { reason, ...(detail === undefined ? {} : { detail }) } });
}
