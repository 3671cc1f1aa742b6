import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { sleep } from './support/lifetime.js';
import { random } from './support/random.js';

const REPLICAS = 4;
const ROUNDS = 200;
const CALLBACKS = 50;

let c: Cloakroom;

beforeAll(async () => {
  c = await startCloakroom({ replicas: REPLICAS });
});

afterAll(async () => {
  await expectLeftClean(c);
});

const sessions = (): Promise<string[]> => c.redis?.keys(`${c.prefix}:*:session`) ?? Promise.resolve([]);

test(`A-013 ${String(CALLBACKS)} identical callbacks at once over ${String(REPLICAS)} replicas, ${String(ROUNDS)} rounds: one token request and one session each`, async () => {
  const dice = random('A-013');
  for (let round = 0; round < ROUNDS; round += 1) {
    const client = c.client();
    const attempt = await client.beginLogin({ returnTo: `/round/${String(round)}` });
    const sent = await attempt.authorize(`racer-${String(round)}`);
    const path = client.pathOf(sent?.callback.href ?? '');
    const cookie = client.cookieHeader(path, 'cross-site', 'GET', true);
    const exchanged = c.provider.ledger.count('token');
    const spread = dice.pick([0, 0, 2, 10]);
    if (dice.chance(0.3)) c.provider.next('token', { delay: dice.int(0, 10), delayAfter: dice.int(0, 10) });
    const answers = await Promise.all(
      Array.from({ length: CALLBACKS }, async (_, at) => {
        await sleep(dice.int(0, spread));
        return await client.navigate(path, { site: 'cross-site', cookie, replica: at % REPLICAS });
      }),
    );
    const winners = answers.filter(({ status }) => status === 303);
    expect(winners.map(({ location }) => location)).toEqual([`/round/${String(round)}`]);
    const losers = answers.filter(({ status }) => status !== 303);
    expect(losers.map(({ status }) => status)).toEqual(Array.from({ length: CALLBACKS - 1 }, () => 400));
    // None of them may take from the browser what the winner gave it.
    expect(losers.flatMap(({ setCookies }) => setCookies)).toEqual([]);
    expect(c.provider.ledger.count('token') - exchanged).toBe(1);
    const me = await client.me();
    expect(me.json<{ claims: { sub: string } }>().claims.sub).toBe(`racer-${String(round)}`);

    // Once the winner's cookies are there, every further one leads to the application.
    const late = await Promise.all(
      Array.from({ length: REPLICAS }, (_, replica) => attempt.finish({ replica })),
    );
    expect(late.map(({ status, location }) => [status, location])).toEqual(late.map(() => [303, '/']));
  }
  expect(await sessions()).toHaveLength(ROUNDS);
  await c.logged('session_started', ROUNDS);
  expect(c.events('session_started')).toHaveLength(ROUNDS);
  expect(c.provider.ledger.count('token')).toBe(ROUNDS);
  expect(await c.redis?.keys(`${c.prefix}:*:login`)).toEqual([]);
}, 120_000);

test('A-013 a replica that dies in the middle of the exchange leaves no second chance and no broken session', async () => {
  const victim = c.replica(3);
  const client = c.client();
  const attempt = await client.beginLogin();
  await attempt.authorize();
  const before = await sessions();
  c.provider.next('token', {
    onCommit: async () => {
      await victim.crash();
    },
  });
  await expect(attempt.finish({ replica: 3 })).rejects.toThrow();
  const answer = await attempt.finish({ replica: 0 });
  expect(answer.status).toBe(400);
  expect(answer.text).toContain('/auth/login?restart=1');
  expect(await sessions()).toEqual(before);
  await victim.start();
  expect((await client.login({ replica: 3 })).status).toBe(303);
});
