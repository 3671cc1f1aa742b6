import { Controller, Get, Param, Post, Req, Res } from '@nestjs/common';
import type { Request, Response } from 'express';
import { CloakroomError } from '../errors.js';
import { CallbackService } from './callback.service.js';
import { readForm } from './form.js';
import { refuseHead } from './navigation.js';
import { rawQuery } from './query.js';

/** `GET /auth/callback` and, where a provider answers by form_post, `POST` */
@Controller('auth/callback')
export class CallbackController {
  constructor(private readonly callback: CallbackService) {}

  @Get()
  async answer(@Req() request: Request, @Res() response: Response): Promise<void> {
    await this.finish(request, response, undefined, 'query');
  }

  @Get(':provider')
  async namedAnswer(
    @Param('provider') provider: string,
    @Req() request: Request,
    @Res() response: Response,
  ): Promise<void> {
    await this.finish(request, response, provider, 'query');
  }

  @Post()
  async form(@Req() request: Request, @Res() response: Response): Promise<void> {
    await this.finish(request, response, undefined, 'form_post');
  }

  @Post(':provider')
  async namedForm(
    @Param('provider') provider: string,
    @Req() request: Request,
    @Res() response: Response,
  ): Promise<void> {
    await this.finish(request, response, provider, 'form_post');
  }

  private async finish(
    request: Request,
    response: Response,
    name: string | undefined,
    mode: 'query' | 'form_post',
  ): Promise<void> {
    refuseHead(request);
    const provider = this.callback.provider(name);
    if (provider === undefined) throw new CloakroomError('not-found');
    if (mode === 'form_post' && provider.config.responseMode !== 'form_post') {
      throw new CloakroomError('method-not-allowed', { allow: ['GET'] });
    }
    this.callback.admit(request);
    const parameters = mode === 'form_post' ? await readForm(request) : rawQuery(request);
    const { location, cookies } = await this.callback.finish(request, response, provider, parameters, mode);
    for (const cookie of cookies) response.append('Set-Cookie', cookie);
    response.set('Cache-Control', 'no-store').status(303).location(location).end();
  }
}
