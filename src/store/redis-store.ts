import type { Redis } from 'ioredis';
import { CloakroomError } from '../errors.js';
import { keys } from './keys.js';
import type { RedisLink } from './redis-link.js';
import { sessionScripts } from './session-scripts.js';
import type { Claim, NewSession, OnceKind, Release, Store, StoredSession } from './store.js';

type Reply = (Buffer | null)[];
type Argument = string | number | Buffer;
type Script = (this: Redis, key: string, ...args: Argument[]) => Promise<unknown>;

/** Sessions in Redis 6.2 or newer: one hash a session, changed only by the scripts. */
export class RedisStore implements Store {
  readonly kind = 'redis';
  readonly prefix: string;
  readonly #link: RedisLink;

  constructor(link: RedisLink, prefix: string) {
    this.#link = link;
    this.prefix = prefix;
    for (const [name, lua] of Object.entries(sessionScripts)) {
      link.redis.defineCommand(commandName(name), { numberOfKeys: 1, lua });
    }
  }

  async ping(): Promise<void> {
    await this.#link.run((redis) => redis.ping());
  }

  async create(handle: string, session: NewSession): Promise<void> {
    const { kid, sealed, createdAt, absoluteAt, idle } = session;
    await this.#script('create', handle, kid, sealed, createdAt, absoluteAt, idle);
  }

  async peek(handle: string): Promise<{ generation: number; touchedAt: number } | undefined> {
    const key = this.#key(handle);
    const reply = this.#link.run((redis) => redis.hmget(key, 'gen', 'touched'));
    const [generation, touched] = await reply.catch(foreignIsNothing);
    if (generation == null || touched == null) return undefined;
    return { generation: Number(generation), touchedAt: Number(touched) };
  }

  async read(handle: string): Promise<StoredSession | undefined> {
    const key = this.#key(handle);
    const reply = this.#link.run((redis) => redis.hmgetBuffer(key, 'gen', 'kid', 'sealed', 'touched'));
    return storedSession(await reply.catch(foreignIsNothing));
  }

  async touch(handle: string, idle: number): Promise<void> {
    await this.#script('touch', handle, idle);
  }

  async claim(handle: string, generation: number, attempt: string, duration: number): Promise<Claim> {
    const reply = (await this.#script('claim', handle, generation, attempt, duration)) as Reply;
    const kind = String(reply[0]);
    if (kind === 'gone' || kind === 'superseded') return { kind };
    if (kind === 'held' || kind === 'waiting') return { kind, remaining: Number(reply[1]) };
    const [, kid, sealed, touched, doubtful] = reply;
    const session = storedSession([
      Buffer.from(String(generation)),
      kid ?? null,
      sealed ?? null,
      touched ?? null,
    ]);
    if (session === undefined) return { kind: 'gone' };
    const doubtfulFor = Number(doubtful);
    return { kind: 'claimed', session, doubtfulFor: doubtfulFor < 0 ? undefined : doubtfulFor };
  }

  async commit(
    handle: string,
    generation: number,
    attempt: string,
    next: { kid: string; sealed: Buffer },
  ): Promise<'committed' | 'superseded' | 'gone'> {
    const reply = await this.#script('commit', handle, generation, attempt, next.kid, next.sealed);
    return String(reply) as 'committed' | 'superseded' | 'gone';
  }

  async release(handle: string, attempt: string, release: Release): Promise<void> {
    await this.#script('release', handle, attempt, release.backoff, release.doubtful ? '1' : '0');
  }

  async end(handle: string, refused?: { generation: number; attempt: string }): Promise<boolean> {
    return (await this.#script('end', handle, refused?.generation ?? '', refused?.attempt ?? '')) === 1;
  }

  async take(handle: string): Promise<StoredSession | undefined> {
    return storedSession((await this.#script('take', handle)) as Reply);
  }

  async putOnce(kind: OnceKind, id: string, value: Buffer, ttl: number): Promise<void> {
    const key = keys.once(this.prefix, kind, id);
    await this.#link.run((redis) => redis.set(key, value, 'PX', ttl));
  }

  async takeOnce(kind: OnceKind, id: string): Promise<Buffer | undefined> {
    const key = keys.once(this.prefix, kind, id);
    return (await this.#link.run((redis) => redis.getdelBuffer(key))) ?? undefined;
  }

  async close(): Promise<void> {
    await this.#link.close();
  }

  #key(handle: string): string {
    return keys.session(this.prefix, handle);
  }

  #script(name: keyof typeof sessionScripts, handle: string, ...args: Argument[]): Promise<unknown> {
    const key = this.#key(handle);
    return this.#link.run((redis: Redis) => {
      // The client library adds a variant of each command that leaves replies as bytes, which sealed records are.
      const command = (redis as unknown as Record<string, Script>)[`${commandName(name)}Buffer`];
      if (command === undefined) throw new TypeError(`no script called ${name}`);
      return command.call(redis, key, ...args);
    });
  }
}

/** Scripts get names of their own: `touch` and others are commands of Redis. */
function commandName(script: string): string {
  return `cloakroom_${script}`;
}

/** A value of another type under our key is no session; an error would keep its owner out for ever. */
function foreignIsNothing(error: unknown): [] {
  if (
    error instanceof CloakroomError &&
    error.cause instanceof Error &&
    /^WRONGTYPE/.test(error.cause.message)
  ) {
    return [];
  }
  throw error;
}

function storedSession(reply: Reply): StoredSession | undefined {
  const [generation, kid, sealed, touched] = reply;
  if (generation == null || kid == null || sealed == null || touched == null) return undefined;
  const record = {
    generation: Number(generation),
    kid: String(kid),
    sealed,
    touchedAt: Number(touched),
  };
  return Number.isSafeInteger(record.generation) && Number.isFinite(record.touchedAt) ? record : undefined;
}
