import { randomBytes } from 'node:crypto';
import { RedisStore } from 'connect-redis';
import type { Request, Response } from 'express';
import session from 'express-session';
import type { Config } from '../config/config.js';
import { sessionHandle, type SessionRecords } from '../store/session-records.js';
import type { SessionContents } from '../store/session-contents.js';
import { cookieNames } from './cookie-names.js';
import { signingSecrets } from './session-cookie.js';

declare module 'express-session' {
  interface SessionData {
    contents: SessionContents;
  }
}

/**
 * The one moment express-session and connect-redis are at work: they choose the id, write the record and set the cookie
 * at login. Everywhere else they would hurt (decision 0001): they save at the end of a response, hold back its last byte
 * until the store replies, and overwrite what was deleted meanwhile.
 */
export class SessionCreation {
  readonly #middleware: ReturnType<typeof session>;

  constructor(config: Config, records: SessionRecords) {
    const { idle, sameSite } = config.session;
    this.#middleware = session({
      name: cookieNames(config.secureCookies).session,
      secret: signingSecrets(config),
      genid: () => randomBytes(32).toString('base64url'),
      store: new RedisStore({
        client: creatingClient(records, idle),
        prefix: '',
        ttl: Math.ceil(idle / 1000),
        disableTouch: true,
        serializer: {
          stringify: (data) => JSON.stringify((data as unknown as { contents: SessionContents }).contents),
          parse: () => {
            throw new TypeError('a session is never loaded through express-session');
          },
        },
      }),
      cookie: { path: '/', httpOnly: true, secure: config.secureCookies, sameSite },
      resave: false,
      saveUninitialized: false,
      rolling: false,
    });
  }

  /**
   * Creates a session and makes the answer carry its cookie. The record is stored and confirmed before this returns.
   *
   * @returns the handle of the new session
   * @throws {CloakroomError} `store-unavailable`; the answer then carries no cookie
   */
  async create(request: Request, response: Response, contents: SessionContents): Promise<string> {
    // An id that came with the request must not be taken over (session fixation): express-session sees no cookie.
    const { cookie } = request.headers;
    delete request.headers.cookie;
    try {
      await new Promise<void>((resolve, reject) => {
        this.#middleware(request, response, settle(resolve, reject));
      });
    } finally {
      if (cookie !== undefined) request.headers.cookie = cookie;
    }
    request.session.contents = contents;
    try {
      await new Promise<void>((resolve, reject) => {
        request.session.save(settle(resolve, reject));
      });
    } catch (error) {
      // Otherwise the error's answer would set a cookie for a session that does not exist.
      this.withhold(request);
      throw error;
    }
    return sessionHandle(Buffer.from(request.sessionID, 'base64url'));
  }

  /** Keeps the cookie of a session that was created, or was to be, out of the answer. */
  withhold(request: Request): void {
    Reflect.deleteProperty(request, 'session');
  }
}

function settle(resolve: () => void, reject: (error: Error) => void): (error?: unknown) => void {
  return (error) => {
    if (error == null) resolve();
    else reject(error instanceof Error ? error : new Error('express-session failed', { cause: error }));
  };
}

/** The client that connect-redis speaks to: what it calls `set` creates a sealed record; nothing else is ever called. */
function creatingClient(
  records: SessionRecords,
  idle: number,
): { set: (...args: string[]) => Promise<string> } {
  return {
    set: async (id = '', contents = '') => {
      const written = JSON.parse(contents) as SessionContents;
      await records.create(Buffer.from(id, 'base64url'), written, written.idle ?? idle);
      return 'OK';
    },
  };
}
