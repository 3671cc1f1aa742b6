import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { inParallel, type BrowserClient, type BrowserResponse } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import type { Behaviour, FaultProvider, RefusalShape } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';
import { loginsLast, loginsNeedRefresh } from './support/over-at-once.js';
import { startRedis, startRedisProxy, type RedisProxy } from './support/redis.js';
import { StoredSession } from './support/stored-session.js';
import type { Echo } from './support/upstream.js';

const REPLICAS = 3;

let c: Cloakroom;
let provider: FaultProvider;
let wire: RedisProxy;

beforeAll(async () => {
  wire = await startRedisProxy(await startRedis());
  // What is tested here is the refresh; a test machine under load must not run into the store's time limit instead.
  c = await startCloakroom({
    replicas: REPLICAS,
    redis: wire,
    config: { store: { redis: { commandTimeout: '2s' } } },
  });
  provider = c.provider;
});

beforeEach(async () => {
  await wire.heal();
  loginsNeedRefresh(provider);
});

afterAll(async () => {
  await expectLeftClean(c);
});

function callAtOnce(client: BrowserClient, count: number): Promise<BrowserResponse[]> {
  return inParallel(
    Array.from({ length: count }, (_, i) => () => client.api('/api/x', { replica: i % REPLICAS })),
  );
}

function statuses(answers: BrowserResponse[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { status } of answers) counts[status] = (counts[status] ?? 0) + 1;
  return counts;
}

const refreshTokens = (): (string | null)[] =>
  provider.ledger.hitsOf('refresh').map((hit) => hit.params.get('refresh_token'));

test.each([0, 100, 1000, 3000])(
  'A-071 A-073 requests on an expired token at three replicas cause one refresh, with a provider that takes %i ms',
  async (delay) => {
    const client = await c.signedIn({ user: 'alice' });
    provider.always('refresh', { delay });
    const answers = await callAtOnce(client, 90);
    expect(statuses(answers)).toEqual({ 200: 90 });
    expect(answers.every((answer) => answer.json<Echo>().user === 'alice')).toBe(true);
    expect(provider.ledger.count('refresh')).toBe(1);
    expect(await new StoredSession(c, client).generation()).toBe(2);
  },
);

test('A-072 whoever waited for a refresh elsewhere spends no refresh token it read before', async () => {
  const client = await c.signedIn();
  provider.always('refresh', { delay: 50, mutate: (answer) => ({ ...answer, expires_in: 0.2 }) });
  // Tokens that are over again and again, and a hand-over from one replica to the next each time.
  const until = Date.now() + 4000;
  const answers: BrowserResponse[] = [];
  await Promise.all(
    Array.from({ length: REPLICAS * 4 }, async (_, i) => {
      while (Date.now() < until) answers.push(await client.api('/api/x', { replica: i % REPLICAS }));
    }),
  );
  expect(statuses(answers)).toEqual({ 200: answers.length });
  // The last answers may have left while a refresh in the background was still under way.
  const stored = new StoredSession(c, client);
  await eventually(async () => (await stored.generation()) === refreshTokens().length + 1);
  const spent = refreshTokens();
  expect(spent.length).toBeGreaterThan(5);
  expect(new Set(spent).size).toBe(spent.length);
  expect(provider.ledger.doubleSpends).toEqual([]);
});

describe('A-074 an answer that leaves members out', () => {
  const without =
    (...names: string[]) =>
    (answer: Record<string, unknown>): Record<string, unknown> =>
      Object.fromEntries(Object.entries(answer).filter(([name]) => !names.includes(name)));

  test.each<[string, NonNullable<Behaviour['mutate']>]>([
    ['no refresh_token', without('refresh_token')],
    ['an empty refresh_token', (answer) => ({ ...answer, refresh_token: '' })],
    ['a refresh_token of null', (answer) => ({ ...answer, refresh_token: null })],
    ['no id_token and no scope', without('id_token', 'scope')],
    ['nothing but the access token', without('refresh_token', 'id_token', 'scope', 'expires_in')],
  ])('keeps what the session had: %s', async (_name, mutate) => {
    provider.modes.rotation = 'none';
    const client = await c.signedIn();
    const stored = new StoredSession(c, client);
    const before = await stored.contents();
    provider.next('refresh', { mutate });
    expect((await client.api('/api/x')).status).toBe(200);
    const after = await stored.contents();
    expect(after.tokens.accessToken).not.toBe(before.tokens.accessToken);
    expect(after.tokens.refreshToken).toBe(before.tokens.refreshToken);
    expect(after.tokens.scope).toBe(before.tokens.scope);
    expect(after.subject).toBe(before.subject);
    expect(after.idToken.split('.')).toHaveLength(3);
    expect(after.tokens.expiresAt).toBeGreaterThan(Date.now() + 60_000);
  });

  test('and a rotated refresh token replaces the old one', async () => {
    const client = await c.signedIn();
    const stored = new StoredSession(c, client);
    const { tokens } = await stored.contents();
    await client.api('/api/x');
    const after = await stored.contents();
    expect(after.tokens.refreshToken).not.toBe(tokens.refreshToken);
    expect(provider.ledger.liveRefreshTokens().map(({ token }) => token)).toContain(
      after.tokens.refreshToken,
    );
    expect(after.idToken).not.toBe('');
  });
});

describe('A-075 the order on success', () => {
  test('no request goes out with a new token before the store has confirmed it', async () => {
    const client = await c.signedIn();
    const stored = new StoredSession(c, client);
    c.upstream.clear();
    provider.next('refresh', {
      onCommit: () => {
        wire.blackhole();
      },
    });
    const answer = client.api('/api/x', { replica: 0 });
    await eventually(() => provider.ledger.hitsOf('refresh')[0]?.endedAt, { what: 'the refresh' });
    await sleep(1000);
    expect(await stored.generation()).toBe(1);
    expect(c.upstream.requests).toHaveLength(0);
    await wire.heal();
    expect((await answer).status).toBe(200);
    expect(await stored.generation()).toBe(2);
    expect(provider.ledger.count('refresh')).toBe(1);
    expect(provider.ledger.validAccessToken(c.upstream.last?.bearer ?? '')).toBeDefined();
  });

  test.each([0, 1, 5, 11, 40])(
    'a connection to the store that breaks %i bytes into the next reply after the refresh loses nothing',
    async (bytes) => {
      const client = await c.signedIn();
      provider.next('refresh', {
        onCommit: () => {
          if (bytes === 0) wire.cutAll();
          else wire.cutAfter(bytes);
        },
      });
      const answer = await client.api('/api/x', { replica: 1 });
      expect(answer.status).toBe(200);
      await eventually(async () => (await client.api('/api/x', { replica: 2 })).status === 200);
      expect(provider.ledger.count('refresh')).toBe(1);
      expect(await new StoredSession(c, client).generation()).toBe(2);
    },
  );

  test('a process that is told to stop stores what it fetched before it ends', async () => {
    const client = await c.signedIn();
    provider.always('refresh', { delayAfter: 1000 });
    const answer = client.api('/api/x', { replica: 2 }).catch(() => undefined);
    await eventually(() => provider.ledger.count('refresh') === 1);
    expect(await c.replica(2).stop()).toBe(0);
    await answer;
    expect(await new StoredSession(c, client).generation()).toBe(2);
    await c.replica(2).start();
    expect((await client.api('/api/x', { replica: 2 })).status).toBe(200);
    expect(provider.ledger.doubleSpends).toEqual([]);
  });
});

describe('A-076 a refusal', () => {
  test.each<RefusalShape>(['400', '403', '401-non-oauth', '401-empty', '400-empty', '400-html'])(
    'in the shape %s ends the session: 401, record gone, cookie taken away, a line in the log',
    async (refusal) => {
      const client = await c.signedIn();
      const stored = new StoredSession(c, client);
      const { handle } = stored;
      provider.modes.refusal = refusal;
      provider.revokeEverything();
      const answer = await client.api('/api/x');
      expect([answer.status, answer.problem]).toEqual([401, 'session-ended']);
      expect(answer.json()).toMatchObject({ reason: 'refresh-refused', loginUrl: '/auth/login' });
      expect(client.sessionCookie).toBeUndefined();
      expect(await stored.exists()).toBe(false);
      const line = await c.waitForEvent('session_ended', (event) => event['handle'] === handle);
      expect(line['cause']).toBe('refresh-refused');
    },
  );

  test('while others wait for it elsewhere: all 401, the provider asked once', async () => {
    const client = await c.signedIn();
    provider.revokeEverything();
    provider.always('refresh', { delay: 500 });
    const cookie = `${client.cookieName('session')}=${client.sessionCookie?.value ?? ''}`;
    const answers = await inParallel(
      Array.from({ length: 30 }, (_, i) => () => client.api('/api/x', { replica: i % REPLICAS, cookie })),
    );
    expect(statuses(answers)).toEqual({ 401: 30 });
    expect(provider.ledger.count('refresh')).toBe(1);
  });

  test('of a background renewal ends the session too; the request that caused it is still served', async () => {
    loginsLast(provider, 12);
    const client = await c.signedIn();
    const stored = new StoredSession(c, client);
    provider.revokeEverything();
    const { refreshAt } = (await stored.contents()).tokens;
    // The upstream must not mind a token of a dead grant.
    c.upstream.identify = undefined;
    const served: number[] = [];
    await eventually(
      async () => {
        const { status } = await client.api('/api/x');
        served.push(status);
        return status === 401;
      },
      { timeout: 15_000, interval: 200, what: 'the end of the session' },
    );
    c.upstream.identify = (bearer) => provider.ledger.validAccessToken(bearer)?.sub;
    expect(Date.now()).toBeGreaterThanOrEqual(refreshAt);
    expect(new Set(served.slice(0, -1))).toEqual(new Set([200]));
    expect(await stored.exists()).toBe(false);
  });
});
