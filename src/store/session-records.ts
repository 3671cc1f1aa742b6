import { createHash } from 'node:crypto';
import type { Logger } from '../observability/logger.js';
import { Recent } from './recent.js';
import type { RevocationEnvelopes } from './revocation-envelope.js';
import type { Sealer } from './sealer.js';
import type { ServerSeal } from './server-seal.js';
import { sessionAbout, type SessionAbout } from './session-about.js';
import type { SessionContents } from './session-contents.js';
import type { SessionIndex } from './session-index.js';
import type { NextGeneration, Store, StoredSession } from './store.js';

/** A session whose record was found and opened. Never outlives the request that brought the cookie. */
export interface OpenSession {
  /** Names the session in the store and in the log; tells nothing about the cookie. */
  handle: string;
  /** The 32 bytes in the cookie, without which the record stays shut. */
  secret: Buffer;
  generation: number;
  /** Which server key the contents are sealed under. */
  kid: string;
  touchedAt: number;
  contents: SessionContents;
}

interface Opened {
  generation: number;
  kid: string;
  contents: SessionContents;
}

const REMEMBER = 2000;
const REMEMBER_AT_MOST = 50_000;

/** @param secret the random bytes of a cookie */
export function sessionHandle(secret: Buffer): string {
  return createHash('sha256').update('cloakroom/handle/v1').update(secret).digest('base64url');
}

/** Session records, sealed on the way in and opened on the way out. */
export class SessionRecords {
  readonly store: Store;
  readonly #sealer: Sealer;
  readonly #serverSeal: ServerSeal;
  readonly #index: SessionIndex;
  readonly #envelopes: RevocationEnvelopes;
  readonly #logger: Logger;
  readonly #opened = new Recent<Opened>(REMEMBER, REMEMBER_AT_MOST);

  constructor(parts: {
    store: Store;
    sealer: Sealer;
    serverSeal: ServerSeal;
    index: SessionIndex;
    envelopes: RevocationEnvelopes;
    logger: Logger;
  }) {
    this.store = parts.store;
    this.#sealer = parts.sealer;
    this.#serverSeal = parts.serverSeal;
    this.#index = parts.index;
    this.#envelopes = parts.envelopes;
    this.#logger = parts.logger;
  }

  async create(secret: Buffer, contents: SessionContents, idle: number): Promise<void> {
    const { createdAt, absoluteAt } = contents;
    const handle = sessionHandle(secret);
    // First the index: a session that it lacks could not be ended by whose it is.
    await this.#index.add(handle, sessionAbout(contents));
    await this.store.create(handle, {
      ...this.seal(secret, handle, 1, contents),
      createdAt,
      absoluteAt,
      idle,
    });
  }

  /** @returns undefined for what is not there or does not open */
  about(handle: string, about: Buffer | undefined): SessionAbout | undefined {
    return this.#serverSeal.open('about', handle, about) as SessionAbout | undefined;
  }

  /**
   * Finds a session by its cookie's secret. The store is asked on every call, so that a deletion counts at once; what was
   * opened a moment ago in the same generation is not opened again.
   */
  async find(handle: string, secret: Buffer): Promise<OpenSession | undefined> {
    const known = this.#opened.get(handle);
    if (known !== undefined) {
      const current = await this.store.peek(handle);
      if (current === undefined) return undefined;
      if (current.generation === known.generation)
        return this.#live({ handle, secret, ...current, ...known });
    }
    const stored = await this.store.read(handle);
    return stored === undefined ? undefined : this.open(handle, secret, stored);
  }

  /** @returns undefined for a record that is not ours, is damaged, or was sealed under a key we no longer accept */
  open(handle: string, secret: Buffer, stored: StoredSession): OpenSession | undefined {
    const { generation, touchedAt, kid, sealed } = stored;
    const context = { type: 'session', id: handle, generation } as const;
    const contents = this.#sealer.open(secret, context, kid, sealed);
    if (typeof contents !== 'object' || contents === null) {
      this.#logger.warn('seal_mismatch', { handle, reason: contents });
      return undefined;
    }
    const session = { handle, secret, generation, kid, touchedAt, contents: contents as SessionContents };
    this.#opened.set(handle, { generation, kid, contents: session.contents });
    return this.#live(session);
  }

  seal(secret: Buffer, handle: string, generation: number, contents: SessionContents): NextGeneration {
    const { provider, issuer, tokens } = contents;
    return {
      ...this.#sealer.seal(secret, { type: 'session', id: handle, generation }, contents),
      about: this.#serverSeal.seal('about', handle, sessionAbout(contents)),
      revocation:
        tokens.refreshToken === undefined
          ? undefined
          : this.#envelopes.seal(handle, { provider, issuer }, tokens.refreshToken),
    };
  }

  /** Stores the next generation of a session. */
  async commit(
    before: OpenSession,
    attempt: string,
    next: NextGeneration,
  ): Promise<'committed' | 'superseded' | 'gone'> {
    const { handle, generation, kid, contents } = before;
    // What is sealed under another server key must be found under that one when the old one is gone. First the index, as ever.
    if (next.kid !== kid) await this.#index.add(handle, sessionAbout(contents));
    return this.store.commit(handle, generation, attempt, next);
  }

  #live(session: OpenSession): OpenSession | undefined {
    return session.contents.absoluteAt > Date.now() ? session : undefined;
  }
}
