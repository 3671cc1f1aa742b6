import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Config } from '../config/schema.js';
import type { LiveSessions } from '../endings/live-sessions.js';
import { CloakroomError } from '../errors.js';
import type { Target } from '../http/canonical-path.js';
import type { TrustedProxies } from '../http/client-address.js';
import { logRefusal } from '../http/log-refusal.js';
import { sendProblem } from '../http/problem.js';
import { awaitsContinue } from '../http/request-check.js';
import { securityHeaders } from '../http/security-headers.js';
import type { Logger } from '../observability/logger.js';
import { requestId } from '../observability/request-id.js';
import { checkCsrf } from '../session/csrf.js';
import type { SessionCookie } from '../session/session-cookie.js';
import type { SessionsService } from '../session/sessions.service.js';
import type { OpenSession } from '../store/session-records.js';
import { EventStreams } from './event-streams.js';
import { forwardHttp } from './forward-http.js';
import { upstreamRequestHeaders } from './headers.js';
import { RouteTable, type Route } from './route-table.js';
import { upstreamError } from './upstream-errors.js';

const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']);

/** The proxied path, outside the framework: match, CSRF, session, token, forward. */
export class Proxy {
  readonly routes: RouteTable;
  readonly streams: EventStreams;
  readonly #config: Config;
  readonly #sessions: SessionsService;
  readonly #cookie: SessionCookie;
  readonly #trusted: TrustedProxies;
  readonly #logger: Logger;
  readonly #security: readonly (readonly [string, string])[];
  readonly #publicScheme: string;
  readonly #publicHost: string;

  constructor(parts: {
    config: Config;
    sessions: SessionsService;
    cookie: SessionCookie;
    live: LiveSessions;
    trusted: TrustedProxies;
    logger: Logger;
  }) {
    this.#config = parts.config;
    this.#sessions = parts.sessions;
    this.#cookie = parts.cookie;
    this.#trusted = parts.trusted;
    this.#logger = parts.logger;
    this.streams = new EventStreams(parts.live);
    this.routes = new RouteTable(parts.config.routes);
    this.#security = securityHeaders(parts.config.secureCookies);
    const { protocol, host } = new URL(parts.config.publicUrl);
    this.#publicScheme = protocol.slice(0, -1);
    this.#publicHost = host;
  }

  handle(request: IncomingMessage, response: ServerResponse, route: Route, target: Target): void {
    this.#serve(request, response, route, target).catch((error: unknown) => {
      this.#refuse(request, response, error);
    });
  }

  async #serve(
    request: IncomingMessage,
    response: ServerResponse,
    route: Route,
    target: Target,
  ): Promise<void> {
    if (!METHODS.has(request.method ?? '')) {
      throw new CloakroomError('method-not-allowed', { allow: [...METHODS] });
    }
    checkCsrf(request, this.#config.publicUrl);
    const session = await this.#sessions.find(request.headers.cookie, { slide: true });
    const token = this.#sessions.accessToken(session);
    const accessToken = typeof token === 'string' ? token : await token;
    // The browser may have left while we were asking; nothing must reach the upstream then.
    if (response.destroyed) return;
    if (awaitsContinue(request)) response.writeContinue();
    this.#forward(request, response, route, target, session, accessToken);
  }

  #forward(
    request: IncomingMessage,
    response: ServerResponse,
    route: Route,
    target: Target,
    session: OpenSession,
    accessToken: string,
  ): void {
    const id = requestId(request);
    const headers = upstreamRequestHeaders({
      rawHeaders: request.rawHeaders,
      allow: route.requestAllow,
      cookies: route.cookies,
      accessToken,
      requestId: id,
      clientAddress: this.#trusted.clientAddress(request),
      publicScheme: this.#publicScheme,
      publicHost: this.#publicHost,
    });
    const path =
      route.prefix === undefined ? target.path : route.prefix + target.path.slice(route.path.length);
    forwardHttp({
      request,
      response,
      route,
      path: path + target.query,
      headers,
      requestId: id,
      security: this.#security,
      streams: this.streams,
      session,
      failed: (error) => {
        this.#refuse(request, response, upstreamError(error));
      },
    });
  }

  #refuse(request: IncomingMessage, response: ServerResponse, reason: unknown): void {
    const error = CloakroomError.from(reason);
    logRefusal(this.#logger, request, error, false);
    sendProblem(request, response, error, {
      secure: this.#config.secureCookies,
      clearing: error.clearSession ? this.#cookie.clearingDead(request.headers.cookie) : [],
    });
  }
}
