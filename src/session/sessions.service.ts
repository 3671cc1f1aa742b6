import type { Request, Response } from 'express';
import type { Config } from '../config/config.js';
import { SYSTEM, type Actor } from '../endings/audit-log.js';
import type { EndingsService } from '../endings/endings.service.js';
import type { RevocationQueue } from '../endings/revocation-queue.js';
import { CloakroomError } from '../errors.js';
import type { Logger } from '../observability/logger.js';
import type { Providers } from '../oidc/providers.js';
import type { PolicyEpoch } from '../store/policy-epoch.js';
import type { OpenSession, SessionRecords } from '../store/session-records.js';
import type { SessionContents } from '../store/session-contents.js';
import type { EndCause } from '../store/store.js';
import type { TokenWish } from '../tokens/token-wish.js';
import type { AccessToken, TokensService } from '../tokens/tokens.service.js';
import { IdleExpiry } from './idle-expiry.js';
import type { SessionCookie, Ticket } from './session-cookie.js';
import type { SessionCreation } from './session-creation.js';

/** Milliseconds an ending waits for the provider to revoke. */
const REVOKE_WITHIN = 2000;

export const LOGIN_URL = '/auth/login';

/** The only door to a signed-in user. */
export class SessionsService {
  readonly #config: Config;
  readonly #records: SessionRecords;
  readonly #cookie: SessionCookie;
  readonly #creation: SessionCreation;
  readonly #tokens: TokensService;
  readonly #providers: Providers;
  readonly #epoch: PolicyEpoch;
  readonly #endings: EndingsService;
  readonly #revocations: RevocationQueue;
  readonly #logger: Logger;
  readonly #idle: IdleExpiry;

  constructor(parts: {
    config: Config;
    records: SessionRecords;
    cookie: SessionCookie;
    creation: SessionCreation;
    tokens: TokensService;
    providers: Providers;
    epoch: PolicyEpoch;
    endings: EndingsService;
    revocations: RevocationQueue;
    logger: Logger;
  }) {
    this.#config = parts.config;
    this.#records = parts.records;
    this.#cookie = parts.cookie;
    this.#creation = parts.creation;
    this.#tokens = parts.tokens;
    this.#providers = parts.providers;
    this.#epoch = parts.epoch;
    this.#endings = parts.endings;
    this.#revocations = parts.revocations;
    this.#logger = parts.logger;
    this.#idle = new IdleExpiry(parts.config, parts.records);
  }

  /**
   * What a request's cookie stands for, before the store is asked.
   *
   * @throws {CloakroomError} `session-required` (with a cookie that we never signed taken away), `bad-request` for two valid
   *   cookies
   */
  ticket(cookieHeader: string | undefined): Ticket {
    const ticket = this.ticketIfAny(cookieHeader);
    if (ticket === undefined) throw signInRequired(false);
    return ticket;
  }

  /** As {@link ticket}, but undefined where there is no session cookie at all. */
  ticketIfAny(cookieHeader: string | undefined): Ticket | undefined {
    const reading = this.#cookie.read(cookieHeader);
    if (reading.kind === 'ticket') return reading.ticket;
    if (reading.kind === 'none') return undefined;
    if (reading.kind === 'invalid') throw signInRequired(true);
    this.#logger.warn('session_cookie_ambiguous');
    throw new CloakroomError('bad-request', { public: { reason: 'two-sessions' } });
  }

  /**
   * The session that a request's cookie stands for.
   *
   * @param options `slide: false` looks without counting as use
   * @throws {CloakroomError} as {@link ticket} and {@link open}
   */
  async find(cookieHeader: string | undefined, options: { slide: boolean }): Promise<OpenSession> {
    return this.open(this.ticket(cookieHeader), options);
  }

  /**
   * The session of a ticket.
   *
   * @param options `slide: false` looks without counting as use
   * @throws {CloakroomError} `session-required` (with the dead cookie taken away), `store-unavailable`
   */
  async open({ handle, secret }: Ticket, options: { slide: boolean }): Promise<OpenSession> {
    const session = await this.#records.find(handle, secret);
    const epoch = this.#epoch.known ?? (await this.#epoch.current());
    if (session !== undefined && session.contents.epoch < epoch.end) {
      this.#endOutdated(handle);
      throw signInRequired(true, 'epoch');
    }
    // A session belongs to the issuer that it began with: what is named like its provider today may be somebody else.
    const issuer = session && this.#providers.get(session.contents.provider)?.config.issuer;
    if (session === undefined) throw signInRequired(true, await this.#causeOfEnd(handle));
    if (issuer !== session.contents.issuer) throw signInRequired(true);
    if (options.slide) this.#idle.slide(session);
    return session;
  }

  /** As {@link find}, but undefined where somebody is simply not signed in. */
  async findIfAny(
    cookieHeader: string | undefined,
    options: { slide: boolean },
  ): Promise<OpenSession | undefined> {
    try {
      return await this.find(cookieHeader, options);
    } catch (error) {
      if (error instanceof CloakroomError && error.code === 'session-required') return undefined;
      throw error;
    }
  }

  /** When a session began and when it will end, as ISO 8601 times. */
  times(session: OpenSession, options: { slide: boolean }): SessionTimes {
    const { createdAt, absoluteAt } = session.contents;
    return {
      createdAt: new Date(createdAt).toISOString(),
      idleExpiresAt: new Date(this.#idle.expiresAt(session, options.slide)).toISOString(),
      absoluteExpiresAt: new Date(absoluteAt).toISOString(),
    };
  }

  /** Tokens that were asked for before this policy epoch are not used any more. */
  get tokenEpoch(): number {
    return this.#epoch.known?.refresh ?? 0;
  }

  /** True while the session of this handle lives; needs no cookie. */
  async isLive(handle: string): Promise<boolean> {
    return (await this.#records.store.peek(handle)) !== undefined;
  }

  /** Stores a new session and makes the answer carry its cookie. Returns its handle. */
  async start(request: Request, response: Response, contents: SessionContents): Promise<string> {
    const handle = await this.#creation.create(request, response, contents);
    this.#logger.info('session_started', { handle, provider: contents.provider });
    return handle;
  }

  /** Takes a session back that was started in answer to this request: its record and its cookie. */
  async takeBack(request: Request, handle: string, cause: EndCause): Promise<void> {
    this.#creation.withhold(request);
    await this.endByHandle(handle, cause, SYSTEM);
  }

  /**
   * A good access token of the session.
   *
   * @param wish undefined: its plain one
   * @returns the token itself where no refresh has to be waited for
   * @throws {CloakroomError} `session-ended`, `session-required`, `token-refused`, `idp-unavailable`
   */
  accessToken(session: OpenSession, wish?: TokenWish): string | Promise<string> {
    const result = this.#tokens.accessToken(session, wish);
    if (!(result instanceof Promise)) {
      if (result.kind === 'token') return result.accessToken;
      return this.#withoutToken(session, result);
    }
    return result.then((settled) =>
      settled.kind === 'token' ? settled.accessToken : this.#withoutToken(session, settled),
    );
  }

  /**
   * Another token in the place of one that is said to be no good; undefined where there is no other.
   * @throws {CloakroomError} as {@link accessToken}, and `store-unavailable`
   */
  async renewedToken(
    session: OpenSession,
    wish: TokenWish | undefined,
    refused: string,
  ): Promise<string | undefined> {
    const result = await this.#tokens.renewed(session, wish, refused);
    if (result === undefined || result.kind === 'token') return result?.accessToken;
    return this.#withoutToken(session, result);
  }

  async #withoutToken(session: OpenSession, result: Exclude<AccessToken, { kind: 'token' }>): Promise<never> {
    if (result.kind === 'refused') throw new CloakroomError('token-refused');
    if (result.kind === 'unavailable') {
      throw new CloakroomError('idp-unavailable', { retryAfter: result.retryAfter });
    }
    if (result.kind === 'gone') throw signInRequired(true);
    if (result.reason === 'token-expired') await this.endByHandle(session.handle, 'token-expired', SYSTEM);
    const silent = result.reason === 'refresh-lost' ? { silent: true } : {};
    throw new CloakroomError('session-ended', {
      public: { reason: result.reason, loginUrl: LOGIN_URL, ...silent },
      clearSession: true,
    });
  }

  /**
   * Ends the session of a person who asked for it; its refresh token is revoked as far as that is possible in a bounded time,
   * and later where it is not.
   */
  async end(session: OpenSession, actor: Actor): Promise<void> {
    const { handle, secret } = session;
    const how = { cause: 'user', reason: 'logout', actor } as const;
    const revokes = this.#providers.get(session.contents.provider)?.config.revokeOnLogout === true;
    const ended = await this.#endings.endOne(handle, how, revokes ? 'at-hand' : 'no');
    // Somebody else ended it a moment ago, and its revocation is theirs.
    if (!revokes || (ended === undefined && this.#revocations.enabled)) return;
    // As it was in that very moment: a refresh may have won against what the caller read.
    const last = ended?.session && this.#records.open(handle, secret, ended.session);
    await this.#revoke(last ?? session);
  }

  async endByHandle(handle: string, cause: EndCause, actor: Actor): Promise<void> {
    await this.#endings.endOne(handle, { cause, reason: cause, actor }, 'no');
  }

  /** The answer does not wait for what it does not depend on. */
  #endOutdated(handle: string): void {
    const how = { cause: 'epoch', reason: 'epoch', actor: SYSTEM } as const;
    this.#endings.endOne(handle, how, 'queued').catch(() => undefined);
  }

  /** Whether a session ended a while ago because an operator or its provider said so. */
  async wasForcedOut(handle: string): Promise<boolean> {
    if (this.#config.session.freshLoginFor === 0) return false;
    const cause = await this.#causeOfEnd(handle);
    return cause === 'operator' || cause === 'provider';
  }

  /** Why a session that is not there any more ended, where that is still known. */
  async #causeOfEnd(handle: string): Promise<string | undefined> {
    const cause = await this.#records.store.get('ended', handle);
    return cause?.toString();
  }

  async #revoke({ handle, contents }: OpenSession): Promise<void> {
    const { provider, issuer, tokens } = contents;
    const { refreshToken } = tokens;
    if (refreshToken === undefined) return;
    const revocation = this.#revocations.revokeNow(handle, { provider, issuer, refreshToken });
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, REVOKE_WITHIN);
    });
    await Promise.race([revocation, late]);
    clearTimeout(timer);
  }

  /** For a connection that stays open: what it returns is called whenever the session is used there. */
  use(session: OpenSession): () => void {
    return this.#idle.use(session);
  }
}

export interface SessionTimes {
  createdAt: string;
  idleExpiresAt: string;
  absoluteExpiresAt: string;
}

function signInRequired(clearSession: boolean, reason?: string): CloakroomError {
  return new CloakroomError('session-required', {
    public: { loginUrl: LOGIN_URL, ...(reason === undefined ? {} : { reason }) },
    clearSession,
  });
}
