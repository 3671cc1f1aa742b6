import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { inParallel, type BrowserClient, type Me } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { sleep } from './support/lifetime.js';
import { random } from './support/random.js';
import { ownRedis } from './support/redis.js';

let c: Cloakroom;

beforeAll(async () => {
  c = await startCloakroom({ replicas: 2 });
});

beforeEach(async () => {
  c.provider.reset();
  await c.redis?.clear();
});

afterAll(async () => {
  await expectLeftClean(c);
}, 60_000);

const sessions = (): Promise<string[]> => c.redis?.keys(`${c.prefix}:*:session`) ?? Promise.resolve([]);
const subject = async (client: BrowserClient): Promise<unknown> =>
  (await client.me()).json<Me>().claims['sub'];

test('A-004 a second login gives a new session id, and the old one is worth nothing any more', async () => {
  const client = await c.signedIn({ user: 'alice' });
  const [oldKey] = await sessions();
  const before = client.clone();
  const answer = await client.login({ as: 'bob', returnTo: '/again' });
  expect([answer.status, answer.location]).toEqual([303, '/again']);
  expect(client.sessionCookie?.value).not.toBe(before.sessionCookie?.value);
  expect(await subject(client)).toBe('bob');
  expect((await before.me()).status).toBe(401);
  const keys = await sessions();
  expect(keys).toHaveLength(1);
  expect(keys).not.toContain(oldKey);
});

test('A-004 a new id also when the same person logs in again, and also with the Lax companion alone', async () => {
  const client = await c.signedIn();
  const values = new Set([client.sessionCookie?.value]);
  for (let i = 0; i < 5; i += 1) {
    await client.login();
    values.add(client.sessionCookie?.value);
  }
  expect(values.size).toBe(6);
  expect(await sessions()).toHaveLength(1);
  // Strict cookies stay at home on a login that a foreign page links to.
  const attempt = await client.navigate('/auth/login', { site: 'cross-site' });
  const callback = (await client.foreign(attempt.location ?? '')).location ?? '';
  expect((await client.navigate(client.pathOf(callback), { site: 'cross-site' })).status).toBe(303);
  expect(await sessions()).toHaveLength(1);
});

test.each([
  ['a well-formed value without our signature', () => `s%3A${'A'.repeat(43)}.${'B'.repeat(43)}`],
  ['a bare id', () => 'A'.repeat(43)],
  ['rubbish', () => 'admin'],
])('A-004 a planted cookie with %s is never taken over', async (_, value) => {
  const client = c.client();
  const planted = value();
  client.setCookie(client.cookieName('session'), planted, { sameSite: 'lax' });
  expect((await client.login()).status).toBe(303);
  expect(client.sessionCookie?.value).not.toContain('A'.repeat(43));
  expect(client.sessionCookie?.value).not.toBe(planted);
  expect((await client.me()).status).toBe(200);
  const thief = c.client();
  thief.setCookie(thief.cookieName('session'), planted, { sameSite: 'lax' });
  expect((await thief.me()).status).toBe(401);
});

test('A-004 a session planted by an attacker does not become the session of the victim', async () => {
  const attacker = await c.signedIn({ user: 'mallory' });
  const victim = c.client();
  const planted = attacker.sessionCookie?.value ?? '';
  victim.setCookie(victim.cookieName('session'), planted, { sameSite: 'lax' });
  expect((await victim.login({ as: 'alice' })).status).toBe(303);
  expect(victim.sessionCookie?.value).not.toBe(planted);
  expect(await subject(victim)).toBe('alice');
  expect((await attacker.me()).status).toBe(401);
});

test('A-004 a companion cookie that we did not sign ends nobody', async () => {
  const victim = await c.signedIn({ user: 'alice' });
  const [key = ''] = await sessions();
  const handle = /\{(.+)\}/.exec(key)?.[1] ?? '';
  const attacker = c.client();
  for (const value of [handle, `${handle}.${'A'.repeat(43)}`, `s%3A${handle}.x`]) {
    attacker.setCookie(attacker.cookieName('last'), value, { sameSite: 'lax' });
    expect((await attacker.login({ as: 'mallory' })).status).toBe(303);
    expect((await victim.me()).status).toBe(200);
  }
});

// Only a Redis of the tests' own may be killed, frozen or configured; REDIS_URL may be somebody else's.
(ownRedis ? test : test.skip)(
  'A-004 the old session is ended only after the new one is stored: a login that fails leaves it alone',
  async () => {
    const client = await c.signedIn({ user: 'alice' });
    const attempt = await client.beginLogin();
    await attempt.authorize('bob');
    await c.redis?.configSet('maxmemory', '1');
    try {
      expect((await attempt.finish()).status).toBe(503);
    } finally {
      await c.redis?.configSet('maxmemory', '0');
    }
    expect(await subject(client)).toBe('alice');
    expect(await sessions()).toHaveLength(1);
    c.provider.next('token', { signing: 'wrong-key' });
    expect((await client.login({ as: 'bob' })).status).toBe(400);
    expect(await subject(client)).toBe('alice');
  },
);

const ROUNDS = 1000;

test(`A-005 two tabs log in at the same time and finish in reverse order, ${String(ROUNDS)} rounds`, async () => {
  const dice = random('A-005');
  const rounds = Array.from({ length: ROUNDS }, (_, round) => ({
    round,
    pauses: [dice.int(0, 8), dice.int(0, 8), dice.int(0, 8)],
    together: dice.chance(0.5),
    replicas: [0, 1, 2, 3].map(() => dice.int(0, 1)),
  }));
  await inParallel(
    rounds.map(({ round, pauses, together, replicas }) => async () => {
      const client = c.client();
      const begin = (tab: string, replica = 0): ReturnType<BrowserClient['beginLogin']> =>
        client.beginLogin({ returnTo: `/round/${String(round)}/${tab}`, replica });
      const opening = begin('a', replicas[0]);
      await sleep(pauses[0] ?? 0);
      const tabs = [await opening, await begin('b', replicas[1])];
      const user = (tab: number): string => `user-${String(round)}-${String(tab)}`;
      const finish = async (tab: number): Promise<void> => {
        const answer = await tabs[tab]?.finish({ as: user(tab), replica: replicas[2 + tab] ?? 0 });
        expect([answer?.status, answer?.location]).toEqual([
          303,
          `/round/${String(round)}/${tab === 0 ? 'a' : 'b'}`,
        ]);
      };
      if (together) await Promise.all([tabs[0]?.authorize(user(0)), tabs[1]?.authorize(user(1))]);
      await sleep(pauses[1] ?? 0);
      await finish(1);
      await sleep(pauses[2] ?? 0);
      await finish(0);
      expect(client.loginCookies).toEqual([]);
      expect(await subject(client)).toBe(user(0));
    }),
    16,
  );
  expect(await sessions()).toHaveLength(ROUNDS);
  expect(c.provider.ledger.doubleSpends).toEqual([]);
}, 120_000);

test('A-005 two tabs that finish at the same moment each get to their place, and the browser is signed in', async () => {
  const dice = random('A-005 at once');
  await inParallel(
    Array.from({ length: 100 }, (_, round) => async () => {
      const client = c.client();
      const tabs = [
        await client.beginLogin({ returnTo: `/${String(round)}/a` }),
        await client.beginLogin({ returnTo: `/${String(round)}/b` }),
      ];
      await Promise.all(tabs.map((tab) => tab.authorize(`twin-${String(round)}`)));
      const answers = await Promise.all(
        tabs.map(async (tab) => {
          await sleep(dice.int(0, 4));
          return await tab.finish();
        }),
      );
      expect(answers.map(({ status, location }) => [status, location])).toEqual([
        [303, `/${String(round)}/a`],
        [303, `/${String(round)}/b`],
      ]);
      expect(await subject(client)).toBe(`twin-${String(round)}`);
      // Whatever the two left behind, the next login and a logout leave nothing.
      await client.login();
      await client.logout({ navigate: false });
      expect((await client.me()).status).toBe(401);
    }),
    8,
  );
  expect((await sessions()).length).toBeLessThanOrEqual(100);
});

test('A-005 a login in a second tab for another person does not disturb the first tab’s request in flight', async () => {
  const client = await c.signedIn({ user: 'alice' });
  const slow = client.api('/api/delay/200');
  expect((await client.login({ as: 'bob' })).status).toBe(303);
  expect((await slow).status).toBe(200);
  expect(await subject(client)).toBe('bob');
});
