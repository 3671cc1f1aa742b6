import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Logger } from '../src/observability/logger.js';
import { endingBy } from '../src/store/ending.js';
import { MemoryStore } from '../src/store/memory-store.js';
import { RedisLink } from '../src/store/redis-link.js';
import { RedisStore } from '../src/store/redis-store.js';
import type { EndCause, Ranked, RecordKind, SetName, Store, StoredSession } from '../src/store/store.js';
import { eventually, sleep } from './support/lifetime.js';
import { random, type Random } from './support/random.js';
import { startRedis, type RedisServer } from './support/redis.js';

const ROUNDS = 300;
const STEPS = 40;
/** Milliseconds: times that both stores read from their clocks may differ by this. */
const CLOCKS = 5000;
const LONG = 600_000;

let server: RedisServer;
let redis: RedisStore;

beforeAll(async () => {
  server = await startRedis();
  const settings = { url: server.url, prefix: server.prefix, connectTimeout: 2000, commandTimeout: 5000 };
  const link = new RedisLink({ ...settings, cluster: false }, new Logger('error'));
  link.connect();
  redis = new RedisStore(link, server.prefix);
  await eventually(() =>
    redis.ping().then(
      () => true,
      () => false,
    ),
  );
});

afterAll(async () => {
  await redis.close();
});

type Step = { name: string; run: (store: Store) => Promise<unknown> };

/** One random operation, the same for both stores. */
function step(dice: Random, round: string): Step {
  const handle = `${round}-h${String(dice.int(0, 4))}`;
  const id = `${round}-r${String(dice.int(0, 3))}`;
  const set: SetName = {
    kind: dice.pick(['sessions', 'queue'] as const),
    id: `${round}-s${String(dice.int(0, 1))}`,
  };
  const work: SetName = { kind: 'queue', id: `${round}-work` };
  const kind: RecordKind = dice.pick(['login', 'mark', 'ending'] as const);
  const attempt = dice.pick(['one', 'two', 'three']);
  const generation = dice.int(1, 3);
  const value = Buffer.from(dice.bytes(12));
  const about = Buffer.from(dice.bytes(8));
  const revocation = dice.chance(0.5) ? Buffer.from(dice.bytes(10)) : undefined;
  const now = Date.now();
  const cause = dice.pick<EndCause>(['user', 'operator', 'provider']);
  const ending = {
    ...endingBy(cause, dice.chance(0.5) ? LONG : 0),
    ...(dice.chance(0.2) ? { keepCause: 0 } : {}),
  };
  const refused = dice.chance(0.3) ? { generation, attempt } : undefined;
  // Due long ago or far away: what a clock says in between is no matter of agreement.
  const score = dice.pick([now - LONG, now - LONG - 1, now + LONG, now + LONG + 7]);
  const members = Array.from({ length: dice.int(1, 4) }, () => ({
    member: `m${String(dice.int(0, 9))}`,
    score: dice.chance(0.5) ? score : now - LONG + dice.int(0, 3),
  }));
  const after = dice.chance(0.6) ? dice.pick(members) : undefined;
  const limit = dice.int(1, 6);
  const steps: Step[] = [
    {
      name: 'create',
      run: (store) =>
        store.create(handle, {
          ...{ kid: attempt, sealed: value, about, revocation, createdAt: now, absoluteAt: now + LONG },
          idle: LONG,
        }),
    },
    { name: 'read', run: (store) => store.read(handle) },
    {
      name: 'peek',
      run: async (store) => {
        const found = await store.peek(handle);
        return found && [found.generation, found.touchedAt];
      },
    },
    { name: 'touch', run: (store) => store.touch(handle, LONG) },
    { name: 'claim', run: (store) => store.claim(handle, generation, attempt, LONG) },
    {
      name: 'commit',
      run: (store) =>
        store.commit(handle, generation, attempt, {
          ...{ kid: 'next', sealed: value, about, revocation },
          keepsDoubt: limit > 3,
        }),
    },
    {
      name: 'release',
      run: (store) => store.release(handle, attempt, { backoff: 0, doubtful: limit > 3 }),
    },
    { name: 'end', run: (store) => store.end(handle, ending, refused) },
    { name: 'endMany', run: (store) => store.endMany([handle, `${round}-h0`, 'nobody'], ending) },
    {
      name: 'describe',
      run: async (store) =>
        (await store.describe([`${round}-h1`, handle, 'nobody'])).map(
          (one) => one && [one.about, one.createdAt, one.absoluteAt, one.touchedAt],
        ),
    },
    { name: 'put', run: (store) => store.put(kind, id, value, LONG) },
    { name: 'putNew', run: (store) => store.putNew(kind, id, value, LONG) },
    { name: 'get', run: (store) => store.get(kind, id) },
    { name: 'take', run: (store) => store.take(kind, id) },
    { name: 'get ended', run: (store) => store.get('ended', handle) },
    { name: 'take revocation', run: (store) => store.take('revocation', handle) },
    { name: 'addTo', run: (store) => store.addTo(set, members, LONG) },
    { name: 'addTo work', run: (store) => store.addTo(work, members, LONG) },
    {
      name: 'removeFrom',
      run: (store) =>
        store.removeFrom(
          set,
          members.map(({ member }) => member),
        ),
    },
    { name: 'removeFrom nothing', run: (store) => store.removeFrom(set, []) },
    {
      name: 'pageOf',
      run: async (store) => {
        const place = after && ((await find(store, set, after.member)) ?? after);
        return store.pageOf(set, { after: place, limit, ...(limit > 4 ? { to: now } : {}) });
      },
    },
    { name: 'sizeOf', run: (store) => store.sizeOf(set) },
    // All that is due: the order is that of clocks, and each store has its own.
    { name: 'claimDue', run: async (store) => (await store.claimDue(work, 1000, LONG)).toSorted() },
    {
      name: 'postpone',
      run: (store) => store.postpone(work, members[0]?.member ?? '', limit > 3 ? LONG : -LONG),
    },
  ];
  return dice.pick(steps);
}

/** A page goes on after a member as it stands in the set, or as it stood. */
async function find(store: Store, set: SetName, member: string): Promise<Ranked | undefined> {
  return (await store.pageOf(set, { limit: 100 })).find((one) => one.member === member);
}

/** Times from a store's own clock become the same word; everything else must be equal. */
function told(value: unknown, now: number): unknown {
  if (Buffer.isBuffer(value)) return value.toString('hex');
  if (typeof value === 'number') {
    if (Math.abs(value - now) < CLOCKS) return 'now';
    if (Math.abs(value - now - LONG) < CLOCKS) return 'later';
    return Math.abs(value - LONG) < CLOCKS
      ? 'long'
      : Math.abs(value) < CLOCKS && value > 50
        ? 'short'
        : value;
  }
  if (Array.isArray(value)) return value.map((one) => told(one, now));
  if (typeof value !== 'object' || value === null) return value;
  if ('sealed' in value) {
    const { generation, kid, sealed, touchedAt } = value as StoredSession;
    return [generation, kid, told(sealed, now), told(touchedAt, now)];
  }
  const known = ['kind', 'session', 'about', 'revocation', 'doubtfulFor', 'remaining', 'member', 'score'];
  return Object.fromEntries(
    known
      .filter((name) => (value as Record<string, unknown>)[name] !== undefined)
      .map((name) => [name, told((value as Record<string, unknown>)[name], now)]),
  );
}

test(`the memory store and Redis answer alike to any sequence of operations (${String(ROUNDS)} rounds of ${String(STEPS)})`, async () => {
  const dice = random('stores');
  const seen = new Set<string>();
  for (let round = 0; round < ROUNDS; round += 1) {
    const memory = new MemoryStore();
    const names: string[] = [];
    for (let at = 0; at < STEPS; at += 1) {
      const { name, run } = step(dice, String(round));
      names.push(name);
      const [left, right] = await Promise.all([run(memory), run(redis)]);
      const now = Date.now();
      const [fromMemory, fromRedis] = [told(left, now), told(right, now)];
      if (left !== undefined && !(Array.isArray(left) && left.length === 0)) seen.add(name);
      try {
        expect(fromMemory).toEqual(fromRedis);
      } catch (error) {
        throw new Error(`round ${String(round)}: ${names.join(', ')}\n${String(error)}`, { cause: error });
      }
    }
    await memory.close();
  }
  // The dice must have reached what they are about.
  for (const name of [
    'end',
    'endMany',
    'claim',
    'commit',
    'pageOf',
    'claimDue',
    'take revocation',
    'get ended',
  ]) {
    expect([...seen]).toContain(name);
  }
});

test('both stores announce each ending once, with its cause, and nothing that did not end', async () => {
  const memory = new MemoryStore();
  const heard = new Map<Store, string[]>();
  for (const store of [memory, redis]) {
    const messages: string[] = [];
    heard.set(store, messages);
    let listening = store === memory;
    store.subscribe(
      (message) => messages.push(message),
      () => (listening = true),
    );
    await eventually(() => listening);
    const session = { kid: 'k', sealed: Buffer.of(1), about: Buffer.of(2), revocation: undefined };
    const times = { createdAt: Date.now(), absoluteAt: Date.now() + LONG, idle: LONG };
    await store.create('one', { ...session, ...times });
    await store.create('two', { ...session, ...times });
    await store.end('one', endingBy('user'), { generation: 7, attempt: 'x' });
    await store.end('one', endingBy('operator'));
    await store.end('one', endingBy('operator'));
    await store.endMany(['two', 'three'], endingBy('provider'));
    await store.announce('something else');
  }
  await eventually(() => heard.get(redis)?.length === 3);
  await sleep(50);
  expect(heard.get(redis)).toEqual(['ended one operator', 'ended two provider', 'something else']);
  expect(heard.get(memory)).toEqual(heard.get(redis));
  await memory.close();
});

test('both stores forget what has lived long enough: sessions, records, and never a session past its absolute end', async () => {
  const memory = new MemoryStore();
  for (const store of [memory, redis]) {
    const now = Date.now();
    const session = {
      kid: 'k',
      sealed: Buffer.of(1),
      about: Buffer.of(2),
      revocation: Buffer.of(3),
      createdAt: now,
    };
    await store.create('idle', { ...session, absoluteAt: now + LONG, idle: 60 });
    await store.create('absolute', { ...session, absoluteAt: now + 120, idle: LONG });
    await store.put('mark', 'short', Buffer.of(4), 60);
    await store.touch('absolute', LONG);
    await sleep(200);
    const ending = endingBy('operator', LONG);
    expect(await store.endMany(['idle', 'absolute'], ending)).toEqual([undefined, undefined]);
    expect(await store.describe(['idle', 'absolute'])).toEqual([undefined, undefined]);
    expect(await store.get('mark', 'short')).toBeUndefined();
    expect(await store.get('revocation', 'idle')).toBeUndefined();
    expect(await store.putNew('mark', 'short', Buffer.of(5), LONG)).toBe(true);
  }
  await memory.close();
});
