import { Catch, HttpException, type ArgumentsHost, type ExceptionFilter } from '@nestjs/common';
import type { Request, Response } from 'express';
import { CloakroomError } from '../errors.js';
import { logRefusal } from '../http/log-refusal.js';
import { sendProblem } from '../http/problem.js';
import type { Logger } from '../observability/logger.js';

/** Anything thrown behind the framework becomes one problem document and at most one log line. */
@Catch()
export class AdminErrorFilter implements ExceptionFilter {
  constructor(
    private readonly secure: boolean,
    private readonly logger: Logger,
  ) {}

  catch(thrown: unknown, host: ArgumentsHost): void {
    const http = host.switchToHttp();
    const [request, response] = [http.getRequest<Request>(), http.getResponse<Response>()];
    const error = toCloakroomError(thrown);
    logRefusal(this.logger, request, error, false);
    sendProblem(request, response, error, { secure: this.secure });
  }
}

function toCloakroomError(thrown: unknown): CloakroomError {
  if (thrown instanceof HttpException) {
    const status = thrown.getStatus();
    if (status === 404) return new CloakroomError('not-found');
    if (status < 500) return new CloakroomError('bad-request', { cause: thrown });
  }
  return CloakroomError.from(thrown);
}
