import type { IncomingMessage } from 'node:http';
import type { Config } from '../config/config.js';
import { CloakroomError } from '../errors.js';

export const CSRF_HEADER = 'x-csrf';

/** Our own origin, and the others that may call. */
type Origins = Pick<Config, 'publicUrl' | 'cors'>;
/** What is looked at of a request. */
type Asked = Pick<IncomingMessage, 'method' | 'headers'>;

/**
 * A request that uses the cookie must carry the header that only script of our own origin can add without a preflight, or
 * script of a listed one after a preflight, and nothing else about it may speak of any other origin. Every method, GET included.
 *
 * @throws {CloakroomError} `csrf`, naming what is missing
 */
export function checkCsrf(request: Asked, origins: Origins): void {
  const { headers, method } = request;
  if (headers[CSRF_HEADER] !== '1') throw refused('header-missing', 'Send the header "X-CSRF: 1".');
  refuseForeign(request, origins);
  const said = headers.origin !== undefined || headers['sec-fetch-site'] === 'same-origin';
  if (!said && method !== 'GET' && method !== 'HEAD') throw refused('origin-missing');
}

/**
 * As {@link checkCsrf}, for what cannot add a header, such as `EventSource` and `<img>`: then the browser's own word that the
 * request comes from our origin takes its place. For methods that change something only `Origin` is word enough, and only
 * ours: a form of a listed origin needs no preflight that could be refused.
 *
 * @see https://www.w3.org/TR/fetch-metadata/
 * @throws {CloakroomError} `csrf`
 */
export function checkCsrfByOrigin(request: Asked, origins: Origins): void {
  const { headers, method } = request;
  if (headers[CSRF_HEADER] === '1') {
    checkCsrf(request, origins);
    return;
  }
  refuseForeign(request, origins);
  if (method !== 'GET' && method !== 'HEAD') {
    if (headers.origin === origins.publicUrl) return;
    throw headers.origin === undefined
      ? refused('origin-missing')
      : refused('header-missing', 'Send the header "X-CSRF: 1".');
  }
  if (headers.origin === undefined && headers['sec-fetch-site'] !== 'same-origin') {
    const detail = 'This browser does not say where the request comes from: send the header "X-CSRF: 1".';
    throw refused('origin-missing', detail);
  }
}

/**
 * A WebSocket is opened across origins without a preflight, with cookies, and its answers can be read: the origin that the
 * browser names must be ours or a listed one (RFC 6455 section 10.2). Nothing takes its place.
 *
 * @throws {CloakroomError} `csrf`
 */
export function checkWebSocketOrigin(request: Asked, origins: Origins): void {
  refuseForeign(request, origins);
  if (request.headers.origin === undefined) throw refused('origin-missing');
}

function refuseForeign({ headers }: Asked, { publicUrl, cors }: Origins): void {
  const { origin } = headers;
  // A browser says of a listed origin that it is another site or sub-domain; that is why it is listed.
  if (origin !== undefined && origin !== publicUrl && cors.origins.includes(origin)) return;
  const site = headers['sec-fetch-site'];
  // Node joins repeated lines, and what no browser says is no word of a browser.
  if (site !== undefined && site !== 'same-origin' && site !== 'none') throw refused('foreign-site');
  if (origin !== undefined && origin !== publicUrl) throw refused('foreign-origin');
}

function refused(reason: string, detail?: string): CloakroomError {
  return new CloakroomError('csrf', { public: { reason, ...(detail === undefined ? {} : { detail }) } });
}
