import type { Request } from 'express';
import type { Config } from '../config/config.js';
import type { TrustedProxies } from '../http/client-address.js';
import { cookieValues, serializeCookie } from '../http/cookies.js';
import type { RateLimits } from '../limits/rate-limits.js';
import type { Logger } from '../observability/logger.js';
import type { Providers } from '../oidc/providers.js';
import { elevatedScopes } from '../session/elevation.js';
import type { SessionCookie } from '../session/session-cookie.js';
import type { SessionsService } from '../session/sessions.service.js';
import type { ElevationService } from './elevation.service.js';
import type { LoginAttempts } from './login-attempts.js';
import { invalid, loginParameters } from './login-parameters.js';
import { loginWish } from './login-wish.js';
import { requireNavigation } from './navigation.js';
import { safeReturnTo } from './return-to.js';
import { requireSecureTransport } from './transport.js';

/** Decides where a browser that wants to sign in is sent. */
export class LoginService {
  readonly #config: Config;
  readonly #attempts: LoginAttempts;
  readonly #providers: Providers;
  readonly #sessions: SessionsService;
  readonly #cookie: SessionCookie;
  readonly #elevations: ElevationService;
  readonly #trusted: TrustedProxies;
  readonly #limits: RateLimits;
  readonly #logger: Logger;

  constructor(parts: {
    config: Config;
    attempts: LoginAttempts;
    providers: Providers;
    sessions: SessionsService;
    cookie: SessionCookie;
    elevations: ElevationService;
    trusted: TrustedProxies;
    limits: RateLimits;
    logger: Logger;
  }) {
    this.#config = parts.config;
    this.#attempts = parts.attempts;
    this.#providers = parts.providers;
    this.#sessions = parts.sessions;
    this.#cookie = parts.cookie;
    this.#elevations = parts.elevations;
    this.#trusted = parts.trusted;
    this.#limits = parts.limits;
    this.#logger = parts.logger;
  }

  /**
   * @returns the address to redirect to, and `Set-Cookie` values
   * @throws {CloakroomError} `login-refused`, `too-many-requests`, `insecure-transport`, `login-parameter-invalid`,
   *   `idp-unavailable`, `store-unavailable`
   */
  async begin(request: Request, query: URLSearchParams): Promise<{ location: string; cookies: string[] }> {
    requireNavigation(request);
    this.#limits.take('login', this.#trusted.clientAddress(request));
    requireSecureTransport(request, this.#config, this.#trusted, this.#logger);
    const parameters = loginParameters(query);
    const returnTo = safeReturnTo(parameters.returnTo, this.#config.publicUrl);
    const { cookie } = request.headers;
    const { provider: by, ...wish } = await loginWish(
      parameters,
      request.headers,
      this.#sessions,
      this.#elevations,
    );
    const provider = by === undefined ? this.#providers.first : this.#providers.get(by);
    if (provider === undefined) throw invalid('provider');

    const silent = parameters.forwarded['prompt'] === 'none';
    // A silent attempt that just failed would fail again: without this, page and provider can bounce for ever.
    if (silent && cookieValues(cookie, this.#cookie.names.silent).length > 0) {
      return { location: returnTo, cookies: [] };
    }
    if (parameters.restart && (await this.#sessions.findIfAny(cookie, { slide: true })) !== undefined) {
      return { location: returnTo, cookies: [] };
    }

    const forwarded = { ...parameters.forwarded };
    const maxAge = forwarded['max_age'];
    const replaces = this.#cookie.currentHandle(cookie);
    if (!silent && replaces !== undefined && (await this.#sessions.wasForcedOut(replaces))) {
      // Single sign-on would otherwise undo what an operator or the provider did. The callback looks again.
      forwarded['prompt'] = 'login';
    }
    const { state, attempt, cookies } = await this.#attempts.begin(cookie, {
      ...wish,
      provider: provider.name,
      returnTo,
      silent,
      fresh: forwarded['prompt']?.split(' ').includes('login') === true,
      ...(maxAge === undefined ? {} : { maxAge: Number(maxAge) }),
      ...(replaces === undefined ? {} : { replaces }),
    });
    const { nonce, codeVerifier } = attempt;
    const url = await provider.authorizationUrl({
      state,
      nonce,
      codeVerifier,
      ...(wish.elevates && { scopes: elevatedScopes(provider.config.scopes, wish.elevates.scope) }),
      parameters: forwarded,
    });
    if (parameters.restart) cookies.push(this.#restartMark());
    return { location: url.href, cookies };
  }

  /** One restart a minute: the next answer that comes too late gets a page instead of another round. */
  #restartMark(): string {
    const { names } = this.#cookie;
    return serializeCookie(names.restart, '1', {
      secure: this.#config.secureCookies,
      sameSite: 'Lax',
      maxAge: 60,
    });
  }
}
