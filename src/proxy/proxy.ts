import { ServerResponse, type IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { Config } from '../config/config.js';
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
import { checkCsrf, checkCsrfByOrigin, checkWebSocketOrigin } from '../session/csrf.js';
import type { SessionCookie } from '../session/session-cookie.js';
import type { SessionsService } from '../session/sessions.service.js';
import type { OpenSession } from '../store/session-records.js';
import { EventStreams } from './event-streams.js';
import { forwardHttp } from './forward-http.js';
import { forwardWebSocket } from './forward-websocket.js';
import { upstreamRequestHeaders } from './headers.js';
import type { Parallel } from './parallel.js';
import { RouteTable, type Route } from './route-table.js';
import { upstreamError } from './upstream-errors.js';
import { readHandshake } from './websocket-handshake.js';
import { WebSockets } from './websockets.js';

/** Seconds. */
const TRY_AGAIN_IN = 1;

/** The proxied path, outside the framework: match, method, CSRF, size, session, token, forward. */
export class Proxy {
  readonly routes: RouteTable;
  readonly streams: EventStreams;
  readonly sockets: WebSockets;
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
    this.sockets = new WebSockets(parts.live);
    this.routes = new RouteTable(parts.config);
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

  /** @param head what came behind the request in one packet with it */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer, route: Route, target: Target): void {
    // Until the upstream has agreed the browser is spoken to in HTTP.
    const response = new ServerResponse(request);
    response.shouldKeepAlive = false;
    response.assignSocket(socket as Socket);
    socket.on('error', () => socket.destroy());
    this.#tunnel(request, response, { socket, head }, route, target).catch((error: unknown) => {
      this.#refuse(request, response, error);
    });
  }

  async #tunnel(
    request: IncomingMessage,
    response: ServerResponse,
    { socket, head }: { socket: Duplex; head: Buffer },
    route: Route,
    target: Target,
  ): Promise<void> {
    const { websocket } = route;
    const handshake = readHandshake(request);
    if (websocket === undefined || handshake === undefined) throw new CloakroomError('bad-request');
    checkWebSocketOrigin(request, this.#config);
    const asked = this.#isAnonymous(request, route)
      ? undefined
      : await this.#admit(request, websocket.perSession);
    const leave = (): void => {
      if (asked !== undefined) websocket.perSession.leave(asked.session.handle);
    };
    if (socket.destroyed) {
      leave();
      return;
    }
    forwardWebSocket({
      ...{ request, response, socket, head, handshake, route, websocket },
      ...this.#onward(request, route, target, asked?.accessToken),
      security: this.#security,
      session: asked?.session,
      sockets: this.sockets,
      failed: (error) => {
        this.#refuse(request, response, upstreamError(error));
      },
      over: leave,
    });
  }

  /** Who asks, counted as under way until the caller takes it back. */
  async #admit(
    request: IncomingMessage,
    parallel: Parallel,
  ): Promise<{ session: OpenSession; accessToken: string }> {
    const session = await this.#sessions.find(request.headers.cookie, { slide: true });
    if (!parallel.enter(session.handle)) {
      throw new CloakroomError('too-many-requests', { retryAfter: TRY_AGAIN_IN });
    }
    try {
      return { session, accessToken: await this.#sessions.accessToken(session) };
    } catch (error) {
      parallel.leave(session.handle);
      throw error;
    }
  }

  async #serve(
    request: IncomingMessage,
    response: ServerResponse,
    route: Route,
    target: Target,
  ): Promise<void> {
    if (!route.methods.has(request.method ?? '')) {
      throw new CloakroomError('method-not-allowed', { allow: [...route.methods] });
    }
    if (route.csrf === 'header') checkCsrf(request, this.#config);
    else checkCsrfByOrigin(request, this.#config);
    // Before the browser is told to go on and send it.
    if (Number(request.headers['content-length'] ?? 0) > route.requestBody) {
      throw new CloakroomError('payload-too-large');
    }
    if (this.#isAnonymous(request, route)) {
      if (awaitsContinue(request)) response.writeContinue();
      this.#forward(request, response, route, target, undefined, undefined);
      return;
    }
    const session = await this.#sessions.find(request.headers.cookie, { slide: true });
    if (!route.parallel.enter(session.handle)) {
      throw new CloakroomError('too-many-requests', { retryAfter: TRY_AGAIN_IN });
    }
    let isForwarded = false;
    try {
      const token = this.#sessions.accessToken(session);
      const accessToken = typeof token === 'string' ? token : await token;
      // The browser may have left while we were asking; nothing must reach the upstream then.
      if (response.destroyed) return;
      if (awaitsContinue(request)) response.writeContinue();
      this.#forward(request, response, route, target, session, accessToken);
      isForwarded = true;
    } finally {
      // From then on it leaves when the exchange is over.
      if (!isForwarded) route.parallel.leave(session.handle);
    }
  }

  /**
   * Where nobody needs to be signed in, only a request without any session cookie is nobody's. One whose cookie turns out dead
   * is refused, and one that cannot be looked up waits: neither may be served as if a stranger had asked.
   */
  #isAnonymous(request: IncomingMessage, { token }: Route): boolean {
    if (token === 'user') return false;
    return token === 'none' || this.#cookie.read(request.headers.cookie).kind === 'none';
  }

  #forward(
    request: IncomingMessage,
    response: ServerResponse,
    route: Route,
    target: Target,
    session: OpenSession | undefined,
    accessToken: string | undefined,
  ): void {
    forwardHttp({
      request,
      response,
      route,
      ...this.#onward(request, route, target, accessToken),
      security: this.#security,
      streams: this.streams,
      session,
      failed: (error) => {
        this.#refuse(request, response, upstreamError(error));
      },
    });
  }

  /** What the upstream is asked for, and told. */
  #onward(
    request: IncomingMessage,
    route: Route,
    target: Target,
    accessToken: string | undefined,
  ): { path: string; headers: string[]; requestId: string } {
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
    return { path: path + target.query, headers, requestId: id };
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
