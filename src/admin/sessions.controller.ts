import { createHash } from 'node:crypto';
import { Controller, Delete, Get, Param, Query, Req, Res } from '@nestjs/common';
import { ApiOperation, ApiParam, ApiResponse } from '@nestjs/swagger';
import type { Request, Response } from 'express';
import { AuditLog } from '../endings/audit-log.js';
import { EndingsService } from '../endings/endings.service.js';
import { SessionDirectory } from '../endings/session-directory.js';
import { CloakroomError } from '../errors.js';
import { actorOf } from './caller.js';
import { documents, sessionDocument } from './documents.js';
import { body, queryParameters } from './openapi.js';
import { checked, endOneQuery, listQuery, toFilter } from './requests.js';

const HANDLE = { name: 'handle', description: 'As lists show it.' };

/** `GET /v1/sessions`, and one of them by its handle: shown, or ended */
@Controller('v1/sessions')
export class SessionsController {
  constructor(
    private readonly directory: SessionDirectory,
    private readonly endings: EndingsService,
    private readonly audit: AuditLog,
  ) {}

  @Get()
  @ApiOperation({ summary: 'List sessions', description: 'Every criterion that is given must hold.' })
  @queryParameters(listQuery)
  @ApiResponse({ status: 200, description: 'One page.', ...body(documents.page) })
  async list(@Req() request: Request, @Res() response: Response, @Query() query: unknown): Promise<void> {
    const { cursor, limit, ...criteria } = checked(listQuery, { ...(query as object) });
    const filter = toFilter(criteria);
    const { sessions, next } = await this.directory.page(filter, cursor, limit);
    // By which criteria, not by which values: those may be personal data.
    this.audit.record('sessions_listed', actorOf(request), {
      by: Object.keys(filter),
      listed: sessions.length,
    });
    response.json({ sessions: sessions.map(sessionDocument), next });
  }

  @Get(':handle')
  @ApiOperation({ summary: 'Show one session' })
  @ApiParam(HANDLE)
  @ApiResponse({ status: 200, description: 'The session.', ...body(documents.session) })
  @ApiResponse({ status: 404, description: 'There is none.' })
  async show(
    @Req() request: Request,
    @Res() response: Response,
    @Param('handle') text: string,
  ): Promise<void> {
    const handle = handleOf(text);
    const session = await this.directory.show(handle);
    const found = session !== undefined;
    this.audit.record('session_shown', actorOf(request), { handle, found });
    if (!found) throw new CloakroomError('not-found');
    response.json(sessionDocument(session));
  }

  @Delete(':handle')
  @ApiOperation({ summary: 'End one session', description: 'Its refresh token is revoked at the provider.' })
  @ApiParam(HANDLE)
  @queryParameters(endOneQuery)
  @ApiResponse({ status: 204, description: 'It has ended.' })
  @ApiResponse({ status: 404, description: 'There is none.' })
  async end(
    @Req() request: Request,
    @Res() response: Response,
    @Param('handle') text: string,
    @Query() query: unknown,
  ): Promise<void> {
    const { reason = '' } = checked(endOneQuery, { ...(query as object) });
    const handle = handleOf(text);
    const actor = actorOf(request);
    const ended = await this.endings.endOne(handle, { cause: 'operator', reason, actor }, 'queued');
    if (ended === undefined) {
      this.audit.record('session_not_found', actor, { handle, reason });
      throw new CloakroomError('not-found');
    }
    response.status(204).end();
  }
}

/** What cannot be a handle is looked up as well, as one that nobody has: how long the answer takes tells nothing. */
function handleOf(text: string): string {
  if (/^[A-Za-z0-9_-]{43}$/.test(text)) return text;
  return createHash('sha256').update('no handle').update(text).digest('base64url');
}
