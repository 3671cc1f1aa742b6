import { randomBytes } from 'node:crypto';
import type { Request } from 'express';
import type { Config } from '../config/config.js';
import { CloakroomError } from '../errors.js';
import type { TrustedProxies } from '../http/client-address.js';
import { cookieValues, serializeCookie } from '../http/cookies.js';
import type { Logger } from '../observability/logger.js';
import type { Providers } from '../oidc/providers.js';
import type { SessionCookie } from '../session/session-cookie.js';
import type { SessionsService } from '../session/sessions.service.js';
import type { OnceRecords } from '../store/once-records.js';
import type { OpenSession } from '../store/session-records.js';
import { actingUser } from './acting-user.js';
import { isNavigation } from './navigation.js';
import { safeReturnTo } from './return-to.js';
import type { UserSessionsService } from './user-sessions.service.js';

/** A logout that is done here and goes on at the provider. */
interface PendingLogout {
  provider: string;
  idToken: string;
  returnTo: string;
}

interface Answer {
  location: string;
  cookies: string[];
}

export const LOGOUT_PATH = '/auth/logout';

/** What a signed value is for, so that none passes for another. */
const TOKEN = 'logout-token';
const BINDING = 'logout-binding';
const RETURN = 'logout-return';
/** Milliseconds between the answer to a script and its navigation. */
const PENDING_FOR = 120_000;
/** Seconds the browser may stay at the provider's logout page. */
const AWAY_FOR = 600;
const TICKET = /^[A-Za-z0-9_-]{43}$/;

/**
 * Ends the session here first, then at the provider. The ID token that the provider wants as a hint
 * (OpenID Connect RP-Initiated Logout 1.0 section 2) is only ever in the redirect of a navigation, out of reach of script.
 */
export class LogoutService {
  readonly #config: Config;
  readonly #records: OnceRecords;
  readonly #providers: Providers;
  readonly #sessions: SessionsService;
  readonly #own: UserSessionsService;
  readonly #cookie: SessionCookie;
  readonly #trusted: TrustedProxies;
  readonly #logger: Logger;

  constructor(parts: {
    config: Config;
    onceRecords: OnceRecords;
    providers: Providers;
    sessions: SessionsService;
    userSessions: UserSessionsService;
    cookie: SessionCookie;
    trusted: TrustedProxies;
    logger: Logger;
  }) {
    this.#config = parts.config;
    this.#records = parts.onceRecords;
    this.#providers = parts.providers;
    this.#sessions = parts.sessions;
    this.#own = parts.userSessions;
    this.#cookie = parts.cookie;
    this.#trusted = parts.trusted;
    this.#logger = parts.logger;
  }

  /** The address in `/auth/me` that ends this session by a navigation. */
  urlFor(handle: string): string {
    return `${LOGOUT_PATH}?token=${this.#cookie.sign(TOKEN, handle)}`;
  }

  /** Ends the session and says where the browser should go; saying it twice is no error. */
  async begin(request: Request, wanted: string | undefined): Promise<Answer> {
    const session = await this.#sessions.findIfAny(request.headers.cookie, { slide: false });
    if (session !== undefined) return this.#begin(request, session, wanted);
    const location = safeReturnTo(wanted, this.#config.publicUrl);
    return { location, cookies: this.#cookie.clearing() };
  }

  /**
   * As {@link begin}, for all sessions of the person; the others first, so that whoever is told that it failed can ask again.
   * @throws {CloakroomError} `session-required`: nobody could be told whose sessions have ended
   */
  async beginEverywhere(
    request: Request,
    wanted: string | undefined,
  ): Promise<Answer & { endedElsewhere: number }> {
    const session = await this.#sessions.find(request.headers.cookie, { slide: false });
    const endedElsewhere = await this.#own.endOthers(request, session, 'logout everywhere');
    return { ...(await this.#begin(request, session, wanted)), endedElsewhere };
  }

  async #begin(request: Request, session: OpenSession, wanted: string | undefined): Promise<Answer> {
    const returnTo = safeReturnTo(wanted, this.#config.publicUrl);
    const cookies = this.#cookie.clearing();
    await this.#sessions.end(session, actingUser(request, session, this.#trusted));
    const pending = await this.#remember(session, returnTo);
    if (pending === undefined) return { location: returnTo, cookies };
    return { location: `${LOGOUT_PATH}?token=${pending.ticket}`, cookies: [...cookies, pending.cookie] };
  }

  /** `token` of `/auth/me`, `token` of an answer to a script, `state` on the way back, or nothing at all. */
  async navigate(request: Request, query: URLSearchParams): Promise<Answer> {
    const token = query.get('token');
    if (token === null) return this.#returned(request, query.get('state'));
    if (!isNavigation(request)) throw new CloakroomError('csrf', { public: { reason: 'not-a-navigation' } });
    if (TICKET.test(token)) return this.#continue(request, token);
    return this.#endByToken(request, token, query.get('returnTo') ?? undefined);
  }

  async #endByToken(request: Request, token: string, wanted: string | undefined): Promise<Answer> {
    const returnTo = safeReturnTo(wanted, this.#config.publicUrl);
    const session = await this.#sessions.findIfAny(request.headers.cookie, { slide: false });
    if (session === undefined) {
      // Another site's link arrives without the Strict cookie: nobody may be signed out by it, so only a dead cookie that
      // did come along is taken away.
      const came = cookieValues(request.headers.cookie, this.#cookie.names.session).length > 0;
      return { location: returnTo, cookies: came ? this.#cookie.clearing() : [] };
    }
    if (this.#cookie.unsign(TOKEN, token) !== session.handle) {
      throw new CloakroomError('csrf', { public: { reason: 'logout-token' } });
    }
    await this.#sessions.end(session, actingUser(request, session, this.#trusted));
    const answer = await this.#atProvider(pendingLogout(session, returnTo));
    return { location: answer.location, cookies: [...this.#cookie.clearing(), ...answer.cookies] };
  }

  /**
   * The session is already gone; this only remembers where to go on, and is not worth failing a logout for. The record
   * opens with both halves only: script sees the ticket, but could hand it to somebody else, who would get at the ID token.
   */
  async #remember(
    session: OpenSession,
    returnTo: string,
  ): Promise<{ ticket: string; cookie: string } | undefined> {
    const ticket = randomBytes(32).toString('base64url');
    const binding = randomBytes(32).toString('base64url');
    try {
      await this.#records.put('logout', ticket + binding, pendingLogout(session, returnTo), PENDING_FOR);
      return { ticket, cookie: this.#keep(this.#cookie.sign(BINDING, binding), PENDING_FOR / 1000) };
    } catch (error) {
      this.#logger.warn('logout_at_provider_skipped', { handle: session.handle, error });
      return undefined;
    }
  }

  async #continue(request: Request, ticket: string): Promise<Answer> {
    const binding = this.#cookie.unsign(BINDING, this.#kept(request));
    if (binding === undefined) return { location: '/', cookies: [] };
    const pending = (await this.#records.take('logout', ticket + binding)) as PendingLogout | undefined;
    return pending === undefined
      ? { location: '/', cookies: [this.#keep('', 0)] }
      : this.#atProvider(pending, [this.#keep('', 0)]);
  }

  /** @param otherwise `Set-Cookie` values where there is nothing to wait for at the provider */
  async #atProvider(pending: PendingLogout, otherwise: string[] = []): Promise<Answer> {
    const provider = this.#providers.get(pending.provider);
    const state = randomBytes(16).toString('base64url');
    try {
      const url = await provider?.endSessionUrl({
        idToken: provider.config.idTokenHint ? pending.idToken : undefined,
        postLogoutRedirectUri: this.#config.publicUrl + LOGOUT_PATH,
        state,
      });
      if (url === undefined) return { location: pending.returnTo, cookies: otherwise };
      const value = this.#cookie.sign(RETURN, `${state} ${pending.returnTo}`);
      return { location: url.href, cookies: [this.#keep(value, AWAY_FOR)] };
    } catch (error) {
      this.#logger.warn('logout_at_provider_skipped', { provider: pending.provider, error });
      return { location: pending.returnTo, cookies: otherwise };
    }
  }

  /** Back from the provider. Without the state of a logout that began here the page is neutral; nothing is ended. */
  #returned(request: Request, state: string | null): Answer {
    const kept = this.#kept(request);
    const [expected = '', returnTo = '/'] = (this.#cookie.unsign(RETURN, kept) ?? '').split(' ');
    const cookies = kept === undefined ? [] : [this.#keep('', 0)];
    return { location: state !== null && state !== '' && state === expected ? returnTo : '/', cookies };
  }

  /** The one cookie of a logout under way: first what binds its record, then what to expect on the way back. */
  #keep(value: string, maxAge: number): string {
    const { secureCookies: secure } = this.#config;
    return serializeCookie(this.#cookie.names.logout, value, { secure, sameSite: 'Lax', maxAge });
  }

  #kept(request: Request): string | undefined {
    return cookieValues(request.headers.cookie, this.#cookie.names.logout)[0];
  }
}

function pendingLogout(session: OpenSession, returnTo: string): PendingLogout {
  return { provider: session.contents.provider, idToken: session.contents.idToken, returnTo };
}
