import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { BrowserClient, BrowserResponse } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { deliver, isAlive, logoutToken, person } from './support/logout-tokens.js';
import { sendMany } from './support/many-requests.js';
import { ownRedis } from './support/redis.js';
import { withRoutes } from './support/routes.js';

const MOST = 10;
/** Each of two replicas decides by itself, and hears of the other a moment later. */
const AT_MOST = MOST + 4;
/** What the API itself says to whoever comes without a token. */
const STRANGER = 401;

let c: Cloakroom;
let alice: BrowserClient;

beforeAll(async () => {
  const rate = { requests: MOST, per: '1m' };
  c = await startCloakroom({
    config: withRoutes(
      (upstream) => [
        { path: '/api/', upstream },
        { path: '/rated/', upstream, limits: { rate } },
        { path: '/open/', upstream, token: 'none', limits: { rate } },
        { path: '/either/', upstream, token: 'user-or-none', limits: { rate } },
      ],
      {
        rateLimits: {
          login: rate,
          callback: rate,
          backchannelLogout: { requests: MOST },
          frontchannelLogout: rate,
        },
      },
    ),
  });
  await c.replicas.reduce(async (before, replica) => {
    await before;
    await replica.waitReady();
  }, Promise.resolve());
  alice = await signedIn('192.0.2.1', 'alice');
});

afterAll(async () => {
  await expectLeftClean(c, 26 * 3600 * 1000);
});

const from = (address: string): BrowserClient =>
  c.client({ replica: 'rotate', headers: { 'x-forwarded-for': address } });

async function signedIn(address: string, user: string): Promise<BrowserClient> {
  c.provider.modes.user = user;
  const client = from(address);
  await client.login();
  return client;
}

/** One after the other, with every answer. */
async function times(count: number, what: () => Promise<BrowserResponse>): Promise<BrowserResponse[]> {
  const answers: BrowserResponse[] = [];
  for (let i = 0; i < count; i += 1) answers.push(await what());
  return answers;
}

const statuses = (answers: BrowserResponse[]): Set<number> => new Set(answers.map(({ status }) => status));

/** The first few pass and all others are told when to come back. */
function expectLimited(answers: BrowserResponse[], passed: number): BrowserResponse[] {
  const refused = answers.filter(({ status }) => status === 429);
  const through = answers.filter(({ status }) => status === passed).length;
  expect([...statuses(answers)].sort()).toEqual([passed, 429].sort());
  expect(through).toBeGreaterThanOrEqual(MOST);
  expect(through).toBeLessThanOrEqual(AT_MOST);
  for (const { headers, setCookies } of refused) {
    const wait = Number(headers['retry-after']);
    expect([wait >= 1 && wait <= 60, setCookies]).toEqual([true, []]);
  }
  return refused;
}

/** Calls of the commands that counting and storing use; none of them is made by the process on its own. */
async function commands(): Promise<Map<string, number>> {
  const stats = String(await c.redis?.command('INFO', 'commandstats'));
  const calls = [...stats.matchAll(/cmdstat_(incrby|set|getdel|hmget):calls=(\d+)/g)];
  return new Map(calls.map(([, name = '', n = '']) => [name, Number(n)]));
}

describe('A-117 logins of one address', () => {
  const login = (client: BrowserClient): Promise<BrowserResponse> =>
    client.navigate(`/auth/login?returnTo=/${'x'.repeat(2000)}`);

  test('A-117 beyond the limit, over all replicas, are 429 with Retry-After, as a page, and store nothing', async () => {
    const before = (await c.redis?.keys(`${c.prefix}:*:login`)) ?? [];
    // One browser, which the replicas serve in turns.
    const browser = from('203.0.113.1');
    const refused = expectLimited(await times(60, () => login(browser)), 303);
    for (const { headers, text } of refused) {
      expect(headers['content-type']).toMatch(/^text\/html/);
      expect(text).toContain('Too many requests');
    }
    const attempts = ((await c.redis?.keys(`${c.prefix}:*:login`)) ?? []).filter(
      (key) => !before.includes(key),
    );
    expect(attempts.length).toBeLessThanOrEqual(AT_MOST);
    const sizes = await Promise.all(attempts.map(async (key) => c.redis?.command('STRLEN', key)));
    expect(sizes.reduce<number>((sum, size) => sum + Number(size), 0)).toBeLessThan(AT_MOST * 4096);
  });

  test('A-117 are counted for the nearest address that is not a proxy of ours, whatever stands before it', async () => {
    let n = 0;
    const answers = await times(30, () => login(from(`198.51.100.${String((n += 1))}, 203.0.113.2`)));
    expectLimited(answers, 303);
  });

  test('A-117 of IPv6 are counted by the /64', async () => {
    let n = 0;
    const answers = await times(30, () => login(from(`2001:db8:0:7::${(n += 257).toString(16)}`)));
    expectLimited(answers, 303);
    expect((await login(from('2001:db8:0:8::1'))).status).toBe(303);
    expect((await login(from('2001:db8:0:7:1:2:3:4'))).status).toBe(429);
  });

  test('A-117 do not touch other addresses, nor whoever is signed in', async () => {
    expect((await login(from('203.0.113.3'))).status).toBe(303);
    expect((await alice.api('/api/x')).status).toBe(200);
  });

  test('A-117 are refused without a command to Redis, and with one line of the log a minute', async () => {
    const marks = c.replicas.map((replica) => replica.mark());
    const before = await commands();
    expect(statuses(await times(200, () => login(from('203.0.113.1'))))).toEqual(new Set([429]));
    expect(await commands()).toEqual(before);
    const lines = c.replicas.flatMap((replica, i) => replica.log.slice(marks[i]));
    expect(lines.filter(({ event }) => event === 'request_refused')).toEqual([]);
    await c.logged('rate_limited', 1);
    const told = c.events('rate_limited').filter(({ limit }) => limit === 'login');
    expect(told.length).toBeGreaterThan(0);
    expect(told.length).toBeLessThanOrEqual(c.replicas.length);
    expect(told[0]).toMatchObject({ level: 'warn', caller: '203.0.113.1' });
  });
});

test('A-117 answers of the provider that one address brings are limited', async () => {
  const refused = expectLimited(
    await times(30, () => from('203.0.113.4').navigate('/auth/callback?state=x&code=y')),
    400,
  );
  expect(refused[0]?.headers['content-type']).toMatch(/^text\/html/);
});

test('A-117 requests for the front-channel logout are limited', async () => {
  const answers = await times(30, () => from('203.0.113.5').navigate('/auth/frontchannel-logout?iss=x'));
  // Not switched on: nothing is there, and nothing is counted.
  expect(statuses(answers)).toEqual(new Set([404]));
});

describe('A-117 logout tokens', () => {
  test('A-117 that are no good are limited by address; good ones of the same address never', async () => {
    const bob = await person(c, 'bob');
    const refused = await times(40, () => deliver(c, 'not.a.token'));
    expectLimited(refused, 400);
    expect(refused.at(-1)?.problem).toBe('too-many-requests');
    expect((await deliver(c, await logoutToken(c.provider, bob))).status).toBe(200);
    expect(await isAlive(c, bob)).toBe(false);
  });

  test('A-117 thousands with keys that nobody has make a few readings of the keys for each process', async () => {
    const count = c.provider.ledger.count('jwks');
    const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
    const payload = part({ iss: c.provider.issuer });
    function* tokens(): Generator<string> {
      for (let i = 0; i < 3000; i += 1) {
        const header = part({ alg: 'RS256', typ: 'logout+jwt', kid: randomBytes(8).toString('hex') });
        const body = `logout_token=${header}.${payload}.${randomBytes(256).toString('base64url')}`;
        yield `POST /auth/backchannel-logout HTTP/1.1\r\nHost: app.example.test\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: ${String(body.length)}\r\n\r\n${body}`;
      }
    }
    const seen = new Set<number>();
    const ports = c.replicas.map(({ port }) => port);
    await sendMany(ports, tokens(), ({ status }) => seen.add(status));
    expect([...seen].filter((status) => ![400, 429].includes(status))).toEqual([]);
    expect(c.provider.ledger.count('jwks') - count).toBeLessThanOrEqual(8 * c.replicas.length);
  });
});

test('A-117 thousands of cookies with a bad signature cost no command to Redis, anywhere', async () => {
  const before = await commands();
  const paths = ['/api/x', '/rated/x', '/either/x', '/auth/me', '/auth/events', '/auth/sessions'];
  function* requests(): Generator<string> {
    for (let i = 0; i < 3000; i += 1) {
      const id = randomBytes(32).toString('base64url');
      const cookie = `__Host-cloakroom-session=s%3A${id}.${encodeURIComponent(randomBytes(32).toString('base64').slice(0, 43))}`;
      const path = paths[i % paths.length] ?? '';
      yield `GET ${path} HTTP/1.1\r\nHost: app.example.test\r\nX-Forwarded-For: 203.0.113.6\r\nX-CSRF: 1\r\nCookie: ${cookie}\r\n\r\n`;
    }
  }
  const seen = new Map<number, number>();
  const ports = c.replicas.map(({ port }) => port);
  await sendMany(ports, requests(), ({ status }) => seen.set(status, (seen.get(status) ?? 0) + 1));
  expect(await commands()).toEqual(before);
  expect([...seen.keys()]).toEqual([401]);
});

describe('A-120 limits.rate', () => {
  test('A-120 counts the requests of one session on that route over all replicas, and sends nothing of the rest on', async () => {
    c.upstream.clear();
    const answers = await times(40, () => alice.api('/rated/x'));
    const refused = expectLimited(answers, 200);
    expect(refused[0]?.problem).toBe('too-many-requests');
    expect(c.upstream.requests).toHaveLength(answers.length - refused.length);
    expect((await alice.api('/api/x')).status).toBe(200);
    expect((await alice.me()).status).toBe(200);
  });

  test('A-120 others at the same address have their own', async () => {
    const carol = await signedIn('192.0.2.1', 'carol');
    expectLimited(await times(30, () => carol.api('/rated/x')), 200);
  });

  test('A-120 counts by address where nobody is signed in, and by session where somebody is', async () => {
    expectLimited(await times(30, () => from('203.0.113.7').api('/either/x')), STRANGER);
    const dave = await signedIn('203.0.113.7', 'dave');
    expectLimited(await times(30, () => dave.api('/either/x')), 200);
    expectLimited(await times(30, () => from('203.0.113.8').api('/open/x')), STRANGER);
    expect((await from('203.0.113.9').api('/open/x')).status).toBe(STRANGER);
  });

  test('A-120 tells nobody to wait who must sign in first', async () => {
    expect(statuses(await times(30, () => from('203.0.113.10').api('/rated/x')))).toEqual(new Set([401]));
  });

  test('A-120 a route without one counts nothing', async () => {
    const before = await commands();
    await times(50, () => alice.api('/api/x'));
    expect((await commands()).get('incrby')).toBe(before.get('incrby'));
  });

  test('A-120 the counts in Redis are gone when their time is over', async () => {
    const keys = (await c.redis?.keys(`${c.prefix}:*:rate`)) ?? [];
    expect(keys.length).toBeGreaterThan(5);
    const left = await Promise.all(keys.map(async (key) => c.redis?.command('PTTL', key)));
    for (const ttl of left) expect(Number(ttl)).toBeGreaterThan(-1);
    for (const ttl of left) expect(Number(ttl)).toBeLessThanOrEqual(60_000);
  });

  // Only a Redis of the tests' own may be frozen.
  (ownRedis ? test : test.skip)(
    'A-120 while Redis hangs each replica counts alone, and nobody waits',
    async () => {
      c.redis?.pause();
      try {
        const begun = performance.now();
        const alone = c.client({ replica: 0, headers: { 'x-forwarded-for': '203.0.113.11' } });
        const answers = await times(30, () => alone.api('/open/x'));
        expectLimited(answers, STRANGER);
        // Thirty waits for Redis would be half a minute.
        expect(performance.now() - begun).toBeLessThan(5000);
      } finally {
        c.redis?.resume();
      }
      await eventually(async () => (await alice.api('/api/x')).status === 200, { timeout: 10_000 });
    },
  );
});

test('A-117 one process with its sessions in memory counts as well, and nothing where a limit is off', async () => {
  const single = await startCloakroom({
    redis: 'memory',
    config: { rateLimits: { login: 'off', callback: { requests: MOST } } },
  });
  const logins = await times(40, () => single.client().navigate('/auth/login'));
  expect(statuses(logins)).toEqual(new Set([303]));
  expectLimited(await times(30, () => single.client().navigate('/auth/callback?state=x')), 400);
});
