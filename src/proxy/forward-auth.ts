import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Config, ForwardAuthConfig } from '../config/config.js';
import { CloakroomError } from '../errors.js';
import type { Target } from '../http/canonical-path.js';
import { TrustedProxies } from '../http/client-address.js';
import { closeInStages } from '../http/closing.js';
import { securityHeaders } from '../http/security-headers.js';
import type { Logger } from '../observability/logger.js';
import { requestId } from '../observability/request-id.js';
import { checkCsrf, checkCsrfByOrigin, checkWebSocketOrigin } from '../session/csrf.js';
import type { Admission } from './admission.js';
import { originalRequest, type OriginalRequest } from './original-request.js';
import { Parallel } from './parallel.js';
import type { Route, RouteTable } from './route-table.js';

/**
 * Answers gateways that ask whether a request may pass: 200, with the access token where the route wants one, or the problem.
 * The rules are those of the proxy; what becomes of the request afterwards is the gateway's.
 */
export class ForwardAuth {
  readonly #config: Config;
  readonly #forwardAuth: ForwardAuthConfig;
  readonly #peers: TrustedProxies;
  readonly #routes: RouteTable;
  readonly #admission: Admission;
  readonly #logger: Logger;
  readonly #security: readonly (readonly [string, string])[];
  /** How long what was let through takes is not seen here. */
  readonly #uncounted = new Parallel(Infinity);

  constructor(parts: {
    config: Config;
    forwardAuth: ForwardAuthConfig;
    routes: RouteTable;
    admission: Admission;
    logger: Logger;
  }) {
    this.#config = parts.config;
    this.#forwardAuth = parts.forwardAuth;
    this.#peers = new TrustedProxies(parts.forwardAuth.peers);
    this.#routes = parts.routes;
    this.#admission = parts.admission;
    this.#logger = parts.logger;
    this.#security = securityHeaders(parts.config.secureCookies);
  }

  /** @throws {CloakroomError} why the request may not pass */
  async verify(request: IncomingMessage, response: ServerResponse, target: Target): Promise<void> {
    this.#checkPeer(request);
    const original = this.#original(request, target);
    const route = this.#routes.match(original.path);
    if (route === undefined) throw forbidden('no-route');
    this.#checkRules(request, original, route);
    const admitted = await this.#admission.admit(request, route, this.#uncounted);
    if (admitted === undefined) {
      // A gateway that only ever adds headers would pass it on as if it had come from here.
      if (request.headers.authorization !== undefined) throw forbidden('authorization');
    } else {
      this.#uncounted.leave(admitted.session.handle);
    }
    this.#letPass(request, response, admitted?.accessToken);
  }

  #checkPeer(request: IncomingMessage): void {
    const peer = request.socket.remoteAddress ?? '';
    if (this.#peers.trusts(peer)) return;
    this.#logger.warn('forward_auth_refused', {
      peer,
      remedy: 'if this is a gateway of yours, list its address in forwardAuth.peers',
    });
    throw new CloakroomError('not-found');
  }

  #original(request: IncomingMessage, target: Target): OriginalRequest {
    const { gateway } = this.#forwardAuth;
    try {
      return originalRequest(request, target, gateway);
    } catch (error) {
      const header = error instanceof CloakroomError ? error.public.reason : undefined;
      if (header !== undefined) {
        const remedy = `the gateway must send it exactly once, in place of what clients send (forwardAuth.gateway: ${gateway})`;
        this.#logger.warn('forward_auth_unreadable', { header, remedy });
      }
      throw error;
    }
  }

  #checkRules(request: IncomingMessage, { method }: OriginalRequest, route: Route): void {
    const asked = { method, headers: request.headers };
    if (isHandshake(request)) {
      if (route.websocket === undefined || method !== 'GET') throw forbidden('websocket');
      checkWebSocketOrigin(asked, this.#config);
      return;
    }
    if (!route.methods.has(method)) throw forbidden('method');
    if (route.csrf === 'header') checkCsrf(asked, this.#config);
    else checkCsrfByOrigin(asked, this.#config);
  }

  #letPass(request: IncomingMessage, response: ServerResponse, accessToken: string | undefined): void {
    for (const [name, value] of this.#security) response.setHeader(name, value);
    response.setHeader('cache-control', 'no-store');
    response.setHeader('x-request-id', requestId(request));
    if (accessToken !== undefined) response.setHeader('authorization', `Bearer ${accessToken}`);
    const length = request.headers['content-length'] ?? '0';
    // Nobody reads a body here, and none must become the next request.
    if (length !== '0' || request.headers['transfer-encoding'] !== undefined)
      closeInStages(request, response);
    // Envoy takes 200 alone for a yes.
    response.statusCode = 200;
    response.setHeader('content-length', '0');
    response.end();
  }
}

/** `Upgrade` is for one connection and stays at the gateway; only browsers that open a WebSocket send the key. */
function isHandshake({ headers }: IncomingMessage): boolean {
  return headers['sec-websocket-key'] !== undefined || headers.upgrade?.toLowerCase() === 'websocket';
}

function forbidden(reason: string): CloakroomError {
  return new CloakroomError('forbidden', { public: { reason } });
}
