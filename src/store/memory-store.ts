import { keys } from './keys.js';
import { ORPHAN_GRACE } from './session-scripts.js';
import type { Claim, NewSession, OnceKind, Release, Store, StoredSession } from './store.js';

interface MemorySession extends StoredSession {
  absoluteAt: number;
  expiresAt: number;
  claim: { attempt: string; since: number; until: number } | undefined;
  committedBy: string | undefined;
  retryAt: number;
  doubtfulSince: number | undefined;
}

interface OnceRecord {
  value: Buffer;
  expiresAt: number;
}

const SWEEP_INTERVAL = 10_000;

/** Sessions of a single process, for a demo or a development machine: the same rules as in Redis, gone at exit. */
export class MemoryStore implements Store {
  readonly kind = 'memory';
  readonly prefix = 'memory';
  readonly #sessions = new Map<string, MemorySession>();
  readonly #once = new Map<string, OnceRecord>();
  readonly #sweeper: NodeJS.Timeout;

  constructor() {
    this.#sweeper = setInterval(() => {
      this.#sweep();
    }, SWEEP_INTERVAL).unref();
  }

  async ping(): Promise<void> {
    await Promise.resolve();
  }

  async create(handle: string, session: NewSession): Promise<void> {
    const now = Date.now();
    this.#sessions.set(handle, {
      generation: 1,
      kid: session.kid,
      sealed: session.sealed,
      touchedAt: now,
      absoluteAt: session.absoluteAt,
      expiresAt: Math.min(now + session.idle, session.absoluteAt),
      claim: undefined,
      committedBy: undefined,
      retryAt: 0,
      doubtfulSince: undefined,
    });
    await Promise.resolve();
  }

  async peek(handle: string): Promise<{ generation: number; touchedAt: number } | undefined> {
    return Promise.resolve(this.#live(handle));
  }

  async read(handle: string): Promise<StoredSession | undefined> {
    const session = this.#live(handle);
    return Promise.resolve(session && { ...session });
  }

  async touch(handle: string, idle: number): Promise<void> {
    const session = this.#live(handle);
    if (session !== undefined) {
      session.touchedAt = Date.now();
      session.expiresAt = Math.min(session.touchedAt + idle, session.absoluteAt);
    }
    await Promise.resolve();
  }

  async claim(handle: string, generation: number, attempt: string, duration: number): Promise<Claim> {
    return Promise.resolve(this.#claim(handle, generation, attempt, duration));
  }

  async commit(
    handle: string,
    generation: number,
    attempt: string,
    next: { kid: string; sealed: Buffer },
  ): Promise<'committed' | 'superseded' | 'gone'> {
    await Promise.resolve();
    const session = this.#live(handle);
    if (session === undefined) return 'gone';
    if (session.committedBy === attempt) return 'committed';
    if (session.generation !== generation) return 'superseded';
    session.generation += 1;
    session.kid = next.kid;
    session.sealed = next.sealed;
    session.committedBy = attempt;
    session.claim = undefined;
    session.retryAt = 0;
    session.doubtfulSince = undefined;
    return 'committed';
  }

  async release(handle: string, attempt: string, release: Release): Promise<void> {
    await Promise.resolve();
    const session = this.#live(handle);
    if (session?.claim?.attempt !== attempt) return;
    if (release.doubtful) session.doubtfulSince ??= session.claim.since;
    session.claim = undefined;
    session.retryAt = Date.now() + release.backoff;
  }

  async end(handle: string, refused?: { generation: number; attempt: string }): Promise<boolean> {
    await Promise.resolve();
    const session = this.#live(handle);
    if (session === undefined) return false;
    if (refused !== undefined) {
      const { generation, claim } = session;
      if (generation !== refused.generation || (claim ?? refused).attempt !== refused.attempt) return false;
    }
    return this.#sessions.delete(handle);
  }

  async take(handle: string): Promise<StoredSession | undefined> {
    const session = this.#live(handle);
    this.#sessions.delete(handle);
    return Promise.resolve(session);
  }

  async putOnce(kind: OnceKind, id: string, value: Buffer, ttl: number): Promise<void> {
    this.#once.set(keys.once(this.prefix, kind, id), { value, expiresAt: Date.now() + ttl });
    await Promise.resolve();
  }

  async takeOnce(kind: OnceKind, id: string): Promise<Buffer | undefined> {
    await Promise.resolve();
    const key = keys.once(this.prefix, kind, id);
    const record = this.#once.get(key);
    this.#once.delete(key);
    return record !== undefined && record.expiresAt > Date.now() ? record.value : undefined;
  }

  async close(): Promise<void> {
    clearInterval(this.#sweeper);
    this.#sessions.clear();
    this.#once.clear();
    await Promise.resolve();
  }

  #claim(handle: string, generation: number, attempt: string, duration: number): Claim {
    const session = this.#live(handle);
    if (session === undefined) return { kind: 'gone' };
    if (session.generation !== generation) return { kind: 'superseded' };
    const now = Date.now();
    const own = session.claim?.attempt === attempt;
    if (session.claim !== undefined && !own) {
      const remaining = session.claim.until - now;
      if (remaining > 0) return { kind: 'held', remaining };
      session.doubtfulSince ??= session.claim.since;
      session.claim = undefined;
      session.retryAt = now + ORPHAN_GRACE;
    }
    if (session.retryAt > now && !own) return { kind: 'waiting', remaining: session.retryAt - now };
    session.claim = { attempt, since: now, until: now + duration };
    const { doubtfulSince } = session;
    const doubtfulFor = doubtfulSince === undefined ? undefined : now - doubtfulSince;
    return { kind: 'claimed', session: { ...session }, doubtfulFor };
  }

  #live(handle: string): MemorySession | undefined {
    const session = this.#sessions.get(handle);
    if (session === undefined || session.expiresAt > Date.now()) return session;
    this.#sessions.delete(handle);
    return undefined;
  }

  #sweep(): void {
    const now = Date.now();
    for (const [handle, session] of this.#sessions)
      if (session.expiresAt <= now) this.#sessions.delete(handle);
    for (const [key, record] of this.#once) if (record.expiresAt <= now) this.#once.delete(key);
  }
}
