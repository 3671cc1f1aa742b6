import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { NestFactory } from '@nestjs/core';
import { ExpressAdapter } from '@nestjs/platform-express';
import express, { type Express, type RequestHandler } from 'express';
import type { AdminConfig } from '../config/config.js';
import { CloakroomError } from '../errors.js';
import { closeAfter, comesTooLate } from '../http/closing.js';
import { logRefusal } from '../http/log-refusal.js';
import { sendProblem } from '../http/problem.js';
import { awaitsContinue, checkRequest } from '../http/request-check.js';
import { DATA_CSP, securityHeaders } from '../http/security-headers.js';
import { answerUnparsed } from '../http/unparsed.js';
import type { Logger } from '../observability/logger.js';
import { requestId } from '../observability/request-id.js';
import { AdminErrorFilter } from './admin-error.filter.js';
import { AdminModule, type AdminParts } from './admin.module.js';
import { Gate } from './gate.js';
import { OpenApi } from './openapi.js';

const MAX_BODY = 16 * 1024;
const MAX_HEADER_SIZE = 16 * 1024;
/** Milliseconds for a whole request, its body included: all of them are small. */
const REQUEST_WITHIN = 15_000;

/**
 * The listener for operators: a server of its own, which shares nothing with the public one but the sessions. Every request
 * passes the gate before anything looks at what it wants. The caller lets it listen.
 */
export async function createAdmin(config: AdminConfig, parts: AdminParts, logger: Logger): Promise<Server> {
  const secure = config.tls !== undefined;
  const tls = readTls(config);
  const gate = new Gate(config, tls?.cert, parts.audit);
  const endpoints = await createEndpoints(parts, secure, logger);

  const handle = (request: IncomingMessage, response: ServerResponse): void => {
    if (comesTooLate(request)) return;
    try {
      // No target may name an origin: there is none that this listener would be a proxy for.
      const target = checkRequest(request, 'none:');
      if (request.headers.upgrade !== undefined) closeAfter(request, response);
      gate.pass(request, target.path);
      request.url = target.path + target.query;
      if (awaitsContinue(request)) response.writeContinue();
      endpoints(request, response);
    } catch (thrown) {
      const error = CloakroomError.from(thrown);
      logRefusal(logger, request, error, false);
      sendProblem(request, response, error, { secure, close: true });
    }
  };

  const options = {
    maxHeaderSize: MAX_HEADER_SIZE,
    requestTimeout: REQUEST_WITHIN,
    // Checked with the rest, and answered as the rest is.
    requireHostHeader: false,
  };
  const server = tls === undefined ? createServer(options) : createTlsServer({ ...options, ...tls });
  server.on('request', handle);
  server.on('checkContinue', handle);
  server.on('checkExpectation', handle);
  answerUnparsed(server, secure);
  return server;
}

function readTls({ tls, tokens }: AdminConfig) {
  if (tls === undefined) return undefined;
  const { certificate, key, clientAuthority } = tls;
  return {
    cert: readFileSync(certificate),
    key: readFileSync(key),
    minVersion: 'TLSv1.2' as const,
    ...(clientAuthority === undefined
      ? {}
      : {
          ca: readFileSync(clientAuthority),
          requestCert: true,
          // Where a token is as good, its holder needs no certificate; one that does not verify is then worth nothing.
          rejectUnauthorized: tokens.length === 0,
        }),
  };
}

async function createEndpoints(parts: AdminParts, secure: boolean, logger: Logger): Promise<Express> {
  const app = express();
  app.disable('x-powered-by');
  app.disable('etag');
  app.enable('case sensitive routing');
  app.enable('strict routing');
  const security = securityHeaders(secure);
  app.use((request, response, next) => {
    for (const [name, value] of security) response.setHeader(name, value);
    response.setHeader('content-security-policy', DATA_CSP);
    response.setHeader('cache-control', 'no-store');
    response.setHeader('x-request-id', requestId(request));
    next();
  });
  app.use(jsonBody(secure, logger));
  const openApi = new OpenApi();
  // eslint-disable-next-line @typescript-eslint/no-unsafe-class-instance-assignment -- the options' type is a class
  const nest = await NestFactory.create(AdminModule.with(parts, openApi, logger), new ExpressAdapter(app), {
    bodyParser: false,
    logger: false,
    abortOnError: false,
  });
  nest.useGlobalFilters(new AdminErrorFilter(secure, logger));
  await nest.init();
  openApi.describe(nest);
  return app;
}

/** Reads JSON and nothing else; what a form could send from a page is not even looked at. */
function jsonBody(secure: boolean, logger: Logger): RequestHandler {
  const parse: RequestHandler = express.json({ limit: MAX_BODY, type: 'application/json' });
  return (request, response, next) => {
    parse(request, response, (failure?: unknown) => {
      if (failure === undefined) {
        next();
        return;
      }
      const tooLarge = (failure as { type?: unknown }).type === 'entity.too.large';
      const error = tooLarge
        ? new CloakroomError('payload-too-large')
        : new CloakroomError('bad-request', { public: { detail: 'The body is not JSON.' } });
      logRefusal(logger, request, error, false);
      sendProblem(request, response, error, { secure, close: true });
    });
  };
}
