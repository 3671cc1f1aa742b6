import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { inParallel, type BrowserClient, type BrowserResponse } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { faults, type FaultProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';
import { loginsLast, loginsNeedRefresh } from './support/over-at-once.js';
import { startRedis, startRedisProxy, type RedisProxy } from './support/redis.js';
import { StoredSession } from './support/stored-session.js';

/** Milliseconds. So short that a claim runs out while a test can wait for it. */
const TIMEOUT = 1000;
/** Longer than any claim, and the time it is left to its holder afterwards. */
const CLAIM_IS_OVER = 2000 + TIMEOUT + 1000 + 1000 + 2000;

let wire: RedisProxy;
let c: Cloakroom;
let provider: FaultProvider;

async function start(rotation: unknown, timeout = `${String(TIMEOUT)}ms`): Promise<void> {
  wire = await startRedisProxy(await startRedis());
  c = await startCloakroom({
    redis: wire,
    config: {
      providers: { main: { timeout, metadataTimeout: '1s', rotation } },
      store: { redis: { commandTimeout: '1s' } },
    },
  });
  provider = c.provider;
}

async function stop(): Promise<void> {
  await wire.heal();
  await expectLeftClean(c);
  await c.close();
}

/** Two replicas, one of which is stopped or killed at a bad moment. */
const FIRST = 0;
const SECOND = 1;

const call = (client: BrowserClient, replica: number): Promise<BrowserResponse> =>
  client.api('/api/x', { replica, timeout: 25_000 });

/** Asks one replica until it serves; before that there may be 503 alone. */
async function servedBy(client: BrowserClient, replica: number, timeout = 20_000): Promise<void> {
  await eventually(
    async () => {
      const { status, text } = await call(client, replica);
      if (status !== 200 && status !== 503) throw new Error(`${String(status)} ${text}`);
      return status === 200;
    },
    { timeout, interval: 100, what: `replica ${String(replica)} to serve` },
  );
}

describe('with strict rotation', () => {
  beforeAll(() => start('strict'));
  afterAll(stop);
  afterEach(async () => {
    await wire.heal();
    c.replicas.forEach((replica) => {
      replica.resume();
    });
  });

  test('A-073 a process that is stopped between claim and sending does not send when it goes on', async () => {
    loginsNeedRefresh(provider);
    const client = await c.signedIn();
    const stored = new StoredSession(c, client);
    await client.me({ replica: FIRST });
    wire.delay(400);
    const first = call(client, FIRST);
    await eventually(() => stored.field('claim'), { interval: 2, what: 'the claim' });
    c.replica(FIRST).pause();
    await wire.heal();
    await sleep(3000);
    c.replica(FIRST).resume();
    expect([200, 503]).toContain((await first).status);
    expect(provider.ledger.count('refresh')).toBe(0);
    // And it gave the claim back.
    await servedBy(client, SECOND);
    expect(provider.ledger.count('refresh')).toBe(1);
  });

  test('A-072 A-073 nor when somebody else has taken the claim over: one spend', async () => {
    loginsNeedRefresh(provider);
    const client = await c.signedIn();
    const stored = new StoredSession(c, client);
    await client.me({ replica: FIRST });
    wire.delay(400);
    const first = call(client, FIRST);
    await eventually(() => stored.field('claim'), { interval: 2, what: 'the claim' });
    c.replica(FIRST).pause();
    await wire.heal();
    await servedBy(client, SECOND);
    c.replica(FIRST).resume();
    expect([200, 503]).toContain((await first).status);
    await servedBy(client, FIRST);
    expect(provider.ledger.count('refresh')).toBe(1);
    expect(provider.ledger.doubleSpends).toEqual([]);
    expect(await stored.generation()).toBe(2);
  });

  test('C.5 a process killed before the provider spent the token: the other replica takes over after the claim', async () => {
    loginsNeedRefresh(provider);
    const client = await c.signedIn();
    provider.next('refresh', faults.hang);
    const first = call(client, FIRST).catch(() => undefined);
    await eventually(() => provider.ledger.count('refresh') === 1);
    await c.replica(FIRST).crash();
    await first;
    await servedBy(client, SECOND);
    expect(provider.ledger.count('refresh')).toBe(2);
    await c.replica(FIRST).start();
  });

  test('C.5 a lost answer is not asked for again while the old access token is good; then the session is told to be lost', async () => {
    // The token is over after 10 s; the first try fails after 8 s at the latest.
    loginsLast(provider, 10);
    const client = await c.signedIn();
    const stored = new StoredSession(c, client);
    const { refreshAt, expiresAt } = (await stored.contents()).tokens;
    provider.next('refresh', faults.resetAfterCommit);
    await sleep(refreshAt - Date.now());
    expect((await call(client, FIRST)).status).toBe(200);
    await eventually(() => c.events('refresh_failed').length > 0, { what: 'the refresh to fail' });
    // The grant is still alive at the provider: a second use now would kill it and the good access token with it.
    while (Date.now() < expiresAt - 1000) {
      const { status } = await call(client, Date.now() % 2);
      if (Date.now() < expiresAt - 1000) expect(status).toBe(200);
      await sleep(50);
    }
    expect(provider.ledger.doubleSpends).toEqual([]);
    await sleep(expiresAt - Date.now() + 100);
    // Not before the pause after the failure is over, either.
    const answer = await eventually(
      async () => {
        const last = await call(client, SECOND);
        return last.status === 503 ? undefined : last;
      },
      { timeout: 10_000, interval: 100 },
    );
    expect([answer.status, answer.problem]).toEqual([401, 'session-ended']);
    expect(answer.json()).toMatchObject({ reason: 'refresh-lost', silent: true });
    expect(await stored.exists()).toBe(false);
  });

  test('A-073 an answer that comes after the time limit is not waited for; if nothing was spent the session goes on', async () => {
    loginsNeedRefresh(provider);
    const client = await c.signedIn();
    provider.next('refresh', { ...faults.invalidGrant, delay: 3 * TIMEOUT });
    expect((await call(client, FIRST)).status).toBe(503);
    await servedBy(client, SECOND);
    expect(provider.ledger.count('refresh')).toBe(2);
    await sleep(2 * TIMEOUT);
    await servedBy(client, FIRST);
  });
});

describe('with a provider that takes a refresh token twice', () => {
  beforeAll(() => start({ leeway: '60s' }));
  afterAll(stop);
  const rotation = { rotation: { leeway: 60_000 } };

  test('C.5 a process killed after the token was spent: the other replica asks again within the leeway', async () => {
    loginsNeedRefresh(provider, rotation);
    const client = await c.signedIn();
    provider.next('refresh', { delayAfter: 15_000, onCommit: () => c.replica(FIRST).crash() });
    await call(client, FIRST).catch(() => undefined);
    await servedBy(client, SECOND);
    expect(provider.ledger.doubleSpends).toMatchObject([{ accepted: true }]);
    await c.replica(FIRST).start();
    await servedBy(client, FIRST);
    expect(await new StoredSession(c, client).generation()).toBe(2);
  });

  test('A-076 a refusal that comes back to a process that was stopped meanwhile does not end what others have renewed', async () => {
    loginsNeedRefresh(provider, rotation);
    const client = await c.signedIn();
    const stored = new StoredSession(c, client);
    provider.next('refresh', { ...faults.invalidGrant, delay: 300 });
    const first = call(client, FIRST);
    await eventually(() => provider.ledger.count('refresh') === 1);
    c.replica(FIRST).pause();
    await servedBy(client, SECOND);
    expect(await stored.generation()).toBe(2);
    c.replica(FIRST).resume();
    expect([200, 503]).toContain((await first).status);
    expect(await stored.exists()).toBe(true);
    await servedBy(client, FIRST);
    expect(await stored.generation()).toBe(2);
  });

  test('A-076 nor what somebody else is about to renew', async () => {
    loginsNeedRefresh(provider, rotation);
    const client = await c.signedIn();
    const stored = new StoredSession(c, client);
    provider.next('refresh', { ...faults.invalidGrant, delay: 300 });
    const first = call(client, FIRST);
    await eventually(() => provider.ledger.count('refresh') === 1);
    c.replica(FIRST).pause();
    provider.next('refresh', { delayAfter: 800 });
    const second = servedBy(client, SECOND);
    await eventually(() => provider.ledger.count('refresh') === 2, { timeout: 2 * CLAIM_IS_OVER });
    c.replica(FIRST).resume();
    expect([200, 503]).toContain((await first).status);
    await second;
    expect(await stored.generation()).toBe(2);
    await servedBy(client, FIRST);
  });

  test('C.5 a stopped process that has the answer and finds the claim run out stores it, if nobody else has', async () => {
    loginsNeedRefresh(provider, rotation);
    const client = await c.signedIn();
    provider.next('refresh', { delay: 300 });
    const first = call(client, FIRST);
    await eventually(() => provider.ledger.count('refresh') === 1);
    c.replica(FIRST).pause();
    await sleep(CLAIM_IS_OVER);
    c.replica(FIRST).resume();
    expect([200, 503]).toContain((await first).status);
    await servedBy(client, SECOND);
    await servedBy(client, FIRST);
    expect(await new StoredSession(c, client).generation()).toBe(2);
    expect(provider.ledger.doubleSpends.filter(({ accepted }) => !accepted)).toEqual([]);
  });
});

describe('with a provider that does not rotate', () => {
  beforeAll(() => start('none'));
  afterAll(stop);

  test('A-077 any number of lost answers cost nothing but time', async () => {
    loginsNeedRefresh(provider, { rotation: 'none' });
    const clients = await inParallel(
      Array.from({ length: 3 }, (_, i) => () => c.signedIn({ user: `u${String(i)}` })),
    );
    provider.next('refresh', { ...faults.resetAfterCommit, times: 3 });
    const first = await inParallel(clients.map((client) => () => call(client, FIRST)));
    expect(first.map(({ status }) => status)).toEqual([503, 503, 503]);
    await inParallel(clients.map((client) => () => servedBy(client, SECOND)));
    expect(c.events('session_ended')).toEqual([]);
  });
});

describe('with time enough for four hundred refreshes', () => {
  beforeAll(() => start('strict', '10s'));
  afterAll(stop);

  test('A-079 everybody at once: one refresh each, at most 64 at a time from a replica, renewals spread over the life', async () => {
    const SESSIONS = 400;
    loginsNeedRefresh(provider);
    const clients = await inParallel(
      Array.from({ length: SESSIONS }, (_, i) => () => c.signedIn({ user: `user${String(i)}` })),
      8,
    );
    provider.always('refresh', { delay: 200 });
    const answers = await inParallel(clients.map((client, i) => () => call(client, i % 2)));
    expect(answers.map(({ status }) => status)).toEqual(clients.map(() => 200));
    expect(provider.ledger.count('refresh')).toBe(SESSIONS);
    expect(provider.ledger.highWater('refresh')).toBeLessThanOrEqual(2 * 64);
    const shares = await inParallel(
      clients.map((client) => async () => {
        const { refreshAt, expiresAt } = (await new StoredSession(c, client).contents()).tokens;
        return 1 - (expiresAt - refreshAt) / (provider.modes.accessTokenLifetime * 1000);
      }),
      16,
    );
    expect(Math.min(...shares)).toBeGreaterThanOrEqual(0.75);
    expect(Math.max(...shares)).toBeLessThanOrEqual(0.85);
    for (let tenth = 0; tenth < 10; tenth += 1) {
      const from = 0.75 + tenth / 100;
      const inside = shares.filter((share) => share >= from && share < from + 0.01).length;
      expect(inside).toBeGreaterThan(SESSIONS / 50);
    }
  });
});
