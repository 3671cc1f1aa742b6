import type { Request } from 'express';
import type { Config } from '../config/config.js';
import type { EndingsService } from '../endings/endings.service.js';
import type { ListedSession } from '../endings/filter.js';
import type { SessionDirectory } from '../endings/session-directory.js';
import { CloakroomError } from '../errors.js';
import type { TrustedProxies } from '../http/client-address.js';
import type { Providers } from '../oidc/providers.js';
import type { SessionCookie } from '../session/session-cookie.js';
import type { SessionsService } from '../session/sessions.service.js';
import type { OpenSession } from '../store/session-records.js';
import { actingUser } from './acting-user.js';

/** A session as its owner sees it. Times are ISO 8601. */
export interface OwnSession {
  handle: string;
  /** The one that asks. */
  current: boolean;
  createdAt: string;
  /** To the minute. */
  usedAt: string;
  idleExpiresAt: string;
  absoluteExpiresAt: string;
  browser?: string;
  platform?: string;
  address?: string;
  acr?: string;
}

export interface OwnSessions {
  sessions: OwnSession[];
  /** The cursor of the next page, while there is one. */
  next?: string;
}

const PAGE = 50;
const PAGE_AT_MOST = 100;
const HANDLE = /^[A-Za-z0-9_-]{43}$/;
/** Looked for in place of what is no handle. */
const NOBODY = 'A'.repeat(43);

/** Lets people see and end their own sessions, wherever those are open. */
export class UserSessionsService {
  readonly #config: Config;
  readonly #directory: SessionDirectory;
  readonly #endings: EndingsService;
  readonly #providers: Providers;
  readonly #sessions: SessionsService;
  readonly #cookie: SessionCookie;
  readonly #trusted: TrustedProxies;

  constructor(parts: {
    config: Config;
    directory: SessionDirectory;
    endings: EndingsService;
    providers: Providers;
    sessions: SessionsService;
    cookie: SessionCookie;
    trusted: TrustedProxies;
  }) {
    this.#config = parts.config;
    this.#directory = parts.directory;
    this.#endings = parts.endings;
    this.#providers = parts.providers;
    this.#sessions = parts.sessions;
    this.#cookie = parts.cookie;
    this.#trusted = parts.trusted;
  }

  /** @throws {CloakroomError} `bad-request` for a cursor or limit that is none */
  async page(session: OpenSession, cursor: string | null, limit: string | null): Promise<OwnSessions> {
    const found = await this.#directory.page(whose(session), cursor ?? undefined, pageSize(limit));
    // A session that was sealed under two keys in turn is found under both.
    const once = new Map(found.sessions.map((one) => [one.handle, one]));
    const sessions = [...once.values()].map((one) => this.#shown(one, session.handle));
    return { sessions, ...(found.next === undefined ? {} : { next: found.next }) };
  }

  /**
   * Ends one of a person's own sessions.
   *
   * @returns `Set-Cookie` values, where it was the one that asked
   * @throws {CloakroomError} `not-found` for every other handle, whether there is such a session or not
   */
  async end(request: Request, session: OpenSession, handle: string): Promise<string[]> {
    const wanted = HANDLE.test(handle) ? handle : NOBODY;
    const found = await this.#directory.show(wanted);
    const { issuer, subject } = session.contents;
    if (wanted === session.handle) {
      await this.#sessions.end(session, actingUser(request, session, this.#trusted));
      return this.#cookie.clearing();
    }
    if (found?.issuer !== issuer || found.subject !== subject) throw new CloakroomError('not-found');
    const how = {
      cause: 'elsewhere',
      reason: 'session list',
      actor: actingUser(request, session, this.#trusted),
    } as const;
    const revokes = this.#providers.get(found.provider)?.config.revokeOnLogout === true;
    await this.#endings.endOne(wanted, how, revokes ? 'queued' : 'no');
    return [];
  }

  /**
   * Ends all sessions of a person but the one that asks.
   * @returns how many have ended
   */
  async endOthers(request: Request, session: OpenSession, reason: string): Promise<number> {
    const { ended } = await this.#endings.end(
      { ...whose(session), except: session.handle },
      { cause: 'elsewhere', reason, actor: actingUser(request, session, this.#trusted) },
    );
    return ended;
  }

  #shown(one: ListedSession, current: string): OwnSession {
    const { idle = this.#config.session.idle, absoluteExpiresAt } = one;
    const { handle, createdAt, usedAt, browser, platform, address, acr } = one;
    const idleExpiresAt = Math.min(usedAt + idle, absoluteExpiresAt);
    return {
      handle,
      current: handle === current,
      createdAt: iso(createdAt),
      usedAt: iso(usedAt),
      idleExpiresAt: iso(idleExpiresAt),
      absoluteExpiresAt: iso(absoluteExpiresAt),
      ...(browser === undefined ? {} : { browser }),
      ...(platform === undefined ? {} : { platform }),
      ...(address === undefined ? {} : { address }),
      ...(acr === undefined ? {} : { acr }),
    };
  }
}

/** A subject means somebody only together with the issuer that names it (OpenID Connect Core 1.0 section 5.7). */
function whose({ contents }: OpenSession): { issuer: string; subject: string } {
  return { issuer: contents.issuer, subject: contents.subject };
}

function pageSize(limit: string | null): number {
  if (limit === null) return PAGE;
  const size = /^\d{1,4}$/.test(limit) ? Number(limit) : 0;
  if (size >= 1 && size <= PAGE_AT_MOST) return size;
  throw new CloakroomError('bad-request', {
    public: { reason: 'limit', detail: `limit must be a number from 1 to ${String(PAGE_AT_MOST)}.` },
  });
}

function iso(time: number): string {
  return new Date(time).toISOString();
}
