import { Catch, HttpException, type ArgumentsHost, type ExceptionFilter } from '@nestjs/common';
import type { Request, Response } from 'express';
import { CallbackRefusedError } from './auth/callback-refused.js';
import { errorPage, PAGE_CSP, type PageLinks } from './auth/pages.js';
import type { Config } from './config/config.js';
import { CloakroomError } from './errors.js';
import { closeInStages } from './http/closing.js';
import { logRefusal } from './http/log-refusal.js';
import { problemHeaders, sendProblem } from './http/problem.js';
import type { Logger } from './observability/logger.js';
import { requestId } from './observability/request-id.js';
import type { SessionCookie } from './session/session-cookie.js';
import { LOGIN_URL } from './session/sessions.service.js';

/** Addresses a person navigates to; their errors are pages. */
const PAGES = /^\/auth\/(?:login|callback(?:\/[^/]+)?|logout)$/;

/** Anything thrown behind the framework becomes one answer and at most one log line. */
@Catch()
export class ErrorFilter implements ExceptionFilter {
  constructor(
    private readonly config: Config,
    private readonly cookie: SessionCookie,
    private readonly logger: Logger,
  ) {}

  catch(thrown: unknown, host: ArgumentsHost): void {
    const http = host.switchToHttp();
    const request = http.getRequest<Request>();
    const response = http.getResponse<Response>();
    const error = toCloakroomError(thrown);
    const clearing = error.clearSession ? this.cookie.clearingDead(request.headers.cookie) : [];
    const isPage = PAGES.test(request.path) && (request.method === 'GET' || request.path !== '/auth/logout');
    logRefusal(this.logger, request, error, isPage);
    if (isPage && !response.headersSent) this.sendPage(request, response, error);
    else sendProblem(request, response, error, { secure: this.config.secureCookies, clearing });
  }

  private sendPage(request: Request, response: Response, error: CloakroomError): void {
    for (const [name, value] of problemHeaders(error)) response.setHeader(name, value);
    response.setHeader('Content-Security-Policy', PAGE_CSP);
    // The rest of a body that was not read must not be waited for.
    if (!request.complete) closeInStages(request, response);
    response
      .status(error.status)
      .type('html')
      .send(errorPage(error, requestId(request), links(error)));
  }
}

function links(error: CloakroomError): PageLinks {
  if (error.code === 'csrf' || error.code === 'login-refused') return {};
  const again = error instanceof CallbackRefusedError && error.mayRestart;
  return { login: LOGIN_URL, ...(again ? { onward: `${LOGIN_URL}?restart=1` } : {}) };
}

function toCloakroomError(thrown: unknown): CloakroomError {
  if (thrown instanceof HttpException) {
    const status = thrown.getStatus();
    if (status === 404) return new CloakroomError('not-found');
    if (status < 500) return new CloakroomError('bad-request', { cause: thrown });
  }
  return CloakroomError.from(thrown);
}
