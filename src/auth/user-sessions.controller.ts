import { Controller, Delete, Get, Inject, Param, Post, Req, Res } from '@nestjs/common';
import type { Request, Response } from 'express';
import type { Config } from '../config/config.js';
import { CONFIG } from '../config/token.js';
import { checkCsrf } from '../session/csrf.js';
import { SessionsService } from '../session/sessions.service.js';
import type { OpenSession } from '../store/session-records.js';
import { refuseHead } from './navigation.js';
import { rawQuery } from './query.js';
import { UserSessionsService } from './user-sessions.service.js';

/** `/auth/sessions`: the sessions of whoever is signed in, and of nobody else. */
@Controller('auth/sessions')
export class UserSessionsController {
  constructor(
    @Inject(CONFIG) private readonly config: Config,
    private readonly sessions: SessionsService,
    private readonly own: UserSessionsService,
  ) {}

  @Get()
  async list(@Req() request: Request, @Res() response: Response): Promise<void> {
    refuseHead(request);
    const session = await this.session(request);
    const query = rawQuery(request);
    const page = await this.own.page(session, query.get('cursor'), query.get('limit'));
    response.set('Cache-Control', 'no-store').json(page);
  }

  @Delete(':handle')
  async end(
    @Param('handle') handle: string,
    @Req() request: Request,
    @Res() response: Response,
  ): Promise<void> {
    const session = await this.session(request);
    const cookies = await this.own.end(request, session, handle);
    for (const cookie of cookies) response.append('Set-Cookie', cookie);
    response.set('Cache-Control', 'no-store').status(204).end();
  }

  @Post('end-others')
  async endOthers(@Req() request: Request, @Res() response: Response): Promise<void> {
    const session = await this.session(request);
    const ended = await this.own.endOthers(request, session, 'all others');
    response.set('Cache-Control', 'no-store').status(200).json({ ended });
  }

  private async session(request: Request): Promise<OpenSession> {
    checkCsrf(request, this.config);
    const slide = rawQuery(request).get('slide') !== 'false';
    return this.sessions.find(request.headers.cookie, { slide });
  }
}
