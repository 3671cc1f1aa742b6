import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Config } from '../config/config.js';
import type { LiveSessions } from '../endings/live-sessions.js';
import { CloakroomError } from '../errors.js';
import type { Target } from '../http/canonical-path.js';
import type { TrustedProxies } from '../http/client-address.js';
import { logRefusal } from '../http/log-refusal.js';
import { sendProblem } from '../http/problem.js';
import { awaitsContinue } from '../http/request-check.js';
import { answerOn } from '../http/upgrade.js';
import type { RateLimits } from '../limits/rate-limits.js';
import type { Logger } from '../observability/logger.js';
import { requestId } from '../observability/request-id.js';
import type { Providers } from '../oidc/providers.js';
import { checkCsrf, checkCsrfByOrigin, checkWebSocketOrigin } from '../session/csrf.js';
import type { SessionCookie } from '../session/session-cookie.js';
import type { SessionsService } from '../session/sessions.service.js';
import type { Introspection } from '../tokens/introspection.js';
import { ActiveTokens } from './active-token.js';
import { Admission, type Admitted } from './admission.js';
import { checkOwnHost } from './dev-server.js';
import { EventStreams } from './event-streams.js';
import { forwardHttp } from './forward-http.js';
import { forwardWebSocket } from './forward-websocket.js';
import { upstreamRequestHeaders } from './headers.js';
import type { Parallel } from './parallel.js';
import { RefusedTokens } from './refused-token.js';
import { RouteTable, type Route } from './route-table.js';
import { wantsTrailers } from './trailers.js';
import { upstreamError } from './upstream-errors.js';
import { readHandshake } from './websocket-handshake.js';
import { WebSockets } from './websockets.js';

/** The proxied path, outside the framework: match, method, CSRF, size, session, token, forward. */
export class Proxy {
  readonly routes: RouteTable;
  readonly streams: EventStreams;
  readonly sockets: WebSockets;
  readonly admission: Admission;
  readonly #config: Config;
  readonly #sessions: SessionsService;
  readonly #refused: RefusedTokens;
  readonly #cookie: SessionCookie;
  readonly #trusted: TrustedProxies;
  readonly #logger: Logger;
  readonly #publicScheme: string;
  readonly #publicHost: string;

  constructor(parts: {
    config: Config;
    sessions: SessionsService;
    cookie: SessionCookie;
    providers: Providers;
    introspection: Introspection;
    live: LiveSessions;
    trusted: TrustedProxies;
    limits: RateLimits;
    logger: Logger;
  }) {
    this.#config = parts.config;
    this.#sessions = parts.sessions;
    const active = new ActiveTokens(parts.sessions, parts.providers, parts.introspection);
    this.admission = new Admission(parts.sessions, parts.trusted, active);
    this.#refused = new RefusedTokens(parts.sessions);
    this.#cookie = parts.cookie;
    this.#trusted = parts.trusted;
    this.#logger = parts.logger;
    this.streams = new EventStreams(parts.live);
    this.sockets = new WebSockets(parts.live);
    this.routes = new RouteTable(parts.config, parts.limits, parts.logger);
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
  upgrade(request: IncomingMessage, socket: Socket, head: Buffer, route: Route, target: Target): void {
    // Until the upstream has agreed the browser is spoken to in HTTP.
    const response = answerOn(socket, request);
    this.#tunnel(request, response, { socket, head }, route, target).catch((error: unknown) => {
      this.#refuse(request, response, error);
    });
  }

  async #tunnel(
    request: IncomingMessage,
    response: ServerResponse,
    { socket, head }: { socket: Socket; head: Buffer },
    route: Route,
    target: Target,
  ): Promise<void> {
    const { websocket } = route;
    if (websocket === undefined) throw new CloakroomError('not-found');
    checkWebSocketOrigin(request, this.#config);
    const handshake = readHandshake(request);
    const admitted = await this.admission.admit(request, route, websocket.perSession);
    const { session } = admitted ?? {};
    const leave = departure(websocket.perSession, session?.handle);
    // The browser may have left while we were asking; nothing must reach the upstream then.
    if (hasLeft(socket) || socket.readableEnded) {
      leave();
      socket.destroy();
      return;
    }
    try {
      forwardWebSocket({
        ...{ request, response, socket, head, handshake, route, websocket, session },
        ...this.#onward(request, route, target, admitted?.accessToken),
        security: route.security,
        accessToken: admitted?.accessToken,
        refused: this.#refused,
        sockets: this.sockets,
        used: websocket.keepsSession && session !== undefined ? this.#sessions.use(session) : undefined,
        failed: (error) => {
          this.#refuse(request, response, upstreamError(error));
        },
        over: leave,
      });
    } catch (error) {
      leave();
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
    else if (route.csrf === 'origin') checkCsrfByOrigin(request, this.#config);
    else checkOwnHost(request, this.#publicHost);
    // Before the browser is told to go on and send it.
    if (Number(request.headers['content-length'] ?? 0) > route.requestBody) {
      throw new CloakroomError('payload-too-large');
    }
    const admitted = await this.admission.admit(request, route, route.parallel);
    let isForwarded = false;
    try {
      // The browser may have left while we were asking; nothing must reach the upstream then.
      if (response.destroyed || hasLeft(request.socket)) return;
      if (awaitsContinue(request)) response.writeContinue();
      this.#forward(request, response, route, target, admitted);
      isForwarded = true;
    } finally {
      // From then on they leave when the exchange is over.
      if (!isForwarded && admitted !== undefined) route.parallel.leave(admitted.session.handle);
    }
  }

  #forward(
    request: IncomingMessage,
    response: ServerResponse,
    route: Route,
    target: Target,
    admitted: Admitted | undefined,
  ): void {
    forwardHttp({
      request,
      response,
      route,
      ...this.#onward(request, route, target, admitted?.accessToken),
      security: route.security,
      streams: this.streams,
      session: admitted?.session,
      accessToken: admitted?.accessToken,
      refused: this.#refused,
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
      headers: request.headers,
      allow: route.requestAllow,
      cookies: route.cookies,
      accessToken,
      requestId: id,
      clientAddress: this.#trusted.clientAddress(request),
      publicScheme: this.#publicScheme,
      publicHost: this.#publicHost,
      wantsTrailers: wantsTrailers(request),
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

/** Holds on to nothing else of a handshake: it is kept for as long as the socket is open. */
function departure(perSession: Parallel, handle: string | undefined): () => void {
  return () => {
    if (handle !== undefined) perSession.leave(handle);
  };
}

/** Also known for a moment before Node tells of a reset, by the address that is gone with the connection. */
function hasLeft(socket: Socket): boolean {
  return socket.destroyed || socket.remoteAddress === undefined;
}
