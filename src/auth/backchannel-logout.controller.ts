import { All, Controller, Param, Post, Req, Res } from '@nestjs/common';
import type { Request, Response } from 'express';
import { CloakroomError } from '../errors.js';
import { TrustedProxies } from '../http/client-address.js';
import { closeAfter } from '../http/closing.js';
import { requestId } from '../observability/request-id.js';
import type { OidcClient } from '../oidc/oidc-client.js';
import { BackchannelLogoutService } from './backchannel-logout.service.js';
import { readForm } from './form.js';

/**
 * `POST /auth/backchannel-logout`, by the provider itself: the signature of the token is the only proof there is, and no
 * cookie, header or origin is asked for.
 */
@Controller('auth/backchannel-logout')
export class BackchannelLogoutController {
  constructor(
    private readonly logout: BackchannelLogoutService,
    private readonly trusted: TrustedProxies,
  ) {}

  @Post()
  async receive(@Req() request: Request, @Res() response: Response): Promise<void> {
    await this.end(request, response, this.provider(undefined));
  }

  @Post(':provider')
  async receiveNamed(
    @Param('provider') name: string,
    @Req() request: Request,
    @Res() response: Response,
  ): Promise<void> {
    await this.end(request, response, this.provider(name));
  }

  @All(['', ':provider'])
  otherMethod(@Param('provider') name: string | undefined): void {
    this.provider(name);
    throw new CloakroomError('method-not-allowed', { allow: ['POST'] });
  }

  private provider(name: string | undefined): OidcClient {
    const provider = this.logout.provider(name);
    if (provider === undefined) throw new CloakroomError('not-found');
    return provider;
  }

  private async end(request: Request, response: Response, provider: OidcClient): Promise<void> {
    response.set('Cache-Control', 'no-store');
    if (request.is('application/x-www-form-urlencoded') === false) {
      closeAfter(request, response);
      refuse(response, 415, 'The body must be application/x-www-form-urlencoded.');
      return;
    }
    const tokens = (await readForm(request)).getAll('logout_token');
    const [token = ''] = tokens;
    if (tokens.length !== 1 || token === '') {
      refuse(response, 400, 'The body must have exactly one logout_token.');
      return;
    }
    const caller = { address: this.trusted.clientAddress(request), reference: requestId(request) };
    const refused = await this.logout.receive(provider, token, caller);
    if (refused === undefined) response.status(200).end();
    else refuse(response, 400, `The logout token was refused: ${refused}.`);
  }
}

/** Back-Channel Logout 1.0 section 2.8. Nothing of the request is in it. */
function refuse(response: Response, status: number, description: string): void {
  response.status(status).json({ error: 'invalid_request', error_description: description });
}
