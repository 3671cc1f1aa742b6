import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { faults, startProvider, type Behaviour, type Json } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { ownRedis, startRedis, startRedisProxy, type RedisProxy } from './support/redis.js';
import { startSink } from './support/upstream.js';

const sessions = (c: Cloakroom): Promise<string[]> =>
  c.redis?.keys(`${c.prefix}:*:session`) ?? Promise.resolve([]);

describe('what the token endpoint answers', () => {
  let c: Cloakroom;

  beforeAll(async () => {
    c = await startCloakroom({
      replicas: 2,
      config: { providers: { main: { accessTokenLifetime: '1s' } } },
    });
  });

  beforeEach(async () => {
    c.provider.reset();
    c.provider.ledger.resetCounts();
    await c.redis?.clear();
  });

  afterAll(async () => {
    await expectLeftClean(c);
  });

  const answering = (changes: Json): Behaviour => ({ mutate: (answer) => ({ ...answer, ...changes }) });

  test.each<[string, Behaviour]>([
    ['token_type Bearer', answering({ token_type: 'Bearer' })],
    ['token_type bearer', answering({ token_type: 'bearer' })],
    ['token_type BEARER', answering({ token_type: 'BEARER' })],
    ['token_type bEaReR', answering({ token_type: 'bEaReR' })],
    ['no scope', answering({ scope: undefined })],
    ['an empty scope', answering({ scope: '' })],
    ['no refresh_token', answering({ refresh_token: undefined })],
    ['an empty refresh_token', answering({ refresh_token: '' })],
    ['refresh_token null', answering({ refresh_token: null })],
    ['a short life', answering({ expires_in: 30 })],
    ['a life with a fraction', answering({ expires_in: 300.5 })],
    ['a life of a year', answering({ expires_in: 31_536_000 })],
    [
      'further members',
      answering({
        ext_expires_in: -1,
        foo: { bar: [1, 2] },
        error_description: 'x',
        not_before: 0,
        toString: 'x',
      }),
    ],
    ['a Set-Cookie', { headers: { 'set-cookie': 'provider=1; Path=/' } }],
    ['another charset', { headers: { 'content-type': 'application/json; charset=UTF-8' } }],
  ])('A-025 %s: accepted', async (_, behaviour) => {
    c.provider.next('token', behaviour);
    const client = c.client();
    const answer = await client.login({ returnTo: '/in' });
    expect([answer.status, answer.location]).toEqual([303, '/in']);
    expect(answer.setCookies.filter((line) => line.startsWith('provider'))).toEqual([]);
    expect((await client.api('/api/x')).status).toBe(200);
  });

  test.each<[string, Json]>([
    ['no expires_in', { expires_in: undefined }],
    ['expires_in null', { expires_in: null }],
    ['an empty expires_in', { expires_in: '' }],
  ])('A-025 %s: the configured lifetime counts', async (_, changes) => {
    c.provider.next('token', answering(changes));
    const client = c.client();
    expect((await client.login()).status).toBe(303);
    const first = await client.api('/api/x');
    expect(first.status).toBe(200);
    await eventually(
      async () => {
        await client.api('/api/x');
        return c.provider.ledger.count('refresh') > 0;
      },
      { what: 'a refresh after the configured second' },
    );
  });

  const refused: Array<[string, Behaviour]> = [
    ['no token_type', answering({ token_type: undefined })],
    ['token_type mac', answering({ token_type: 'mac' })],
    ['token_type DPoP', answering({ token_type: 'DPoP' })],
    ['token_type N_A', answering({ token_type: 'N_A' })],
    ['token_type with a space', answering({ token_type: 'Bearer ' })],
    ['token_type 5', answering({ token_type: 5 })],
    ['token_type in a list', answering({ token_type: ['Bearer'] })],
    ['expires_in -1', answering({ expires_in: -1 })],
    ['expires_in 0', answering({ expires_in: 0 })],
    ['expires_in 1e12', answering({ expires_in: 1e12 })],
    ['expires_in "300"', answering({ expires_in: '300' })],
    ['expires_in "soon"', answering({ expires_in: 'soon' })],
    ['expires_in true', answering({ expires_in: true })],
    ['expires_in in a list', answering({ expires_in: [300] })],
    ['no access_token', answering({ access_token: undefined })],
    ['an empty access_token', answering({ access_token: '' })],
    ['access_token null', answering({ access_token: null })],
    ['access_token 5', answering({ access_token: 5 })],
    ['a refresh_token that is no text', answering({ refresh_token: { a: 1 } })],
    ['2 MiB', faults.hugeBody],
    ['half of the JSON and the rest of it missing', { body: '{"access_token":"x","token_type":"Bearer"' }],
    ['an HTML page with 200', faults.html],
    ['an HTML page that says it is JSON', { body: '<p>', headers: { 'content-type': 'application/json' } }],
    ['an empty body', { status: 200, body: '' }],
    ['a list', { body: '[]' }],
    ['null', { body: 'null' }],
    ['a text', { body: '"token"' }],
    ['a number', { body: '5' }],
    ['JSON nested 100 000 deep', { body: `${'['.repeat(100_000)}${']'.repeat(100_000)}` }],
    ['a gzip bomb', { gzipBomb: 50 * 1024 * 1024 }],
    ['204', { status: 204, body: '' }],
    ['201', { status: 201, body: '{}' }],
  ];

  test.each(refused)('A-025 %s: 502 and no session', async (_, behaviour) => {
    c.provider.next('token', behaviour);
    const client = c.client();
    const answer = await client.login();
    expect(answer.status).toBe(502);
    expect(answer.headers['content-type']).toMatch(/^text\/html/);
    expect(client.sessionCookie).toBeUndefined();
    expect(await sessions(c)).toEqual([]);
    // A provider that answers, however strangely, is not one that is down.
    expect((await client.login()).status).toBe(303);
  });

  test('A-025 no id_token: refused as a login that proves nobody', async () => {
    c.provider.next('token', answering({ id_token: undefined }));
    const client = c.client();
    const answer = await client.login();
    expect([400, 502]).toContain(answer.status);
    expect(await sessions(c)).toEqual([]);
    await c.waitForEvent('id_token_rejected', (line) => line['reason'] === 'missing');
  });

  test.each([301, 302, 303, 307, 308])('A-025 a redirect %i: 502, and not followed', async (status) => {
    const sink = await startSink();
    c.provider.next('token', { redirect: `${sink.url}/token`, status });
    const client = c.client();
    expect((await client.login()).status).toBe(502);
    expect(sink.connections).toBe(0);
    expect(await sessions(c)).toEqual([]);
  });

  test('A-025 a redirect to the provider itself is not followed either', async () => {
    c.provider.next('token', { redirect: `${c.provider.issuer}/token`, status: 307 });
    expect((await c.client().login()).status).toBe(502);
    expect(c.provider.ledger.count('token')).toBe(1);
  });

  test.each<[string, Behaviour]>([
    ['500', faults.serverError],
    ['502 with HTML', faults.badGateway],
    ['a reset', faults.reset],
    ['half an answer', faults.halfJson],
  ])('A-025 %s: 503 with Retry-After, and no session', async (_, behaviour) => {
    c.provider.next('token', behaviour);
    const client = c.client();
    const answer = await client.login();
    expect(answer.status).toBe(503);
    expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0);
    expect(client.sessionCookie).toBeUndefined();
    expect(await sessions(c)).toEqual([]);
    expect((await client.login()).status).toBe(303);
  });
});

// Only a Redis of the tests' own may be killed, frozen or configured; REDIS_URL may be somebody else's.
(ownRedis ? describe : describe.skip)('exchange, verify, store, confirm, answer', () => {
  let c: Cloakroom;
  let proxy: RedisProxy;

  beforeAll(async () => {
    proxy = await startRedisProxy(await startRedis());
    const provider = await startProvider();
    c = await startCloakroom({ replicas: 2, redis: proxy, provider });
  });

  beforeEach(async () => {
    c.provider.reset();
    c.provider.ledger.resetCounts();
    await c.redis?.clear();
  });

  afterAll(async () => {
    await expectLeftClean(c);
  });

  /** A login whose session cannot be stored because of what `fault` does between the exchange and the store. */
  async function failedStore(fault: () => unknown, heal: () => Promise<unknown>): Promise<void> {
    const client = c.client({ replica: 0 });
    const attempt = await client.beginLogin();
    await attempt.authorize();
    c.provider.next('token', {
      onCommit: () => {
        fault();
      },
    });
    const answer = await attempt.finish();
    await heal();
    expect(answer.status).toBe(503);
    expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0);
    expect(answer.setCookies).toEqual([]);
    expect(answer.location).toBeUndefined();
    expect(client.sessionCookie).toBeUndefined();
    await eventually(() => c.provider.ledger.liveRefreshTokens().length === 0, {
      what: 'the refresh token to be revoked',
    });
    expect(c.provider.ledger.hitsOf('revocation')[0]?.params.get('token_type_hint')).toBe('refresh_token');

    await c.first.waitReady();
    expect((await attempt.finish()).status).toBe(400);
    expect(c.provider.ledger.count('token')).toBe(1);
    expect((await client.login()).status).toBe(303);
    expect((await client.me()).status).toBe(200);
    await client.logout({ navigate: false });
  }

  test('A-022 Redis refuses the write for want of memory: 503, no cookie, attempt used up, token revoked', async () => {
    let setting: Promise<void> | undefined;
    await failedStore(
      () => (setting = c.redis?.configSet('maxmemory', '1')),
      async () => {
        await setting;
        await c.redis?.configSet('maxmemory', '0');
      },
    );
  });

  test('A-022 the write’s confirmation is lost: the same', async () => {
    let dropped: Promise<string> | undefined;
    await failedStore(
      () => (dropped = proxy.dropNextReply(/eval(?:sha)?[\s\S]*:session/i)),
      async () => {
        expect(await dropped).toContain(':session');
        await proxy.heal();
      },
    );
  });

  test('A-022 Redis falls silent: the same', async () => {
    await failedStore(
      () => {
        proxy.blackhole();
      },
      async () => {
        await proxy.heal();
      },
    );
  });

  test('A-022 the connection to Redis is cut: the same', async () => {
    let refusing: Promise<void> | undefined;
    await failedStore(
      () => (refusing = proxy.refuse()),
      async () => {
        await refusing;
        await proxy.heal();
      },
    );
  });

  test('A-022 a login cannot begin without the store: 503, no redirect, no cookie', async () => {
    await c.redis?.configSet('maxmemory', '1');
    try {
      const answer = await c.client().navigate('/auth/login');
      expect(answer.status).toBe(503);
      expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0);
      expect([answer.location, answer.setCookies]).toEqual([undefined, []]);
    } finally {
      await c.redis?.configSet('maxmemory', '0');
    }
  });
});
