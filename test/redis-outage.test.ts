import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { inParallel, type BrowserClient, type BrowserResponse } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import type { FaultProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';
import { loginsLast, loginsNeedRefresh } from './support/over-at-once.js';
import { ownRedis, startRedis, startRedisProxy, type RedisProxy, type RedisServer } from './support/redis.js';
import { scriptCall, StoredSession } from './support/stored-session.js';

/** A request that has no answer after this is one that hangs. */
const NOT_HANGING = 5000;

let redis: RedisServer;
let wire: RedisProxy;
let c: Cloakroom;
let provider: FaultProvider;

beforeAll(async () => {
  redis = await startRedis({ appendonly: true });
  wire = await startRedisProxy(redis);
  c = await startCloakroom({
    redis: wire,
    config: { providers: { main: { timeout: '1s', metadataTimeout: '1s' } } },
  });
  provider = c.provider;
});

beforeEach(async () => {
  await wire.heal();
  if (ownRedis) redis.resume();
  for (const replica of c.replicas) await replica.waitReady();
  loginsNeedRefresh(provider);
});

afterAll(async () => {
  await expectLeftClean(c);
});

/** 503, to be tried again, and the browser keeps what it has. */
function expectStoreUnavailable(answer: BrowserResponse): void {
  expect([answer.status, answer.problem]).toEqual([503, 'store-unavailable']);
  expect(Number(answer.headers['retry-after'])).toBeGreaterThanOrEqual(1);
  expect(answer.setCookies).toEqual([]);
}

const call = (client: BrowserClient, path = '/api/x', replica?: number): Promise<BrowserResponse> =>
  client.api(path, { timeout: NOT_HANGING, ...(replica === undefined ? {} : { replica }) });

/** Calls until the answer is 200; every answer before must be a 503. */
async function servedAgain(client: BrowserClient, timeout = 10_000): Promise<void> {
  await eventually(
    async () => {
      const { status, text } = await call(client);
      if (status !== 200 && status !== 503) throw new Error(`${String(status)} ${text}`);
      return status === 200;
    },
    { timeout, what: 'service to come back' },
  );
}

/** Lines of one event since the marks, a number for each replica. */
const linesSince = (marks: number[], event: string): number[] =>
  c.replicas.map((replica, i) => replica.events(event, marks[i]).length);

test('B-01 a start without Redis: alive but not ready, the API says 503, ready by itself once Redis is up', async () => {
  const late = await startRedis({ stopped: true });
  const room = await startCloakroom({ redis: late, ready: false, replicas: 1 });
  const client = room.client();
  expect((await client.fetch('/livez', { timeout: NOT_HANGING })).status).toBe(200);
  const ready = await client.fetch('/readyz', { timeout: NOT_HANGING });
  expect([ready.status, ready.json()]).toEqual([503, { status: 'unavailable' }]);
  const signedIn = await c.signedIn();
  const cookie = `${client.cookieName('session')}=${signedIn.sessionCookie?.value ?? ''}`;
  // Signed elsewhere: no session here, and no need to ask the store for that.
  expect((await client.api('/api/x', { cookie, timeout: NOT_HANGING })).status).toBe(401);
  expect((await client.navigate('/auth/login', { site: 'same-origin', timeout: NOT_HANGING })).status).toBe(
    503,
  );
  await sleep(1500);
  expect(room.first.pids).toHaveLength(1);
  await late.restart();
  await room.first.waitReady();
  expect((await (await room.signedIn()).api('/api/x')).status).toBe(200);
  expect(room.first.running).toBe(true);
  await room.logged('store_available', 1);
  expect(room.events('store_available')).toHaveLength(1);
  await expectLeftClean(room);
  await room.close();
});

// Only a Redis of the tests' own may be killed, frozen or configured; REDIS_URL may be somebody else's.
(ownRedis ? test : test.skip)(
  'B-02 Redis killed while serving: 503 and nothing else, no cookie lost, one log line per transition, everybody back',
  async () => {
    loginsLast(provider, 300);
    const clients = await inParallel(
      Array.from({ length: 20 }, (_, i) => () => c.signedIn({ user: `u${String(i)}` })),
      4,
    );
    const marks = c.replicas.map((replica) => replica.mark());
    const pids = c.replicas.map(({ pid }) => pid);
    let going = true;
    const seen: BrowserResponse[] = [];
    const load = clients.map(async (client) => {
      while (going) {
        seen.push(await call(client));
        await sleep(10);
      }
    });
    await sleep(500);
    await redis.kill();
    await sleep(500);
    const during = seen.length;
    await sleep(1500);
    for (const answer of seen.slice(during)) expectStoreUnavailable(answer);
    expect(seen.length).toBeGreaterThan(during);
    // Nothing that needs no session suffers.
    const anonymous = c.client();
    expect((await anonymous.api('/api/x', { timeout: NOT_HANGING })).status).toBe(401);
    expect((await anonymous.fetch('/livez', { timeout: NOT_HANGING })).status).toBe(200);
    expect((await anonymous.fetch('/readyz', { timeout: NOT_HANGING })).status).toBe(503);
    await redis.restart();
    await Promise.all(clients.map((client) => servedAgain(client)));
    going = false;
    await Promise.all(load);
    expect([...new Set(seen.map(({ status }) => status))].sort()).toEqual([200, 503]);
    expect(seen.filter(({ setCookies }) => setCookies.length > 0)).toEqual([]);
    // Everybody may have been served by the one that was back first.
    await eventually(() => linesSince(marks, 'store_available').every((count) => count > 0));
    expect(linesSince(marks, 'store_unavailable')).toEqual([1, 1]);
    expect(linesSince(marks, 'store_available')).toEqual([1, 1]);
    expect(c.replicas.map(({ pid }) => pid)).toEqual(pids);
    expect(c.replicas.every(({ running }) => running)).toBe(true);
  },
);

describe('B-03 Redis slow', () => {
  test('by 100 ms: everybody is served', async () => {
    loginsLast(provider, 300);
    const client = await c.signedIn();
    wire.delay(100);
    const answers = await Promise.all(Array.from({ length: 20 }, () => call(client)));
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
  });

  test('by 2 s: 503, and bodies that already flow are not touched', async () => {
    loginsLast(provider, 300);
    const client = await c.signedIn();
    const stream = await client.open('/api/sse/20/100');
    const upload = client.api('/api/slow-read/100', { method: 'POST', body: Buffer.alloc(300_000) });
    await stream.until('\n\n');
    await eventually(() => c.upstream.last?.method === 'POST', { what: 'the upload to begin' });
    wire.delay(2000);
    for (let i = 0; i < 3; i += 1) expectStoreUnavailable(await call(client));
    const events = await stream.until('"n":20');
    expect(events).toContain('"n":10');
    expect((await upload).status).toBe(200);
    await wire.heal();
    await servedAgain(client);
  });
});

describe('B-04 Redis frozen', () => {
  test.each<[string, () => void, () => Promise<void> | void]>([
    ['behind a black hole', () => wire.blackhole(), () => wire.heal()],
    ...(ownRedis
      ? ([['as a stopped process', () => redis.pause(), () => redis.resume()]] as [
          string,
          () => void,
          () => void,
        ][])
      : []),
  ])(
    '%s: 503 for all, a bounded number waits, memory stays flat, back without help',
    async (_n, freeze, thaw) => {
      loginsLast(provider, 300);
      // No more requests of each than one session may have under way.
      const people = await inParallel(
        Array.from({ length: 25 }, (_, i) => () => c.signedIn({ user: `p${String(i)}` })),
        4,
      );
      const [client = c.client()] = people;
      await call(client);
      const marks = c.replicas.map((replica) => replica.mark());
      const memory = c.replicas.map((replica) => replica.memory());
      freeze();
      // More at once than may wait. How long the last of them takes is a matter of how fast this machine sends them.
      const first = await Promise.all(
        people.flatMap((one) => Array.from({ length: 100 }, () => one.api('/api/x', { replica: 0 }))),
      );
      first.forEach(expectStoreUnavailable);
      for (let i = 0; i < 10; i += 1) {
        (await Promise.all(Array.from({ length: 100 }, () => call(client)))).forEach(expectStoreUnavailable);
      }
      expect((await c.client().fetch('/livez', { timeout: NOT_HANGING })).status).toBe(200);
      c.replicas.forEach((replica, i) => {
        expect(replica.memory() - (memory[i] ?? 0)).toBeLessThan(150 * 1024 * 1024);
      });
      await thaw();
      await servedAgain(client);
      await eventually(() => linesSince(marks, 'store_available').every((count) => count === 1));
      expect(linesSince(marks, 'store_unavailable')).toEqual([1, 1]);
    },
  );

  // Only a Redis of the tests' own may be killed, frozen or configured; REDIS_URL may be somebody else's.
  (ownRedis ? test : test.skip)(
    'just before a refresh: what Redis executes when it wakes locks nobody out',
    async () => {
      const client = await c.signedIn();
      await client.me({ replica: 0 });
      // The session is read in time; the claim is written into a connection that is given up, and read when Redis wakes.
      wire.delay(200);
      const answer = call(client, '/api/x', 0);
      await sleep(100);
      redis.pause();
      expectStoreUnavailable(await answer);
      await wire.heal();
      redis.resume();
      await servedAgain(client, 3000);
      expect(provider.ledger.count('refresh')).toBe(1);
    },
  );
});

describe('B-05 a reply lost after Redis executed the command', () => {
  test('of a claim: the same attempt finds its claim again, one spend', async () => {
    const client = await c.signedIn();
    const lost = wire.dropNextReply(scriptCall('claim'));
    await servedAgain(client);
    await lost;
    expect(provider.ledger.count('refresh')).toBe(1);
    expect(await new StoredSession(c, client).generation()).toBe(2);
  });

  test('of a claim, and Redis stays away for a second: no ghost holds the session afterwards', async () => {
    const client = await c.signedIn();
    const stored = new StoredSession(c, client);
    const lost = wire.dropNextReply(scriptCall('claim'));
    const answer = call(client, '/api/x', 0);
    await lost;
    await wire.refuse();
    expect(await stored.field('claim')).not.toBeNull();
    expect((await answer).status).toBe(503);
    await sleep(1000);
    await wire.heal();
    // Well before the claim would have run out.
    await servedAgain(client, 3000);
    expect(provider.ledger.count('refresh')).toBe(1);
  });

  test('of a commit: it is found to be done, one spend', async () => {
    const client = await c.signedIn();
    const lost = wire.dropNextReply(scriptCall('commit'));
    expect((await call(client)).status).toBe(200);
    await lost;
    expect(provider.ledger.count('refresh')).toBe(1);
    expect(await new StoredSession(c, client).generation()).toBe(2);
  });

  test('of the deletion at logout: the session is gone all the same', async () => {
    loginsLast(provider, 300);
    const client = await c.signedIn();
    const stored = new StoredSession(c, client);
    const cookie = `${client.cookieName('session')}=${client.sessionCookie?.value ?? ''}`;
    const lost = wire.dropNextReply(scriptCall('end'));
    const { post } = await client.logout({ navigate: false, cookie });
    await lost;
    expect(post.status).toBe(503);
    expect(await stored.exists()).toBe(false);
    const again = await eventually(async () => {
      const next = await client.logout({ navigate: false, cookie });
      return next.post.status === 503 ? undefined : next;
    });
    expect(again.post.status).toBe(200);
    await eventually(async () => (await client.api('/api/x', { cookie })).status === 401);
  });

  test('of the record at login: 503 without a cookie, and what was written has an end', async () => {
    const client = c.client();
    const attempt = await client.beginLogin();
    const lost = wire.dropNextReply(scriptCall('create'));
    const answer = await attempt.finish();
    await lost;
    expect(answer.status).toBe(503);
    expect(client.sessionCookie).toBeUndefined();
    await eventually(() => provider.ledger.count('revocation') === 1, { what: 'the tokens to be revoked' });
  });

  test('of a login attempt that was taken: it is not taken twice, and the way in is open', async () => {
    const client = c.client();
    const attempt = await client.beginLogin();
    const lost = wire.dropNextReply(/getdel/i);
    expect((await attempt.finish()).status).toBe(503);
    await lost;
    const again = await eventually(async () => {
      const answer = await attempt.finish();
      return answer.status === 503 ? undefined : answer;
    });
    expect(again.status).toBe(400);
    expect(provider.ledger.count('token')).toBe(0);
    await eventually(async () => (await client.login()).status === 303, { what: 'a login' });
  });
});

// Only a Redis of the tests' own may be killed, frozen or configured; REDIS_URL may be somebody else's.
(ownRedis ? test : test.skip)(
  'B-05 C.5 new tokens that wait for a lost store are stored before anybody spends the old refresh token again',
  async () => {
    const client = await c.signedIn();
    const stored = new StoredSession(c, client);
    provider.next('refresh', { onCommit: () => redis.kill() });
    const first = call(client, '/api/x', 0);
    await eventually(() => !redis.running, { what: 'Redis to be gone' });
    // Longer than the claim lasts: when Redis is back, it has run out.
    const hammer = (async () => {
      const until = Date.now() + 11_000;
      const answers: number[] = [];
      while (Date.now() < until) {
        answers.push((await call(client, '/api/x', 1)).status);
        await sleep(5);
      }
      return answers;
    })();
    await sleep(6500);
    await redis.restart();
    const answers = await hammer;
    await first;
    expect([...new Set(answers)].sort()).toEqual([200, 503]);
    expect(answers.at(-1)).toBe(200);
    expect(provider.ledger.doubleSpends).toEqual([]);
    expect(provider.ledger.count('refresh')).toBe(1);
    expect(await stored.generation()).toBe(2);
  },
);

describe('B-10 Redis refuses writes for want of memory', () => {
  const limit = (bytes: string): Promise<void> => redis.configSet('maxmemory', bytes);

  test('reads go on, no refresh token is spent in vain, an error is logged, and it heals', async () => {
    loginsLast(provider, 300);
    const valid = await c.signedIn();
    loginsNeedRefresh(provider);
    const expired = await c.signedIn();
    const marks = c.replicas.map((replica) => replica.mark());
    await limit('1');
    try {
      for (let i = 0; i < 5; i += 1) expect((await call(valid)).status).toBe(200);
      expect((await valid.me()).status).toBe(200);
      expectStoreUnavailable(await call(expired));
      expect(provider.ledger.count('refresh')).toBe(0);
      expect(c.replicas.flatMap((r, i) => r.events('store_refused', marks[i])).at(-1)).toMatchObject({
        reason: 'OOM',
        level: 'error',
      });
    } finally {
      await limit('0');
    }
    await servedAgain(expired, 3000);
    expect(provider.ledger.count('refresh')).toBe(1);
  });

  test('a login that cannot be stored: 503 without a cookie, its tokens revoked', async () => {
    const client = c.client();
    const attempt = await client.beginLogin();
    await limit('1');
    try {
      const answer = await attempt.finish();
      expect(answer.status).toBe(503);
      expect(client.sessionCookie).toBeUndefined();
      expect((await c.client().beginLogin()).response.status).toBe(503);
      await eventually(() => provider.ledger.count('revocation') === 1, { what: 'the tokens to be revoked' });
    } finally {
      await limit('0');
    }
    expect((await client.login()).status).toBe(303);
  });
});
