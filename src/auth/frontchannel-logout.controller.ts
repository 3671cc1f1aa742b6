import { Controller, Get, Param, Req, Res } from '@nestjs/common';
import type { Request, Response } from 'express';
import { CloakroomError } from '../errors.js';
import { TrustedProxies } from '../http/client-address.js';
import { FrontchannelLogoutService } from './frontchannel-logout.service.js';
import { refuseHead } from './navigation.js';

const PAGE =
  '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Signed out</title></head></html>';

/** `GET /auth/frontchannel-logout`, in a frame of the provider's logout page, where browsers keep our cookies back */
@Controller('auth/frontchannel-logout')
export class FrontchannelLogoutController {
  constructor(
    private readonly logout: FrontchannelLogoutService,
    private readonly trusted: TrustedProxies,
  ) {}

  @Get()
  async end(@Req() request: Request, @Res() response: Response): Promise<void> {
    await this.answer(request, response, undefined);
  }

  @Get(':provider')
  async endNamed(
    @Param('provider') provider: string,
    @Req() request: Request,
    @Res() response: Response,
  ): Promise<void> {
    await this.answer(request, response, provider);
  }

  private async answer(request: Request, response: Response, name: string | undefined): Promise<void> {
    const provider = this.logout.provider(name);
    if (provider === undefined) throw new CloakroomError('not-found');
    refuseHead(request);
    await this.logout.end(provider, parameters(request), this.trusted.clientAddress(request));
    // The one page of ours that may be framed, and by nobody else.
    const { origin } = new URL(provider.config.issuer);
    response.removeHeader('x-frame-options');
    response
      .set('Content-Security-Policy', `default-src 'none'; frame-ancestors ${origin}`)
      .set('Cache-Control', 'no-store')
      .type('html')
      .send(PAGE);
  }
}

/** Some providers put a `sid` into the address as it is, and a plus sign of base64 would come out as a space. */
function parameters(request: Request): URLSearchParams {
  const mark = request.url.indexOf('?');
  return new URLSearchParams(mark === -1 ? '' : request.url.slice(mark + 1).replaceAll('+', '%2B'));
}
