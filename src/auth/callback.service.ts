import type { Request, Response } from 'express';
import type { Config } from '../config/config.js';
import { SYSTEM } from '../endings/audit-log.js';
import type { TrustedProxies } from '../http/client-address.js';
import { cookieValues, serializeCookie } from '../http/cookies.js';
import type { RateLimits } from '../limits/rate-limits.js';
import type { Logger } from '../observability/logger.js';
import { requestId } from '../observability/request-id.js';
import type { Claims } from '../oidc/id-token.js';
import type { OidcClient, TokenAnswer } from '../oidc/oidc-client.js';
import { exchangeFailure, isHealthy, providerFailure } from '../oidc/oidc-errors.js';
import type { Providers } from '../oidc/providers.js';
import type { SessionCookie } from '../session/session-cookie.js';
import { LOGIN_URL, type SessionsService } from '../session/sessions.service.js';
import type { Epoch } from '../store/policy-epoch.js';
import type { LoginAttempt, LoginAttempts } from './login-attempts.js';
import { CallbackRefusedError } from './callback-refused.js';
import { isNavigation } from './navigation.js';
import type { SessionStart } from './session-start.js';
import { requireSecureTransport } from './transport.js';

/** Errors of the provider that mean: not without asking the person, which a silent login must not do. */
const NEEDS_INTERACTION = new Set([
  'login_required',
  'interaction_required',
  'consent_required',
  'account_selection_required',
]);
const SINGLE_PARAMETERS = ['code', 'state', 'iss', 'error', 'error_description', 'error_uri'];
const STATE = /^[A-Za-z0-9_-]{43}$/;

interface Answer {
  location: string;
  cookies: string[];
}

/** Turns the provider's answer into a session: exchange, verify, store, confirm, and only then answer. */
export class CallbackService {
  readonly #config: Config;
  readonly #attempts: LoginAttempts;
  readonly #start: SessionStart;
  readonly #providers: Providers;
  readonly #sessions: SessionsService;
  readonly #cookie: SessionCookie;
  readonly #trusted: TrustedProxies;
  readonly #limits: RateLimits;
  readonly #logger: Logger;

  constructor(parts: {
    config: Config;
    attempts: LoginAttempts;
    start: SessionStart;
    providers: Providers;
    sessions: SessionsService;
    cookie: SessionCookie;
    trusted: TrustedProxies;
    limits: RateLimits;
    logger: Logger;
  }) {
    this.#config = parts.config;
    this.#attempts = parts.attempts;
    this.#start = parts.start;
    this.#providers = parts.providers;
    this.#sessions = parts.sessions;
    this.#cookie = parts.cookie;
    this.#trusted = parts.trusted;
    this.#limits = parts.limits;
    this.#logger = parts.logger;
  }

  /** The provider whose redirect URI this is: the first has the plain one, the others have their name in it. */
  provider(name: string | undefined): OidcClient | undefined {
    const { first } = this.#providers;
    if (name === undefined) return first;
    return name === first.name ? undefined : this.#providers.get(name);
  }

  /**
   * Whether this client may bring an answer now. Asked before anything of the answer is read.
   * @throws {CloakroomError} `too-many-requests`
   */
  admit(request: Request): void {
    this.#limits.take('callback', this.#trusted.clientAddress(request));
  }

  async finish(
    request: Request,
    response: Response,
    provider: OidcClient,
    parameters: URLSearchParams,
    mode: 'query' | 'form_post',
  ): Promise<Answer> {
    requireSecureTransport(request, this.#config, this.#trusted, this.#logger);
    const { cookie } = request.headers;
    const state = this.#readState(request, parameters);
    if (mode !== provider.config.responseMode) return this.#stale(request, state, 'response-mode');
    const attempt = await this.#attempts.take(state, cookie);
    if (attempt === undefined) return this.#stale(request, state, 'attempt-unknown');
    if (attempt.provider !== provider.name) throw this.#refused(request, 'other-provider');

    const error = parameters.get('error');
    if (attempt.silent && error !== null && NEEDS_INTERACTION.has(error)) {
      return { location: attempt.returnTo, cookies: [this.#attempts.clearing(state), this.#silentMark()] };
    }
    const exchange = await this.#exchange(request, provider, parameters, state, attempt);
    const started = await this.#start.run(request, response, { provider, attempt, ...exchange });
    if (started === 'sign-in-again') return this.#signInAgain(state, attempt);
    if (started === 'denied') throw this.#refused(request, 'ended-meanwhile');
    const { handle } = started;
    await this.#endReplaced(handle, [attempt.replaces, this.#cookie.currentHandle(cookie)]);
    return {
      location: attempt.returnTo,
      cookies: [this.#attempts.clearing(state), this.#cookie.companion(handle), ...this.#clearMarks(cookie)],
    };
  }

  /** A browser opens this address by a navigation, with each parameter once. */
  #readState(request: Request, parameters: URLSearchParams): string {
    const repeated = SINGLE_PARAMETERS.some((name) => parameters.getAll(name).length > 1);
    if (repeated) throw this.#refused(request, 'parameter-repeated');
    if (!isNavigation(request)) {
      throw this.#refused(request, 'not-a-navigation');
    }
    const state = parameters.get('state') ?? '';
    if (!STATE.test(state)) throw this.#refused(request, 'state-malformed');
    return state;
  }

  /**
   * An answer for which there is no attempt: repeated, late, of another browser or made up. Whoever is signed in goes to
   * the application; whoever began this attempt is sent round once more; the rest gets a page.
   */
  async #stale(request: Request, state: string, reason: string): Promise<Answer> {
    const { cookie } = request.headers;
    const handle = this.#cookie.currentHandle(cookie);
    if (handle !== undefined && (await this.#sessions.isLive(handle))) return { location: '/', cookies: [] };
    const mayRestart =
      this.#attempts.began(state, cookie) && cookieValues(cookie, this.#cookie.names.restart).length === 0;
    throw this.#refused(request, reason, mayRestart);
  }

  async #exchange(
    request: Request,
    provider: OidcClient,
    parameters: URLSearchParams,
    state: string,
    attempt: LoginAttempt,
  ): Promise<{ tokens: TokenAnswer; claims: Claims; epoch: Epoch }> {
    const { nonce, codeVerifier } = attempt;
    const maxAge = attempt.stepUp ? undefined : attempt.maxAge;
    try {
      // Before the provider is asked: what an operator changes meanwhile counts for these tokens too.
      const epoch = await this.#start.epoch();
      const exchange = await provider.gate.run(async () => {
        try {
          return {
            healthy: true,
            ...(await provider.exchange(parameters, { state, nonce, codeVerifier, maxAge })),
          };
        } catch (error) {
          return { healthy: isHealthy(providerFailure(error)), error };
        }
      });
      if ('error' in exchange) throw exchange.error;
      return { ...exchange, epoch };
    } catch (cause) {
      const { error, event, reason } = exchangeFailure(cause);
      const fields = { provider: provider.name, reason, reference: requestId(request), error: cause };
      if (event === 'client_misconfigured') {
        // Nobody can sign in until an operator does something.
        this.#logger.error(event, fields);
        provider.reload();
      } else {
        this.#logger.warn(event, fields);
      }
      throw error;
    }
  }

  /** Only now, with the new session stored: a failure before must leave the old one alone. */
  async #endReplaced(handle: string, replaced: readonly (string | undefined)[]): Promise<void> {
    for (const old of new Set(replaced)) {
      if (old === undefined || old === handle) continue;
      await this.#sessions.endByHandle(old, 'replaced', SYSTEM).catch((error: unknown) => {
        this.#logger.warn('replaced_session_not_ended', { handle: old, error });
      });
    }
  }

  /** The provider signed the person in without asking, although their sessions were ended by force a while ago. */
  #signInAgain(state: string, attempt: LoginAttempt): Answer {
    const clearing = this.#attempts.clearing(state);
    if (attempt.silent) return { location: attempt.returnTo, cookies: [clearing, this.#silentMark()] };
    const query = new URLSearchParams({
      ...attempt.parameters,
      prompt: 'login',
      provider: attempt.provider,
      returnTo: attempt.returnTo,
    });
    return { location: `${LOGIN_URL}?${query.toString()}`, cookies: [clearing] };
  }

  #refused(request: Request, reason: string, mayRestart = false): CallbackRefusedError {
    this.#logger.warn('callback_refused', { reason, reference: requestId(request) });
    return new CallbackRefusedError(mayRestart);
  }

  #silentMark(): string {
    const { names } = this.#cookie;
    return serializeCookie(names.silent, '1', {
      secure: this.#config.secureCookies,
      sameSite: 'Lax',
      maxAge: 60,
    });
  }

  #clearMarks(cookieHeader: string | undefined): string[] {
    const { silent, restart } = this.#cookie.names;
    const flags = { secure: this.#config.secureCookies, sameSite: 'Lax', maxAge: 0 } as const;
    return [silent, restart]
      .filter((name) => cookieValues(cookieHeader, name).length > 0)
      .map((name) => serializeCookie(name, '', flags));
  }
}
