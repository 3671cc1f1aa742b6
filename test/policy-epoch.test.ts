import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Administration } from './support/administration.js';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { faults } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';
import { loginsLast } from './support/over-at-once.js';
import { ownRedis, startRedis, startRedisProxy, type RedisProxy, type RedisServer } from './support/redis.js';
import { answersOf, verdict } from './support/seeded.js';
import { StoredSession } from './support/stored-session.js';

const DAY = 24 * 60 * 60 * 1000;
const REPLICAS = 3;
/** Longer than two looks at the epoch. */
const LEARNED_WITHIN = 4000;
const OVER = '401 session-required epoch';

let redis: RedisServer;
let proxy: RedisProxy;
let c: Cloakroom;
/** Past the proxy in front of the replicas' Redis. */
let administration: Administration;

beforeAll(async () => {
  redis = await startRedis();
  proxy = await startRedisProxy(redis);
  c = await startCloakroom({ replicas: REPLICAS, redis: proxy });
  administration = await Administration.start(c, { CLOAKROOM_STORE__REDIS__URL: redis.url });
});

beforeEach(() => {
  loginsLast(c.provider, 3600);
});

afterAll(async () => {
  await expectLeftClean(c, 31 * DAY);
});

function cookieHeader(client: BrowserClient): string {
  return `${client.cookieName('session')}=${client.sessionCookie?.value ?? ''}`;
}

/** Waits until every replica answers like this. */
async function everywhere(cookies: readonly string[], wanted: string): Promise<void> {
  let last: string[] = [];
  await eventually(
    async () => {
      last = await answersOf(c, cookies);
      return last.length === 1 && last[0] === wanted;
    },
    { timeout: LEARNED_WITHIN, what: wanted },
  ).catch((error: unknown) => {
    throw new Error(`${String(error)}; last: ${last.join(', ')}`);
  });
}

describe('an epoch that ends', () => {
  test('every session from before is over on every replica, those that begin after live, and nobody must be found for it', async () => {
    const before = [await c.signedIn({ user: 'a' }), await c.signedIn({ user: 'b' }), await c.signedIn()];
    const cookies = before.map(cookieHeader);
    expect(await answersOf(c, cookies)).toEqual(['200']);
    await administration.bump('end');
    await everywhere(cookies, OVER);
    const after = await c.signedIn({ user: 'a' });
    expect(await answersOf(c, [cookieHeader(after)])).toEqual(['200']);
    // Their records go when somebody brings the cookie; lists name them no more.
    expect(await administration.handles({ subject: 'a' })).toEqual([new StoredSession(c, after).handle]);
    await eventually(async () => !(await new StoredSession(c, before[0] as BrowserClient).exists()));
    await administration.bump('end');
    await everywhere([cookieHeader(after)], OVER);
  });

  test('a request costs no Redis command more for it', async () => {
    const client = await c.signedIn();
    const cookie = cookieHeader(client);
    const calls = async (): Promise<Map<string, number>> => {
      const stats = String(await redis.command('INFO', 'commandstats'));
      const found = new Map<string, number>();
      for (const [, name = '', count = ''] of stats.matchAll(/cmdstat_([^:]+):calls=(\d+)/g)) {
        found.set(name, Number(count));
      }
      return found;
    };
    /** Commands that so many requests cause; what replicas do by themselves is taken off. */
    const cost = async (requests: number): Promise<Record<string, number>> => {
      const from = await calls();
      const began = Date.now();
      for (let i = 0; i < requests; i += 1) {
        expect((await client.api('/api/x', { cookie, replica: i % REPLICAS })).status).toBe(200);
      }
      const middle = await calls();
      await sleep(Date.now() - began);
      const quiet = await calls();
      const difference: Record<string, number> = {};
      for (const [name, count] of middle) {
        const idle = (quiet.get(name) ?? 0) - count;
        difference[name] = count - (from.get(name) ?? 0) - idle;
      }
      return difference;
    };
    await cost(15);
    const requests = 90;
    const spent = await cost(requests);
    // One look at the session for each request; for the epoch nothing but the replicas' own look once a second.
    expect(spent['hmget']).toBeGreaterThan(requests * 0.9);
    expect(spent['hmget']).toBeLessThan(requests * 1.15);
    const others = ['get', 'hget', 'hgetall', 'exists', 'mget', 'zscore'].map((name) => spent[name] ?? 0);
    expect(Math.max(...others)).toBeLessThan(requests / 6);
  });

  test('a replica that was frozen in that moment, or cut off from announcements, learns it all the same', async () => {
    const client = await c.signedIn();
    const cookie = cookieHeader(client);
    expect(await answersOf(c, [cookie])).toEqual(['200']);
    c.replica(1).pause();
    await administration.bump('end');
    c.replica(1).resume();
    await everywhere([cookie], OVER);
    // A denied channel: nothing is heard, and the look once a second is all there is.
    const second = await c.signedIn();
    await redis.command('ACL', 'SETUSER', 'default', 'resetchannels');
    try {
      await redis.command('CLIENT', 'KILL', 'TYPE', 'PUBSUB');
      await administration.bump('end').catch((error: unknown) => {
        // The announcement was refused; the epoch stands.
        expect(String(error)).toContain('store-unavailable');
      });
      await everywhere([cookieHeader(second)], OVER);
    } finally {
      await redis.command('ACL', 'SETUSER', 'default', '&*');
    }
  });

  test('while Redis is away nothing is let in by an older epoch, and what was raised counts as soon as it is back', async () => {
    const client = await c.signedIn();
    const cookie = cookieHeader(client);
    await proxy.refuse();
    await administration.bump('end');
    expect((await client.api('/api/x', { cookie, replica: 0 })).status).toBe(503);
    await proxy.heal();
    await eventually(async () => (await client.api('/api/x', { cookie, replica: 0 })).status !== 503, {
      timeout: 10_000,
    });
    await everywhere([cookie], OVER);
    await Promise.all(c.replicas.map((replica) => replica.waitReady()));
  });

  test('a new session of a replica that has not heard yet carries the older epoch and is over with it', async () => {
    // Both at once, again and again: a login on one side, the end of an epoch on the other.
    const outcomes = new Set<string>();
    for (let round = 0; round < 20; round += 1) {
      const client = c.client();
      const login = client.login();
      await sleep(round);
      const bumped = Date.now();
      await administration.bump('end');
      expect((await login).status).toBe(303);
      await sleep(20);
      const me = await client.me();
      outcomes.add(verdict(me));
      if (me.status !== 200) continue;
      const { session } = me.json<{ session: { createdAt: string } }>();
      // Whoever is let in began after; clocks are the same here.
      expect(Date.parse(session.createdAt)).toBeGreaterThanOrEqual(bumped - 100);
    }
    expect([...outcomes].filter((outcome) => !['200', OVER].includes(outcome))).toEqual([]);
  });

  // Only a Redis of the tests' own may be killed, frozen or configured; REDIS_URL may be somebody else's.
  (ownRedis ? test : test.skip)(
    'a Redis that comes back with an older snapshot wakes no session that was ended, as long as a replica remembers',
    async () => {
      const client = await c.signedIn({ user: 'old' });
      const cookie = cookieHeader(client);
      expect(await answersOf(c, [cookie])).toEqual(['200']);
      await redis.command('SAVE');
      await administration.bump('end');
      await sleep(2500);
      await redis.kill();
      await redis.restart();
      await Promise.all(c.replicas.map((replica) => replica.waitReady()));
      expect(await new StoredSession(c, client).exists()).toBe(true);
      expect(await answersOf(c, [cookie])).toEqual([OVER]);
      const after = await c.signedIn({ user: 'young' });
      expect(await answersOf(c, [cookieHeader(after)])).toEqual(['200']);
    },
  );
});

describe('an epoch that asks for new tokens', () => {
  test('the next use fetches them, once for all replicas; nobody is signed out, and not again for the same epoch', async () => {
    const client = await c.signedIn({ user: 'renewed' });
    const cookie = cookieHeader(client);
    expect(await answersOf(c, [cookie])).toEqual(['200']);
    const first = c.upstream.last?.bearer;
    expect(c.provider.ledger.count('refresh')).toBe(0);
    await administration.bump('refresh');
    await eventually(
      async () => {
        expect(await answersOf(c, [cookie])).toEqual(['200']);
        return c.provider.ledger.count('refresh') > 0;
      },
      { timeout: LEARNED_WITHIN, what: 'new tokens' },
    );
    expect(await answersOf(c, [cookie])).toEqual(['200']);
    await sleep(1500);
    expect(await answersOf(c, [cookie])).toEqual(['200']);
    expect(c.provider.ledger.count('refresh')).toBe(1);
    expect(c.provider.ledger.doubleSpends).toEqual([]);
    expect(c.upstream.last?.bearer).not.toBe(first);
    // Who signs in now has new tokens already.
    const after = await c.signedIn({ user: 'after' });
    expect((await after.api('/api/x')).status).toBe(200);
    expect(c.provider.ledger.count('refresh')).toBe(1);
  });

  test('a provider that is down makes 503 of it, not a logout, and the older token is not used; then it goes on', async () => {
    const client = await c.signedIn({ user: 'patient' });
    const cookie = cookieHeader(client);
    expect(await answersOf(c, [cookie])).toEqual(['200']);
    c.provider.always('refresh', faults.unavailable);
    await administration.bump('refresh');
    await everywhere([cookie], '503 idp-unavailable');
    expect((await client.me({ cookie })).status).toBe(200);
    c.provider.always('refresh', undefined);
    await eventually(async () => (await client.api('/api/x', { cookie })).status === 200, {
      timeout: 15_000,
      what: 'new tokens',
    });
    expect(await new StoredSession(c, client).exists()).toBe(true);
  });

  test('a session without a refresh token ends with its reason: it has no way to new tokens', async () => {
    c.provider.modes.refreshTokens = 'never';
    const client = await c.signedIn({ user: 'without' });
    const cookie = cookieHeader(client);
    const stored = new StoredSession(c, client);
    expect(await answersOf(c, [cookie])).toEqual(['200']);
    await administration.bump('refresh');
    const ended = await eventually(
      async () => {
        const answer = await client.api('/api/x', { cookie });
        return answer.status === 401 && answer;
      },
      { timeout: LEARNED_WITHIN },
    );
    expect(verdict(ended)).toBe('401 session-ended token-expired');
    expect(await stored.exists()).toBe(false);
  });
});

test('clocks that differ between replicas do not matter: what counts is the epoch that a session began under', async () => {
  const skew = new URL('support/skewed-clock.js', import.meta.url).href;
  const room = await startCloakroom({
    replicas: 1,
    redis,
    prefix: `${redis.prefix}skew`,
    nodeArgs: [`--import=${skew}`],
    env: { SKEW: '-20000' },
    provider: c.provider,
    upstream: c.upstream,
  });
  const act = await Administration.start(room);
  const before = await room.signedIn({ user: 'skewed' });
  expect((await before.me()).status).toBe(200);
  await act.bump('end');
  await eventually(async () => (await before.me()).status === 401, { timeout: LEARNED_WITHIN });
  // By the clock of this replica it begins 20 s before the epoch ended.
  const after = await room.signedIn({ user: 'skewed' });
  expect((await after.me()).status).toBe(200);
  await sleep(1500);
  expect((await after.api('/api/x')).status).toBe(200);
  await act.close();
  await room.close();
});
