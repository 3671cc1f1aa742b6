import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Config } from '../config/config.js';
import { requestId } from '../observability/request-id.js';
import { closeAfter } from './closing.js';
import { DATA_CSP, securityHeaders } from './security-headers.js';

/** What a script of a listed origin is told about one address, ready to be sent. */
export interface CrossOriginAccess {
  /** Methods that are served there. */
  readonly methods: readonly string[];
  /** Names of request headers that have a meaning there. */
  readonly headers: string;
  /** Names of response headers that the script may read, besides those that it always may. */
  readonly exposed: string;
  /** Whether other methods than these do other things there: GET /auth/logout is a navigation. */
  readonly isOwn: boolean;
}

/** Seconds a browser may remember what a preflight said; browsers cap it themselves. */
const MAX_AGE = '600';
const EXPOSED = 'x-request-id, retry-after';
const OWN_HEADERS = 'x-csrf, accept, cache-control, content-type, last-event-id';

const OWN_ENDPOINTS: readonly (readonly [RegExp, CrossOriginAccess])[] = [
  [/^\/auth\/me$/, own('GET', 'HEAD')],
  [/^\/auth\/(?:events|sessions)$/, own('GET')],
  [/^\/auth\/(?:logout|sessions\/end-others)$/, own('POST')],
  [/^\/auth\/sessions\/[^/]+$/, own('DELETE')],
];

/** Our own endpoints that scripts call; navigations are no business of other origins. */
export function endpointAccess(path: string): CrossOriginAccess | undefined {
  if (!path.startsWith('/auth/')) return undefined;
  return OWN_ENDPOINTS.find(([pattern]) => pattern.test(path))?.[1];
}

/** As {@link endpointAccess}, for a route. */
export function routeAccess(route: {
  methods: readonly string[];
  requestHeaders: readonly string[];
  responseHeaders: readonly string[];
}): CrossOriginAccess {
  return {
    methods: route.methods,
    headers: ['x-csrf', ...route.requestHeaders].join(', '),
    exposed: [
      EXPOSED,
      'cloakroom-answer, content-disposition, etag, link, location',
      ...route.responseHeaders,
    ].join(', '),
    isOwn: false,
  };
}

function own(...methods: string[]): CrossOriginAccess {
  return { methods, headers: OWN_HEADERS, exposed: EXPOSED, isOwn: true };
}

/**
 * Front ends on other origins, which are listed one by one.
 *
 * @see https://fetch.spec.whatwg.org/#http-cors-protocol
 */
export class CrossOrigin {
  readonly #origins: ReadonlySet<string>;
  readonly #secure: boolean;

  constructor(config: Config) {
    this.#origins = new Set(config.cors.origins);
    this.#secure = config.secureCookies;
  }

  /**
   * Puts on whatever answer follows, an error included, what its reader's browser asks for, and answers preflights: nothing
   * behind us is asked about these.
   *
   * @param access undefined for what other origins have no business with
   * @returns whether the request is answered
   */
  answer(request: IncomingMessage, response: ServerResponse, access: CrossOriginAccess | undefined): boolean {
    const { method = '', headers } = request;
    const { origin } = headers;
    if (access === undefined || origin === undefined || !this.#origins.has(origin)) return false;
    const isPreflight = method === 'OPTIONS' && headers['access-control-request-method'] !== undefined;
    const isServed = access.methods.includes(method) || !access.isOwn;
    if (!isPreflight && !isServed) return false;
    response.setHeader('vary', 'Origin');
    response.setHeader('access-control-allow-origin', origin);
    response.setHeader('access-control-allow-credentials', 'true');
    if (isPreflight) this.#sendPreflight(request, response, access);
    else response.setHeader('access-control-expose-headers', access.exposed);
    return isPreflight;
  }

  #sendPreflight(request: IncomingMessage, response: ServerResponse, access: CrossOriginAccess): void {
    for (const [name, value] of securityHeaders(this.#secure)) response.setHeader(name, value);
    response.setHeader('content-security-policy', DATA_CSP);
    response.setHeader('x-request-id', requestId(request));
    response.setHeader('vary', 'Origin, Access-Control-Request-Method, Access-Control-Request-Headers');
    response.setHeader('access-control-allow-methods', access.methods.join(', '));
    response.setHeader('access-control-allow-headers', access.headers);
    response.setHeader('access-control-max-age', MAX_AGE);
    if ('transfer-encoding' in request.headers || (request.headers['content-length'] ?? '0') !== '0') {
      // No browser sends a body with a preflight; what is in this one must not become the next request.
      closeAfter(request, response);
    }
    response.statusCode = 204;
    response.end();
  }
}
