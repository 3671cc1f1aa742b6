import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { faults, startProvider, type FaultProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { deliver, isAlive, logoutToken, person, statuses } from './support/logout-tokens.js';
import { startRedis, startRedisProxy, type RedisProxy } from './support/redis.js';

let room: Cloakroom;
let provider: FaultProvider;
let proxy: RedisProxy;

beforeAll(async () => {
  provider = await startProvider();
  proxy = await startRedisProxy(await startRedis());
  room = await startCloakroom({ provider, redis: proxy });
});

afterAll(async () => {
  await expectLeftClean(room, 26 * 3600 * 1000);
  await room.close();
});

async function ready(): Promise<void> {
  await Promise.all(room.replicas.map((replica) => replica.waitReady()));
}

describe('A-103 B-34 what cannot be ended now is not answered as done', () => {
  test('without the store: 503 with Retry-After, and the same token counts when it comes again', async () => {
    const alice = await person(room);
    const token = await logoutToken(provider, alice);
    await proxy.refuse();
    const answer = await deliver(room, token);
    expect(answer.status).toBe(503);
    expect(answer.problem).toBe('store-unavailable');
    expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0);
    expect(answer.headers['cache-control']).toBe('no-store');
    await proxy.heal();
    await ready();
    expect(await isAlive(room, alice)).toBe(true);
    expect((await deliver(room, token)).status).toBe(200);
    expect(await isAlive(room, alice)).toBe(false);
  });

  test.each([1, 2, 3, 4, 5, 6])(
    'when the store goes away at command %d, whatever was answered, the token ends the session when it comes again',
    async (at) => {
      const alice = await person(room);
      const token = await logoutToken(provider, alice);
      // Cut in the middle of what this delivery sends to the store.
      proxy.cutAfter(at * 150);
      const first = await deliver(room, token, { replica: 0 });
      expect([200, 503]).toContain(first.status);
      await proxy.heal();
      await ready();
      if (first.status === 503) expect((await deliver(room, token, { replica: 1 })).status).toBe(200);
      // Not on both replicas in the same moment.
      const isOver = async (): Promise<boolean> =>
        (await statuses(room, alice)).every((status) => status === 401);
      await eventually(isOver, { timeout: 10_000, what: 'the end' });
    },
  );

  test("without the provider's keys nobody can tell whether a token is good: 503 with Retry-After", async () => {
    const alice = await person(room);
    await provider.rotateKeys({ dropOld: true });
    const token = await logoutToken(provider, alice);
    provider.always('jwks', faults.serverError);
    const answer = await deliver(room, token);
    expect(answer.status).toBe(503);
    expect(answer.problem).toBe('idp-unavailable');
    expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0);
    expect(await isAlive(room, alice)).toBe(true);
    provider.always('jwks', undefined);
    expect((await deliver(room, token)).status).toBe(200);
    expect(await isAlive(room, alice)).toBe(false);
  });

  test('A-117 a flood of tokens with unknown keys is no flood of calls to the provider, and good tokens get through', async () => {
    const alice = await person(room);
    const before = provider.ledger.count('jwks');
    const bad = await Promise.all(
      Array.from({ length: 200 }, () => logoutToken(provider, alice, { signing: 'unknown-kid' })),
    );
    const flood = Promise.all(bad.map((token) => deliver(room, token)));
    expect((await deliver(room, await logoutToken(provider, alice))).status).toBe(200);
    expect(await isAlive(room, alice)).toBe(false);
    const answers = await flood;
    expect(answers.map(({ status }) => status).filter((status) => ![400, 429].includes(status))).toEqual([]);
    // Six for each of two replicas, and one more each ten seconds.
    expect(provider.ledger.count('jwks') - before).toBeLessThanOrEqual(16);
  });
});
