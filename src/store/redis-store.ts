import type { Cluster, Redis } from 'ioredis';
import { keys } from './keys.js';
import { RedisCounter } from './redis-counter.js';
import type { RedisLink } from './redis-link.js';
import { endedSession, foreignIsNothing, storedSession, type Reply } from './redis-replies.js';
import { sessionScripts, setScripts } from './session-scripts.js';
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

type Argument = string | number | Buffer;
type Client = Redis | Cluster;
type Script = (this: Client, ...args: Argument[]) => Promise<unknown>;

/** Milliseconds of the longest session there can be, and a day: what is older in a set of sessions is gone. */
const LONGEST_SESSION = 31 * 24 * 60 * 60 * 1000;

/** Sessions in Redis 6.2 or newer: one hash a session, changed only by the scripts. */
export class RedisStore implements Store {
  readonly kind = 'redis';
  readonly prefix: string;
  readonly #link: RedisLink;

  constructor(link: RedisLink, prefix: string) {
    this.#link = link;
    this.prefix = prefix;
    for (const [name, lua] of Object.entries(sessionScripts)) {
      link.defineCommand(sessionCommand(name), { numberOfKeys: name === 'end' ? 3 : 1, lua });
    }
    for (const [name, lua] of Object.entries(setScripts)) {
      link.defineCommand(setCommand(name), { numberOfKeys: 1, lua });
    }
  }

  async ping(): Promise<void> {
    await this.#link.ping();
  }

  async create(handle: string, session: NewSession): Promise<void> {
    const { kid, sealed, about, revocation, createdAt, absoluteAt, idle } = session;
    await this.#session('create', handle, kid, sealed, createdAt, absoluteAt, idle, about, revocation ?? '');
  }

  async peek(handle: string): Promise<{ generation: number; touchedAt: number } | undefined> {
    const key = keys.session(this.prefix, handle);
    const reply = this.#link.run((redis) => redis.hmget(key, 'gen', 'touched'));
    const [generation, touched] = await reply.catch(foreignIsNothing);
    if (generation == null || touched == null) return undefined;
    return { generation: Number(generation), touchedAt: Number(touched) };
  }

  async read(handle: string): Promise<StoredSession | undefined> {
    const key = keys.session(this.prefix, handle);
    const reply = this.#link.run((redis) => redis.hmgetBuffer(key, 'gen', 'kid', 'sealed', 'touched'));
    return storedSession(await reply.catch(foreignIsNothing));
  }

  async touch(handle: string, idle: number): Promise<void> {
    await this.#session('touch', handle, idle);
  }

  async claim(handle: string, generation: number, attempt: string, duration: number): Promise<Claim> {
    const reply = (await this.#session('claim', handle, generation, attempt, duration)) as Reply;
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
    next: NextGeneration,
  ): Promise<'committed' | 'superseded' | 'gone'> {
    const { kid, sealed, about, revocation, keepsDoubt = false } = next;
    const args = [generation, attempt, kid, sealed, about, revocation ?? '', keepsDoubt ? '1' : '0'];
    const reply = await this.#session('commit', handle, ...args);
    return String(reply) as 'committed' | 'superseded' | 'gone';
  }

  async release(handle: string, attempt: string, release: Release): Promise<void> {
    await this.#session('release', handle, attempt, release.backoff, release.doubtful ? '1' : '0');
  }

  async end(
    handle: string,
    ending: Ending,
    refused?: { generation: number; attempt: string },
  ): Promise<EndedSession | undefined> {
    const args = this.#endArguments(handle, ending, refused);
    return endedSession(await this.#link.run((redis) => call(redis, sessionCommand('end'), ...args)));
  }

  async endMany(handles: readonly string[], ending: Ending): Promise<(EndedSession | undefined)[]> {
    return Promise.all(
      handles.map(async (handle) => {
        const args = this.#endArguments(handle, ending);
        return endedSession(
          await this.#link.sideways((redis) => call(redis, sessionCommand('end'), ...args)),
        );
      }),
    );
  }

  async describe(handles: readonly string[]): Promise<(DescribedSession | undefined)[]> {
    return Promise.all(
      handles.map(async (handle) => {
        const key = keys.session(this.prefix, handle);
        const reply = this.#link.sideways((redis) =>
          redis.hmgetBuffer(key, 'about', 'created', 'absolute', 'touched'),
        );
        const [about, created, absolute, touched] = await reply.catch(foreignIsNothing);
        if (created == null || absolute == null || touched == null) return undefined;
        return {
          about: about ?? undefined,
          createdAt: Number(created),
          absoluteAt: Number(absolute),
          touchedAt: Number(touched),
        };
      }),
    );
  }

  async put(kind: RecordKind, id: string, value: Buffer, ttl: number): Promise<void> {
    const key = keys.record(this.prefix, kind, id);
    const set = (redis: Client): Promise<unknown> => redis.set(key, value, 'PX', ttl);
    // What `confirm` answers for must be written on the connection that it asks.
    await (kind === 'epoch' || kind === 'ending' ? this.#link.sideways(set) : this.#link.run(set));
  }

  async putNew(kind: RecordKind, id: string, value: Buffer, ttl: number): Promise<boolean> {
    const key = keys.record(this.prefix, kind, id);
    return (await this.#link.run((redis) => redis.set(key, value, 'PX', ttl, 'NX'))) === 'OK';
  }

  async get(kind: RecordKind, id: string): Promise<Buffer | undefined> {
    const key = keys.record(this.prefix, kind, id);
    return (await this.#link.run((redis) => redis.getBuffer(key))) ?? undefined;
  }

  async take(kind: RecordKind, id: string): Promise<Buffer | undefined> {
    const key = keys.record(this.prefix, kind, id);
    return (await this.#link.run((redis) => redis.getdelBuffer(key))) ?? undefined;
  }

  async addTo(set: SetName, members: readonly Ranked[], ttl: number): Promise<void> {
    if (members.length === 0) return;
    const forget = set.kind === 'sessions' ? Date.now() - LONGEST_SESSION : '';
    const key = keys.set(this.prefix, set);
    const ranked = members.flatMap(({ score, member }) => [score, member]);
    // As promptly as the session that follows: a login waits for it.
    await this.#link.run((redis) => call(redis, setCommand('add'), key, ttl, forget, ...ranked));
  }

  async removeFrom(set: SetName, members: readonly string[]): Promise<void> {
    if (members.length === 0) return;
    const key = keys.set(this.prefix, set);
    await this.#link.sideways((redis) => redis.zrem(key, ...members));
  }

  async pageOf(
    set: SetName,
    range: { after?: Ranked | undefined; to?: number | undefined; limit: number },
  ): Promise<Ranked[]> {
    const { after, to = Infinity, limit } = range;
    const reply = (await this.#set('page', set, limit, after?.score ?? '', after?.member ?? '')) as Buffer[];
    const page: Ranked[] = [];
    for (let i = 0; i + 1 < reply.length; i += 2) {
      page.push({ member: String(reply[i]), score: Number(reply[i + 1]) });
    }
    return page.filter(({ score }) => score <= to);
  }

  async sizeOf(set: SetName): Promise<number> {
    const key = keys.set(this.prefix, set);
    return this.#link.run((redis) => redis.zcard(key));
  }

  async claimDue(set: SetName, limit: number, lease: number): Promise<string[]> {
    return ((await this.#set('claim', set, limit, lease)) as Buffer[]).map(String);
  }

  async postpone(set: SetName, member: string, delay: number): Promise<void> {
    await this.#set('postpone', set, member, delay);
  }

  counter(limit: string, rate: { requests: number; per: number }): RedisCounter {
    return new RedisCounter(this.#link, this.prefix, limit, rate);
  }

  async now(): Promise<number> {
    const [seconds, microseconds] = await this.#link.run((redis) => redis.time());
    return Number(seconds) * 1000 + Math.floor(Number(microseconds) / 1000);
  }

  async confirm(): Promise<Durability> {
    return this.#link.confirm();
  }

  async announce(message: string): Promise<void> {
    const channel = keys.channel(this.prefix);
    await this.#link.run((redis) => redis.publish(channel, message));
  }

  subscribe(onMessage: (message: string) => void, onGap: () => void): void {
    this.#link.subscribe(keys.channel(this.prefix), onMessage, onGap);
  }

  async close(): Promise<void> {
    await this.#link.close();
  }

  #session(name: keyof typeof sessionScripts, handle: string, ...args: Argument[]): Promise<unknown> {
    const key = keys.session(this.prefix, handle);
    return this.#link.run((redis) => call(redis, sessionCommand(name), key, ...args));
  }

  #set(name: keyof typeof setScripts, set: SetName, ...args: Argument[]): Promise<unknown> {
    const key = keys.set(this.prefix, set);
    return this.#link.sideways((redis) => call(redis, setCommand(name), key, ...args));
  }

  #endArguments(
    handle: string,
    { cause, keepRevocation, keepCause }: Ending,
    refused?: { generation: number; attempt: string },
  ): Argument[] {
    return [
      keys.session(this.prefix, handle),
      keys.record(this.prefix, 'revocation', handle),
      keys.record(this.prefix, 'ended', handle),
      refused?.generation ?? '',
      refused?.attempt ?? '',
      cause,
      keepRevocation,
      keepCause,
      keys.channel(this.prefix),
      handle,
    ];
  }
}

/** Scripts get names of their own: `touch` and others are commands of Redis. */
function sessionCommand(script: string): string {
  return `cloakroom_${script}`;
}

function setCommand(script: string): string {
  return `cloakroom_set_${script}`;
}

function call(redis: Client, command: string, ...args: Argument[]): Promise<unknown> {
  // The client library adds a variant of each command that leaves replies as bytes, which sealed records are.
  const script = (redis as unknown as Record<string, Script>)[`${command}Buffer`];
  if (script === undefined) throw new TypeError(`no script called ${command}`);
  return script.call(redis, ...args);
}
