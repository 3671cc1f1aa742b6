import { Controller, Get, Inject, Req, Res } from '@nestjs/common';
import type { Request, Response } from 'express';
import type { Config } from '../config/config.js';
import { CONFIG } from '../config/token.js';
import { CloakroomError } from '../errors.js';
import { checkCsrf } from '../session/csrf.js';
import { heldElevations } from '../session/elevation.js';
import { SessionCookie } from '../session/session-cookie.js';
import { SessionsService } from '../session/sessions.service.js';
import type { OpenSession } from '../store/session-records.js';
import { LogoutService } from './logout.service.js';
import { rawQuery } from './query.js';

/** `GET /auth/me`: who is signed in, until when, and how to sign out. */
@Controller('auth')
export class MeController {
  constructor(
    @Inject(CONFIG) private readonly config: Config,
    private readonly sessions: SessionsService,
    private readonly cookie: SessionCookie,
    private readonly logout: LogoutService,
  ) {}

  @Get('me')
  async me(@Req() request: Request, @Res() response: Response): Promise<void> {
    checkCsrf(request, this.config);
    response.set('Cache-Control', 'no-store');
    const slide = rawQuery(request).get('slide') !== 'false';
    try {
      const session = await this.sessions.find(request.headers.cookie, { slide });
      response.json({
        authenticated: true,
        claims: session.contents.claims,
        session: this.sessions.times(session, { slide }),
        ...this.elevated(session),
        logoutUrl: this.logout.urlFor(session.handle),
      });
    } catch (error) {
      const anonymous = error instanceof CloakroomError && error.code === 'session-required';
      if (!anonymous || this.config.me.anonymous !== 'ok') throw error;
      if (error.clearSession) response.append('Set-Cookie', this.cookie.clearingDead(request.headers.cookie));
      response.json({ authenticated: false });
    }
  }

  /** Scopes for some routes alone, where there are any. */
  private elevated({ contents }: OpenSession): { elevated?: { scope: string; expiresAt: string }[] } {
    const held = Object.entries(heldElevations(contents, this.sessions.tokenEpoch, Date.now()));
    if (held.length === 0) return {};
    return {
      elevated: held.map(([scope, { until }]) => ({ scope, expiresAt: new Date(until).toISOString() })),
    };
  }
}
