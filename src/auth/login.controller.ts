import { Controller, Get, Req, Res } from '@nestjs/common';
import type { Request, Response } from 'express';
import { LoginService } from './login.service.js';
import { rawQuery } from './query.js';

/** `GET /auth/login` */
@Controller('auth')
export class LoginController {
  constructor(private readonly login: LoginService) {}

  @Get('login')
  async begin(@Req() request: Request, @Res() response: Response): Promise<void> {
    const { location, cookies } = await this.login.begin(request, rawQuery(request));
    for (const cookie of cookies) response.append('Set-Cookie', cookie);
    response.set('Cache-Control', 'no-store').status(303).location(location).end();
  }
}
