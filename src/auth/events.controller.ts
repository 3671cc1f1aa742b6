import { Controller, Get, Inject, Req, Res } from '@nestjs/common';
import type { Request, Response } from 'express';
import type { Config } from '../config/config.js';
import { CONFIG } from '../config/token.js';
import { checkCsrfByOrigin } from '../session/csrf.js';
import { SessionsService } from '../session/sessions.service.js';
import { EventsService } from './events.service.js';
import { refuseHead } from './navigation.js';

/** `GET /auth/events`: what becomes of the session, told to every tab at once. */
@Controller('auth')
export class EventsController {
  constructor(
    @Inject(CONFIG) private readonly config: Config,
    private readonly sessions: SessionsService,
    private readonly streams: EventsService,
  ) {}

  @Get('events')
  async events(@Req() request: Request, @Res() response: Response): Promise<void> {
    refuseHead(request);
    checkCsrfByOrigin(request, this.config);
    const session = await this.sessions.find(request.headers.cookie, { slide: false });
    // The browser may have left while the store was asked: nothing would tell us that the stream is over.
    if (response.destroyed) return;
    this.streams.open(session, response);
  }
}
