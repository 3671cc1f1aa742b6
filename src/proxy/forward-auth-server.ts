import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Config } from '../config/config.js';
import { CloakroomError } from '../errors.js';
import { closeAfter, comesTooLate } from '../http/closing.js';
import { logRefusal } from '../http/log-refusal.js';
import { sendProblem } from '../http/problem.js';
import { checkRequest } from '../http/request-check.js';
import { answerUnparsed } from '../http/unparsed.js';
import type { Logger } from '../observability/logger.js';
import type { SessionCookie } from '../session/session-cookie.js';
import type { ForwardAuth } from './forward-auth.js';

/** Bytes: what a gateway adds comes on top of what a browser may send. */
const MAX_HEADER_SIZE = 32 * 1024;
/** Milliseconds. Longer than gateways keep idle connections. */
const KEEP_ALIVE = 75_000;
const REQUEST_WITHIN = 15_000;

/** The listener for gateways: answers `/auth/verify` and nothing else. The caller lets it listen. */
export function createForwardAuthServer(parts: {
  config: Config;
  forwardAuth: ForwardAuth;
  cookie: SessionCookie;
  isDraining: () => boolean;
  logger: Logger;
}): Server {
  const { config, forwardAuth, cookie, isDraining, logger } = parts;
  const secure = config.secureCookies;

  const refuse = (request: IncomingMessage, response: ServerResponse, reason: unknown): void => {
    const error = CloakroomError.from(reason);
    logRefusal(logger, request, error, false);
    const clearing = error.clearSession ? cookie.clearingDead(request.headers.cookie) : [];
    sendProblem(request, response, error, { secure, clearing });
  };

  const handle = (request: IncomingMessage, response: ServerResponse): void => {
    if (comesTooLate(request)) return;
    try {
      // No target may name an origin: there is none that this listener would be a proxy for.
      const target = checkRequest(request, 'none:');
      if (isDraining()) response.setHeader('connection', 'close');
      forwardAuth.verify(request, response, target).catch((error: unknown) => {
        refuse(request, response, error);
      });
    } catch (error) {
      closeAfter(request, response);
      refuse(request, response, error);
    }
  };

  const server = createServer({
    maxHeaderSize: MAX_HEADER_SIZE,
    requestTimeout: REQUEST_WITHIN,
    keepAliveTimeout: KEEP_ALIVE,
    noDelay: true,
    // Checked with the rest, and answered as the rest is.
    requireHostHeader: false,
  });
  // Node would drop lines past its own limit without a word, and with them perhaps a second X-Original-URI.
  server.maxHeadersCount = 0;
  server.on('request', handle);
  server.on('checkContinue', handle);
  server.on('checkExpectation', handle);
  answerUnparsed(server, secure);
  return server;
}
