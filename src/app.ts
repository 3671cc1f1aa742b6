import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { NestFactory } from '@nestjs/core';
import { ExpressAdapter } from '@nestjs/platform-express';
import express, { type Express } from 'express';
import { AppModule } from './app.module.js';
import type { Config } from './config/config.js';
import { ErrorFilter } from './error.filter.js';
import { CloakroomError } from './errors.js';
import { frontend } from './frontend/frontend.js';
import { closeAfter, comesTooLate, endsWithConnection } from './http/closing.js';
import { CrossOrigin, endpointAccess } from './http/cross-origin.js';
import { logRefusal } from './http/log-refusal.js';
import { sendProblem } from './http/problem.js';
import { awaitsContinue, checkRequest } from './http/request-check.js';
import { DATA_CSP, securityHeaders } from './http/security-headers.js';
import { answerUnparsed } from './http/unparsed.js';
import { afterAnswers, answerOn, serveWithoutUpgrade } from './http/upgrade.js';
import type { Logger } from './observability/logger.js';
import { requestId } from './observability/request-id.js';
import type { Route } from './proxy/route-table.js';
import { asksForWebSocket } from './proxy/websocket-handshake.js';
import { composeServices, type Services } from './services.js';

/** Bytes of one request's header block, and lines in it. */
const MAX_HEADER_SIZE = 16 * 1024;
const MAX_HEADER_LINES = 200;
/** Milliseconds. Longer than load balancers keep idle connections, so that they and not we close them. */
const KEEP_ALIVE = 75_000;
const HEADERS_WITHIN = 15_000;
/** Milliseconds between two looks at which connections have taken too long: often, so that few of them end in one moment. */
const LOOK_EVERY = 1_000;
/** Milliseconds by which whoever has a time limit of its own may be late. */
const GRACE = 5_000;

export interface App {
  server: Server;
  services: Services;
}

/**
 * The request pipeline, in order: framing and path are checked, preflights of listed origins answered; routes go to the
 * proxy, everything else to our own endpoints and then to the front end's files or its development server.
 */
export async function createApp(config: Config, logger: Logger): Promise<App> {
  const services = composeServices(config, logger);
  const endpoints = await createEndpoints(config, services, logger);
  const { secureCookies: secure, publicUrl } = config;
  const crossOrigin = config.cors.origins.length > 0 ? new CrossOrigin(config) : undefined;

  const { routes } = services.proxy;
  const routeOf = (path: string): Route | undefined =>
    routes.match(path) ?? (isOwnEndpoint(path) ? undefined : routes.devServer);

  const handle = (request: IncomingMessage, response: ServerResponse): void => {
    if (comesTooLate(request)) return;
    endsWithConnection(request, response);
    try {
      if (request.rawHeaders.length > 2 * MAX_HEADER_LINES) throw new CloakroomError('headers-too-large');
      const target = checkRequest(request, publicUrl);
      // Node serves such a request in HTTP/1.1, as it should, but loses what came in one packet with it.
      if (request.headers.upgrade !== undefined) closeAfter(request, response);
      if (services.health.draining) response.setHeader('connection', 'close');
      if (logger.isDebug) logWhenDone(request, response, target.path, logger);
      const route = routeOf(target.path);
      if (crossOrigin !== undefined) {
        const access = route === undefined ? endpointAccess(target.path) : route.crossOrigin;
        if (crossOrigin.answer(request, response, access)) return;
      }
      if (route !== undefined) {
        services.proxy.handle(request, response, route, target);
        return;
      }
      request.url = target.path + target.query;
      if (awaitsContinue(request)) response.writeContinue();
      endpoints(request, response);
    } catch (reason) {
      const error = CloakroomError.from(reason);
      logRefusal(logger, request, error, false);
      sendProblem(request, response, error, { secure, close: true });
    }
  };

  const upgrade = (request: IncomingMessage, socket: Socket, head: Buffer): void => {
    if (comesTooLate(request) || !socket.writable) return;
    try {
      if (request.rawHeaders.length > 2 * MAX_HEADER_LINES) throw new CloakroomError('headers-too-large');
      const target = checkRequest(request, publicUrl);
      const route = routeOf(target.path);
      if (route?.websocket === undefined || !asksForWebSocket(request)) {
        serveWithoutUpgrade(server, request, socket, head);
      } else {
        services.proxy.upgrade(request, socket, head, route, target);
      }
    } catch (reason) {
      const error = CloakroomError.from(reason);
      logRefusal(logger, request, error, false);
      sendProblem(request, answerOn(socket, request), error, { secure, close: true });
    }
  };

  const server = createServer({
    maxHeaderSize: MAX_HEADER_SIZE,
    headersTimeout: HEADERS_WITHIN,
    connectionsCheckingInterval: LOOK_EVERY,
    // Uploads may take as long as they like; what limits them is the route's idle time.
    requestTimeout: 0,
    keepAliveTimeout: KEEP_ALIVE,
    noDelay: true,
    // Checked with the rest, and answered as the rest is.
    requireHostHeader: false,
  });
  // Node would drop lines past its own limit without a word, and with them perhaps the one that matters.
  server.maxHeadersCount = 0;
  server.timeout = longestSilence(config);
  server.on('request', handle);
  // Decided before the browser is told to go on and send its body.
  server.on('checkContinue', handle);
  server.on('checkExpectation', handle);
  if (routes.opensWebSockets) {
    server.on('upgrade', (request: IncomingMessage, socket: Socket, head: Buffer) => {
      socket.on('error', () => socket.destroy());
      services.proxy.sockets.take(socket);
      afterAnswers(socket, head, (behind) => {
        upgrade(request, socket, behind);
      });
    });
  }
  answerUnparsed(server, secure);
  return { server, services };
}

async function createEndpoints(config: Config, services: Services, logger: Logger): Promise<Express> {
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  // One spelling of each address: what checks compare, and what the framework routes, must be the same.
  app.enable('case sensitive routing');
  app.enable('strict routing');
  app.set('trust proxy', (address: string) => services.trusted.trusts(address));
  const security = securityHeaders(config.secureCookies);
  app.use((request, response, next) => {
    for (const [name, value] of security) response.setHeader(name, value);
    response.setHeader('content-security-policy', DATA_CSP);
    response.setHeader('x-request-id', requestId(request));
    next();
  });
  if (config.frontend?.kind === 'folder') {
    const files = frontend(config.frontend);
    app.use((request, response, next) => {
      if (isOwnEndpoint(request.path)) next();
      else files(request, response, next);
    });
  }
  // eslint-disable-next-line @typescript-eslint/no-unsafe-class-instance-assignment -- the options' type is a class
  const nest = await NestFactory.create(AppModule.with(config, services), new ExpressAdapter(app), {
    bodyParser: false,
    logger: false,
    abortOnError: false,
  });
  nest.useGlobalFilters(new ErrorFilter(config, services.cookie, logger));
  await nest.init();
  return app;
}

/** Milliseconds for which nothing may move on a connection, in either direction. */
function longestSilence({ listen, routes, frontend }: Config): number {
  // Hot reload may have nothing to say all day.
  if (frontend?.kind === 'devServer') return 0;
  const times = routes.flatMap(({ timeouts: { connect, firstByte, idle }, websocket }) => [
    connect + firstByte,
    idle,
    websocket?.idle ?? 0,
  ]);
  return Math.max(listen.idle, ...times.map((time) => time + GRACE));
}

/** Without the query, which may hold what is nobody's business. */
function logWhenDone(request: IncomingMessage, response: ServerResponse, path: string, logger: Logger): void {
  const began = performance.now();
  response.once('close', () => {
    logger.debug('request', {
      request: requestId(request),
      method: request.method,
      path,
      status: response.statusCode,
      complete: response.writableFinished,
      ms: Math.round(performance.now() - began),
    });
  });
}

function isOwnEndpoint(path: string): boolean {
  return path === '/auth' || path.startsWith('/auth/') || path === '/livez' || path === '/readyz';
}
