import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { Administration } from './support/administration.js';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { random } from './support/random.js';
import { ownRedis, startRedis } from './support/redis.js';
import { answersOf, cookieOf, onEveryReplica, seedEach, seedSessions, verdict } from './support/seeded.js';
import { StoredSession } from './support/stored-session.js';

const REPLICAS = 4;
const DAY = 24 * 60 * 60 * 1000;
const ABSOLUTE = 12 * 60 * 60 * 1000;
const OPERATOR = '401 session-required operator';

let c: Cloakroom;
let administration: Administration;

beforeAll(async () => {
  c = await startCloakroom({
    replicas: REPLICAS,
    config: { store: { redis: { commandTimeout: '5s' } } },
  });
  administration = await Administration.start(c);
});

afterAll(async () => {
  // Acts at a terminal wait that long for a server to write them down.
  await expectLeftClean(c, 31 * DAY);
});

function cookieHeader(client: BrowserClient): string {
  return `${client.cookieName('session')}=${client.sessionCookie?.value ?? ''}`;
}

async function redisKeys(kind: string): Promise<string[]> {
  return (await c.redis?.keys(`${c.prefix}:*:${kind}`)) ?? [];
}

/** Handles that some index names. */
async function indexed(): Promise<Set<string>> {
  const sets = await redisKeys('sessions');
  const members = await Promise.all(sets.map(async (key) => await c.redis?.command('ZRANGE', key, 0, -1)));
  return new Set((members as string[][]).flat());
}

describe('A-108 a forced end counts for the next request on every replica', () => {
  test('by session: that one and no other of the same person', async () => {
    const [one, other] = [await c.signedIn({ user: 'single' }), await c.signedIn({ user: 'single' })];
    expect(await answersOf(c, [cookieHeader(one), cookieHeader(other)])).toEqual(['200']);
    const { handle } = new StoredSession(c, one);
    expect(await administration.end({ handle })).toMatchObject({ ended: 1, durability: 'unreplicated' });
    expect(await answersOf(c, [cookieHeader(one)])).toEqual([OPERATOR]);
    expect(await answersOf(c, [cookieHeader(other)])).toEqual(['200']);
  });

  test.each(['subject', 'user by subject', 'user by e-mail'])(
    'by %s: every session of that person',
    async (by) => {
      const user = by.replaceAll(' ', '-');
      const theirs = [await c.signedIn({ user }), await c.signedIn({ user }), await c.signedIn({ user })];
      const other = await c.signedIn({ user: `not-${user}` });
      const cookies = theirs.map(cookieHeader);
      expect(await answersOf(c, cookies)).toEqual(['200']);
      const filter =
        by === 'subject'
          ? { issuer: c.provider.issuer, subject: user }
          : { user: by === 'user by e-mail' ? `${user}@EXAMPLE.test` : user };
      expect(await administration.count(filter)).toBe(3);
      expect((await administration.end(filter)).ended).toBe(3);
      expect(await answersOf(c, cookies)).toEqual([OPERATOR]);
      expect(await answersOf(c, [cookieHeader(other)])).toEqual(['200']);
      expect(await administration.count(filter)).toBe(0);
      expect((await administration.end(filter)).ended).toBe(0);
    },
  );

  test('by the session at the provider, by address, by age, by idle time, all but one', async () => {
    const now = Date.now();
    const seeded = await seedEach(c, administration, [
      { subject: 'picked', sid: 'sid/one+', address: '203.0.113.0/24', createdAt: now - 3_600_000 },
      { subject: 'picked', sid: 'sid/two+', address: '198.51.100.0/24', createdAt: now - 7_200_000 },
      { subject: 'picked', sid: 'sid/three+', address: '192.0.2.0/24', createdAt: now - 60_000 },
      { subject: 'picked', sid: 'sid/four+', createdAt: now - 30_000 },
    ]);
    const [first, second, third, fourth] = seeded;
    if (!first || !second || !third || !fourth) throw new Error('not seeded');
    const subject = 'picked';
    expect(await administration.handles({ sid: 'sid/one+' })).toEqual([first.handle]);
    expect(await administration.handles({ subject, address: '203.0.113.0/24' })).toEqual([first.handle]);
    expect(await administration.handles({ subject, address: '198.51.0.0/16' })).toEqual([second.handle]);
    expect(await administration.handles({ subject, createdBefore: now - 1_800_000 })).toEqual([
      second.handle,
      first.handle,
    ]);
    expect(await administration.handles({ subject, idleFor: 600_000 })).toEqual([]);
    expect((await administration.end({ sid: 'sid/one+' })).ended).toBe(1);
    expect((await administration.end({ subject, address: '198.51.100.0/24' })).ended).toBe(1);
    expect((await administration.end({ subject, createdBefore: now - 45_000 })).ended).toBe(1);
    expect(await administration.handles({ subject })).toEqual([fourth.handle]);
    const [kept] = await seedEach(c, administration, [{ subject }]);
    expect((await administration.end({ subject, except: kept?.handle ?? '' })).ended).toBe(1);
    expect(await answersOf(c, [first, second, third, fourth].map(cookieOf))).toEqual([OPERATOR]);
    expect(kept && (await answersOf(c, [cookieOf(kept)]))).toEqual(['200']);
  });

  test('everybody: 10,000 sessions of 10,000 people, counted, with memory that does not grow with them', async () => {
    await administration.end({ all: true });
    const seeded = await seedSessions(c, administration, 10_000, 'everybody');
    const dice = random('everybody');
    const sample = dice.shuffle(seeded).slice(0, 60).map(cookieOf);
    expect(await answersOf(c, sample.slice(0, 10))).toEqual(['200']);
    expect(await administration.count({ all: true })).toBe(10_000);
    administration.progress.length = 0;
    const result = await administration.end({ all: true }, { cause: 'operator' });
    expect(result).toMatchObject({ ended: 10_000, durability: 'unreplicated' });
    expect(await answersOf(c, sample)).toEqual([OPERATOR]);
    // Page by page, and told so.
    expect(administration.progress.at(-1)).toBe(10_000);
    expect(administration.progress.length).toBeGreaterThan(20);
    expect(await redisKeys('session')).toEqual([]);
    // what ended has left nothing behind in any index.
    expect(await redisKeys('sessions')).toEqual([]);
  });

  test('a plain redis-cli DEL of the session has the same effect', async () => {
    const client = await c.signedIn({ user: 'by-hand' });
    expect(await answersOf(c, [cookieHeader(client)])).toEqual(['200']);
    await new StoredSession(c, client).delete();
    expect(await answersOf(c, [cookieHeader(client)])).toEqual(['401 session-required']);
    expect(await administration.handles({ subject: 'by-hand' })).toEqual([]);
  });
});

test('A-108 the answer to an end says how durable it is: no replica of Redis, one that has it, one that does not answer', async () => {
  if (!ownRedis || c.redis === undefined) return;
  // Otherwise it waits five seconds for more replicas to come.
  await c.redis.configSet('repl-diskless-sync-delay', '0');
  const follower = await startRedis({
    args: ['--replicaof', c.redis.host, String(c.redis.port)],
  });
  try {
    await eventually(
      async () => String(await follower.command('INFO', 'replication')).includes('master_link_status:up'),
      { what: 'the replica of Redis', timeout: 15_000 },
    );
    await seedSessions(c, administration, 3, 'durable');
    const fresh = await Administration.start(c);
    expect(await fresh.end({ subject: 'durable-0' })).toMatchObject({ ended: 1, durability: 'replicated' });
    follower.pause();
    expect(await fresh.end({ subject: 'durable-1' })).toMatchObject({ ended: 1, durability: 'unconfirmed' });
    await fresh.close();
  } finally {
    follower.resume();
    await follower.close();
  }
  await eventually(
    async () => String(await c.redis?.command('INFO', 'replication')).includes('connected_slaves:0'),
    { what: 'Redis to be alone again', timeout: 15_000 },
  );
  const alone = await Administration.start(c);
  expect(await alone.end({ subject: 'durable-2' })).toMatchObject({ ended: 1, durability: 'unreplicated' });
  await alone.close();
});

test('A-108 the same act asked for twice is one act: by its name, also while it runs and from another process', async () => {
  const [one] = await seedEach(c, administration, [{ subject: 'twice' }]);
  const other = await Administration.start(c);
  const [first, second] = await Promise.all([
    administration.end({ subject: 'twice' }, { id: 'act-1' }),
    other.end({ subject: 'twice' }, { id: 'act-1' }),
  ]);
  expect(first.id).toBe(second.id);
  expect(first.ended + second.ended).toBeGreaterThan(0);
  expect(one && (await answersOf(c, [cookieOf(one)]))).toEqual([OPERATOR]);
  // Somebody who signed in since is not meant by a repetition.
  const [since] = await seedEach(c, administration, [{ subject: 'twice', createdAt: Date.now() + 10 }]);
  const again = await other.end({ subject: 'twice' }, { id: 'act-1' });
  expect([again.id, again.ended]).toEqual([first.id, 1]);
  expect(since && (await answersOf(c, [cookieOf(since)]))).toEqual(['200']);
  expect(await other.result(first.id)).toMatchObject({ ended: 1 });
  expect((await other.end({ subject: 'twice' }, { id: 'act-2' })).ended).toBe(1);
  await other.close();
});

test('A-108 an end that names nothing ends nothing', async () => {
  const [one] = await seedEach(c, administration, [{ subject: 'bystander' }]);
  await expect(administration.end({})).rejects.toThrow('bad-request');
  await expect(administration.end({ except: 'x' })).rejects.toThrow('bad-request');
  expect(one && (await answersOf(c, [cookieOf(one)]))).toEqual(['200']);
});

test('A-111 unknown, guessed and malformed handles end nothing, are no error and leave nothing behind', async () => {
  const dice = random('handles');
  const before = new Set(await c.redis?.keys());
  const guesses = [
    ...Array.from({ length: 20 }, () => Buffer.from(dice.bytes(32)).toString('base64url')),
    ...['x', '*', '{x}', '../session', 'a'.repeat(5000), '\u0000', '\r\nSET a b', '}:session', 'ünïcode'],
  ];
  for (const handle of guesses) {
    expect(await administration.show(handle)).toBeUndefined();
    expect((await administration.end({ handle })).ended).toBe(0);
    expect(await administration.handles({ handle })).toEqual([]);
  }
  const after = ((await c.redis?.keys()) ?? []).filter((key) => !before.has(key) && !key.endsWith(':ending'));
  expect(after.filter((key) => !key.endsWith(':audit') && !key.endsWith('}:queue'))).toEqual([]);
});

test('A-061 after logins, logouts and ends of every kind each key has a time to live and no index names a dead session', async () => {
  await administration.end({ all: true });
  // Deleted by hand in another test: forgotten a minute after they began.
  const dead = await indexed();
  const clients = await Promise.all(
    Array.from({ length: 12 }, (_, i) => c.signedIn({ user: `tidy-${String(i % 4)}` })),
  );
  const handles = clients.map((client) => new StoredSession(c, client).handle);
  await clients[0]?.logout({ navigate: false });
  // Again in the same browser: the old session is replaced.
  await clients[1]?.login({ as: 'tidy-1' });
  await administration.end({ handle: handles[2] ?? '' });
  await administration.end({ user: 'tidy-3' });
  const lifetimes = (await c.redis?.lifetimes(`${c.prefix}:*`)) ?? new Map<string, number>();
  expect(lifetimes.size).toBeGreaterThan(10);
  const longest = (key: string): number => {
    if (key.endsWith(':session')) return 30 * 60 * 1000;
    if (key.endsWith(':sessions')) return ABSOLUTE;
    if (key.endsWith(':audit') || key.includes('{audit}') || key.endsWith(':epoch')) return 31 * DAY;
    return key.endsWith(':ending') || key.endsWith(':queue') ? DAY + 3_600_000 : 3_600_000;
  };
  expect([...lifetimes].filter(([key, left]) => left <= 0 || left > longest(key))).toEqual([]);
  const alive = new Set([...lifetimes.keys()].flatMap((key) => /\{(.+)\}:session$/.exec(key)?.[1] ?? []));
  // 12 and the one that came in place of another; gone: a logout, one replaced, one ended, three of a person.
  expect(alive.size).toBe(13 - 6);
  await eventually(
    async () => {
      const named = [...(await indexed())].filter((handle) => !dead.has(handle));
      return named.length === alive.size && named.every((handle) => alive.has(handle));
    },
    { what: 'the index to name the living and nobody else' },
  );
});

test('a session that is ended while a request is on its way: that request is answered, the next is not', async () => {
  const client = await c.signedIn({ user: 'on-the-way' });
  const cookie = cookieHeader(client);
  const slow = client.api('/api/delay/400', { cookie });
  await eventually(() => c.upstream.requests.some(({ url }) => url.endsWith('/delay/400')));
  expect((await administration.end({ user: 'on-the-way' })).ended).toBe(1);
  expect((await onEveryReplica(c, cookie)).map(verdict)).toEqual(
    Array.from({ length: REPLICAS }, () => OPERATOR),
  );
  expect((await slow).status).toBe(200);
});
