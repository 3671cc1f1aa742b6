import { createHash } from 'node:crypto';
import type { Logger } from '../observability/logger.js';
import { Recent } from './recent.js';
import type { Sealer } from './sealer.js';
import type { SessionContents } from './session-contents.js';
import type { Store, StoredSession } from './store.js';

/** A session whose record was found and opened. Never outlives the request that brought the cookie. */
export interface OpenSession {
  /** Names the session in the store and in the log; tells nothing about the cookie. */
  handle: string;
  /** The 32 bytes in the cookie, without which the record stays shut. */
  secret: Buffer;
  generation: number;
  touchedAt: number;
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
  readonly #logger: Logger;
  readonly #opened = new Recent<{ generation: number; contents: SessionContents }>(
    REMEMBER,
    REMEMBER_AT_MOST,
  );

  constructor(store: Store, sealer: Sealer, logger: Logger) {
    this.store = store;
    this.#sealer = sealer;
    this.#logger = logger;
  }

  async create(secret: Buffer, contents: SessionContents, idle: number): Promise<void> {
    const { createdAt, absoluteAt } = contents;
    const handle = sessionHandle(secret);
    await this.store.create(handle, {
      ...this.seal(secret, handle, 1, contents),
      createdAt,
      absoluteAt,
      idle,
    });
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

  /** Ends a session. Returns it with the tokens it had at last: a refresh may have won against what the caller read. */
  async take(handle: string, secret: Buffer): Promise<OpenSession | undefined> {
    const stored = await this.store.take(handle);
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
    const session = { handle, secret, generation, touchedAt, contents: contents as SessionContents };
    this.#opened.set(handle, { generation, contents: session.contents });
    return this.#live(session);
  }

  seal(
    secret: Buffer,
    handle: string,
    generation: number,
    contents: SessionContents,
  ): { kid: string; sealed: Buffer } {
    return this.#sealer.seal(secret, { type: 'session', id: handle, generation }, contents);
  }

  #live(session: OpenSession): OpenSession | undefined {
    return session.contents.absoluteAt > Date.now() ? session : undefined;
  }
}
