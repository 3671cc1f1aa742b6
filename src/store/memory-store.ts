import { keys } from './keys.js';
import { MemorySets } from './memory-sets.js';
import { ORPHAN_GRACE } from './session-scripts.js';
import type {
  Claim,
  DescribedSession,
  Durability,
  EndedSession,
  Ending,
  NewSession,
  NextGeneration,
  Ranked,
  RecordKind,
  Release,
  SetName,
  Store,
  StoredSession,
} from './store.js';

interface MemorySession extends StoredSession {
  about: Buffer;
  revocation: Buffer | undefined;
  createdAt: number;
  absoluteAt: number;
  expiresAt: number;
  claim: { attempt: string; since: number; until: number } | undefined;
  committedBy: string | undefined;
  retryAt: number;
  doubtfulSince: number | undefined;
}

interface MemoryRecord {
  value: Buffer;
  expiresAt: number;
}

const SWEEP_INTERVAL = 10_000;

/** Sessions of a single process, for a demo or a development machine: the same rules as in Redis, gone at exit. */
export class MemoryStore implements Store {
  readonly kind = 'memory';
  readonly prefix = 'memory';
  readonly #sessions = new Map<string, MemorySession>();
  readonly #records = new Map<string, MemoryRecord>();
  readonly #sets = new MemorySets();
  readonly #listeners: ((message: string) => void)[] = [];
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
      about: session.about,
      revocation: session.revocation,
      createdAt: session.createdAt,
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
    next: NextGeneration,
  ): Promise<'committed' | 'superseded' | 'gone'> {
    await Promise.resolve();
    const session = this.#live(handle);
    if (session === undefined) return 'gone';
    if (session.committedBy === attempt) return 'committed';
    if (session.generation !== generation) return 'superseded';
    session.generation += 1;
    session.kid = next.kid;
    session.sealed = next.sealed;
    session.about = next.about;
    session.revocation = next.revocation;
    session.committedBy = attempt;
    session.claim = undefined;
    session.retryAt = 0;
    if (next.keepsDoubt !== true) session.doubtfulSince = undefined;
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

  async end(
    handle: string,
    ending: Ending,
    refused?: { generation: number; attempt: string },
  ): Promise<EndedSession | undefined> {
    const session = this.#live(handle);
    if (session === undefined) return undefined;
    if (refused !== undefined) {
      const { generation, claim } = session;
      if (generation !== refused.generation || (claim ?? refused).attempt !== refused.attempt)
        return undefined;
    }
    this.#sessions.delete(handle);
    const { cause, keepRevocation, keepCause } = ending;
    const keep = session.revocation !== undefined && keepRevocation > 0;
    if (keep) await this.put('revocation', handle, session.revocation ?? Buffer.alloc(0), keepRevocation);
    if (keepCause > 0) await this.put('ended', handle, Buffer.from(cause), keepCause);
    await this.announce(`ended ${handle} ${cause}`);
    return { session, about: session.about, revocation: keep };
  }

  async endMany(handles: readonly string[], ending: Ending): Promise<(EndedSession | undefined)[]> {
    return Promise.all(handles.map((handle) => this.end(handle, ending)));
  }

  async describe(handles: readonly string[]): Promise<(DescribedSession | undefined)[]> {
    return Promise.resolve(handles.map((handle) => this.#live(handle)));
  }

  async put(kind: RecordKind, id: string, value: Buffer, ttl: number): Promise<void> {
    this.#records.set(keys.record(this.prefix, kind, id), { value, expiresAt: Date.now() + ttl });
    await Promise.resolve();
  }

  async putNew(kind: RecordKind, id: string, value: Buffer, ttl: number): Promise<boolean> {
    if (this.#record(keys.record(this.prefix, kind, id)) !== undefined) return false;
    await this.put(kind, id, value, ttl);
    return true;
  }

  async get(kind: RecordKind, id: string): Promise<Buffer | undefined> {
    return Promise.resolve(this.#record(keys.record(this.prefix, kind, id)));
  }

  async take(kind: RecordKind, id: string): Promise<Buffer | undefined> {
    const key = keys.record(this.prefix, kind, id);
    const value = this.#record(key);
    this.#records.delete(key);
    return Promise.resolve(value);
  }

  async addTo(set: SetName, members: readonly Ranked[]): Promise<void> {
    this.#sets.add(keys.set(this.prefix, set), members);
    await Promise.resolve();
  }

  async removeFrom(set: SetName, members: readonly string[]): Promise<void> {
    this.#sets.remove(keys.set(this.prefix, set), members);
    await Promise.resolve();
  }

  async pageOf(
    set: SetName,
    range: { after?: Ranked | undefined; to?: number | undefined; limit: number },
  ): Promise<Ranked[]> {
    return Promise.resolve(this.#sets.page(keys.set(this.prefix, set), range));
  }

  async sizeOf(set: SetName): Promise<number> {
    return Promise.resolve(this.#sets.size(keys.set(this.prefix, set)));
  }

  async claimDue(set: SetName, limit: number, lease: number): Promise<string[]> {
    return Promise.resolve(this.#sets.claimDue(keys.set(this.prefix, set), limit, Date.now(), lease));
  }

  async postpone(set: SetName, member: string, delay: number): Promise<void> {
    this.#sets.move(keys.set(this.prefix, set), member, Date.now() + delay);
    await Promise.resolve();
  }

  counter(): undefined {
    return undefined;
  }

  async now(): Promise<number> {
    return Promise.resolve(Date.now());
  }

  async confirm(): Promise<Durability> {
    return Promise.resolve('memory');
  }

  async announce(message: string): Promise<void> {
    for (const listener of this.#listeners) listener(message);
    await Promise.resolve();
  }

  subscribe(onMessage: (message: string) => void): void {
    this.#listeners.push(onMessage);
  }

  async close(): Promise<void> {
    clearInterval(this.#sweeper);
    this.#sessions.clear();
    this.#records.clear();
    this.#sets.clear();
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

  #record(key: string): Buffer | undefined {
    const record = this.#records.get(key);
    return record !== undefined && record.expiresAt > Date.now() ? record.value : undefined;
  }

  #sweep(): void {
    const now = Date.now();
    for (const [handle, session] of this.#sessions)
      if (session.expiresAt <= now) this.#sessions.delete(handle);
    for (const [key, record] of this.#records) if (record.expiresAt <= now) this.#records.delete(key);
  }
}
