import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { faults } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { ownRedis, startRedis, startRedisProxy, type RedisProxy } from './support/redis.js';
import { sendRaw } from './support/raw.js';

let c: Cloakroom;
let proxy: RedisProxy;

beforeAll(async () => {
  proxy = await startRedisProxy(await startRedis());
  c = await startCloakroom({ replicas: 2, redis: proxy });
});

afterAll(async () => {
  await expectLeftClean(c);
});

const ask = async (path: string, replica = 0): Promise<{ status: number; text: string }> => {
  const { status, text } = await c.client().fetch(path, { replica });
  return { status, text };
};

const OK = { status: 200, text: '{"status":"ok"}' };
const UNAVAILABLE = { status: 503, text: '{"status":"unavailable"}' };

/** Commands that Redis has run, besides this question. */
async function commandsRun(): Promise<number> {
  const stats = String(await c.redis?.command('INFO', 'commandstats'));
  return [...stats.matchAll(/cmdstat_(\w+):calls=(\d+)/g)]
    .filter(([, name]) => name !== 'info')
    .reduce((sum, [, , calls]) => sum + Number(calls), 0);
}

describe('A-114 livez', () => {
  test('A-114 touches neither Redis nor the provider', async () => {
    const before = await commandsRun();
    const connections = proxy.stats.connections;
    const hits = c.provider.ledger.hits.length;
    for (let n = 0; n < 1000; n += 1) expect(await ask('/livez', n % 2)).toEqual(OK);
    // Processes ask a handful of things a second by themselves.
    expect((await commandsRun()) - before).toBeLessThan(500);
    // The connection for slow work is made when it is needed first.
    expect(proxy.stats.connections - connections).toBeLessThanOrEqual(c.replicas.length);
    expect(c.provider.ledger.hits).toHaveLength(hits);
  });

  test('A-114 is 200 while Redis and the provider are gone, and readyz is not', async () => {
    for (const outage of ['blackhole', 'refuse'] as const) {
      if (outage === 'blackhole') proxy.blackhole();
      else await proxy.refuse();
      c.provider.always('discovery', { ...faults.serverError });
      for (const replica of [0, 1]) {
        for (let n = 0; n < 10; n += 1) expect(await ask('/livez', replica)).toEqual(OK);
        expect(await ask('/readyz', replica)).toEqual(UNAVAILABLE);
        expect(await ask('/livez', replica)).toEqual(OK);
      }
      c.provider.always('discovery', undefined);
      await proxy.heal();
      for (const replica of [0, 1]) {
        await eventually(async () => (await ask('/readyz', replica)).status === 200, { timeout: 20_000 });
      }
    }
    expect(c.replicas.map((replica) => replica.pids.length)).toEqual([1, 1]);
  });
});

describe('A-114 readyz', () => {
  test('A-114 asks Redis', async () => {
    const before = await commandsRun();
    for (let n = 0; n < 200; n += 1) expect(await ask('/readyz')).toEqual(OK);
    expect((await commandsRun()) - before).toBeGreaterThanOrEqual(200);
  });

  // Only a Redis of the tests' own may be killed, frozen or configured; REDIS_URL may be somebody else's.
  (ownRedis ? test : test.skip)(
    'A-114 says so within its time when Redis stops answering, and again when it answers',
    async () => {
      c.redis?.pause();
      try {
        for (const replica of [0, 1]) expect(await ask('/readyz', replica)).toEqual(UNAVAILABLE);
      } finally {
        c.redis?.resume();
      }
      for (const replica of [0, 1]) {
        await eventually(async () => (await ask('/readyz', replica)).status === 200, { timeout: 20_000 });
      }
    },
  );

  test('A-114 with the provider down from the start: degraded, in rotation, and ok once it is there', async () => {
    await c.provider.stop();
    const late = await startCloakroom({
      replicas: 1,
      provider: c.provider,
      upstream: c.upstream,
      redis: proxy,
      prefix: `${c.prefix}-late`,
      ready: false,
    });
    const status = async (): Promise<unknown> => {
      const answer = await late.client().fetch('/readyz');
      return [answer.status, answer.text];
    };
    await eventually(
      async () => JSON.stringify(await status()) === JSON.stringify([200, '{"status":"degraded"}']),
    );
    expect(await late.client().fetch('/livez')).toMatchObject({ status: 200 });
    await c.provider.start();
    await eventually(
      async () => JSON.stringify(await status()) === JSON.stringify([200, '{"status":"ok"}']),
      {
        timeout: 20_000,
      },
    );
    await late.close();
  });
});

describe('A-114 strangers', () => {
  test('A-114 learn one word, whatever they send, and no version, address or reason', async () => {
    await proxy.refuse();
    const answers = [await c.client().fetch('/readyz?verbose=1'), await c.client().fetch('/livez?full=true')];
    await proxy.heal();
    for (const answer of answers) {
      expect(Object.keys(answer.json())).toEqual(['status']);
      expect(answer.headers['cache-control']).toBe('no-store');
      expect(answer.setCookies).toEqual([]);
      const head = answer.rawHeaders.filter((_, at) => at % 2 === 0).map((name) => name.toLowerCase());
      for (const name of ['server', 'x-powered-by', 'via', 'etag']) expect(head).not.toContain(name);
    }
    await eventually(async () => (await ask('/readyz')).status === 200, { timeout: 20_000 });
  });

  test('A-114 no User-Agent, header or spelling of a path makes a request skip the session', async () => {
    const agents = [
      'kube-probe/1.30',
      'GoogleHC/1.0',
      'ELB-HealthChecker/2.0',
      'Consul Health Check',
      'Prometheus/2',
      'HAProxy',
    ];
    const lines = [
      ...agents.map((agent) => `User-Agent: ${agent}`),
      'X-Health-Check: 1',
      'X-Forwarded-For: 127.0.0.1',
      'X-Original-URL: /livez',
      'X-Rewrite-URL: /livez',
      'Referer: https://app.example.test/livez',
    ];
    const targets = [
      '/api/x',
      '/api/livez',
      '/api/readyz',
      '/api/health',
      '/api/x?/livez',
      '/api/ping',
      '/api/auth/login',
    ];
    c.upstream.clear();
    for (const target of targets) {
      for (const line of ['Accept: */*', ...lines]) {
        const { responses } = await sendRaw(
          c.next().clientPort,
          `GET ${target} HTTP/1.1\r\nHost: app.example.test\r\nX-CSRF: 1\r\n${line}\r\n\r\n`,
          { answers: 1 },
        );
        expect([target, line, responses[0]?.status]).toEqual([target, line, 401]);
      }
    }
    for (const path of ['/livez/../api/x', '/livez/..;/api/x', '/livez%2f..%2fapi%2fx', '//livez/../api/x']) {
      expect([path, (await c.client().fetch(path)).status]).toEqual([path, 400]);
    }
    for (const path of ['/LIVEZ', '/livez/', '/livez/x', '/healthz', '/metrics', '/status', '/readyz/x']) {
      expect([path, (await c.client().fetch(path)).status]).toEqual([path, 404]);
    }
    expect(c.upstream.requests).toHaveLength(0);
  });

  test('A-114 may only look: other methods are not served', async () => {
    for (const path of ['/livez', '/readyz']) {
      for (const method of ['POST', 'PUT', 'DELETE', 'PATCH']) {
        const { status } = await c.client().fetch(path, { method, body: '' });
        expect([method, path, status]).toEqual([method, path, 404]);
      }
      expect((await c.client().fetch(path, { method: 'HEAD' })).body).toHaveLength(0);
    }
  });
});
