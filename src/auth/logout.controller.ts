import { Controller, Get, Inject, Post, Req, Res } from '@nestjs/common';
import type { Request, Response } from 'express';
import type { Config } from '../config/config.js';
import { CONFIG } from '../config/token.js';
import { checkCsrf } from '../session/csrf.js';
import { LogoutService } from './logout.service.js';
import { refuseHead } from './navigation.js';
import { rawQuery } from './query.js';

/** `POST /auth/logout` for scripts, `GET /auth/logout` for navigations and for the way back from the provider */
@Controller('auth')
export class LogoutController {
  constructor(
    @Inject(CONFIG) private readonly config: Config,
    private readonly logout: LogoutService,
  ) {}

  @Post('logout')
  async byScript(@Req() request: Request, @Res() response: Response): Promise<void> {
    checkCsrf(request, this.config);
    const query = rawQuery(request);
    const returnTo = query.get('returnTo') ?? undefined;
    response.set('Cache-Control', 'no-store');
    if (query.get('everywhere') === 'true') {
      const { location, cookies, endedElsewhere } = await this.logout.beginEverywhere(request, returnTo);
      for (const cookie of cookies) response.append('Set-Cookie', cookie);
      response.status(200).json({ logoutUrl: location, ended: endedElsewhere + 1 });
      return;
    }
    const { location, cookies } = await this.logout.begin(request, returnTo);
    for (const cookie of cookies) response.append('Set-Cookie', cookie);
    response.status(200).json({ logoutUrl: location });
  }

  @Get('logout')
  async byNavigation(@Req() request: Request, @Res() response: Response): Promise<void> {
    refuseHead(request);
    const { location, cookies } = await this.logout.navigate(request, rawQuery(request));
    for (const cookie of cookies) response.append('Set-Cookie', cookie);
    response.set('Cache-Control', 'no-store').status(303).location(location).end();
  }
}
