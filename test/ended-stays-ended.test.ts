import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { Administration } from './support/administration.js';
import { inParallel, type BrowserClient, type BrowserResponse } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import type { FaultProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';
import { loginsNeedRefresh } from './support/over-at-once.js';
import { random, type Random } from './support/random.js';
import { StoredSession } from './support/stored-session.js';

const REPLICAS = 3;
const ROUNDS = 1000;
/** Of the slowest; `ROUNDS=1000` for as many as of the others. */
const FORCED_ROUNDS = Number(process.env['ROUNDS'] ?? 400);
const AT_A_TIME = 8;

const env = { REVOCATION: randomBytes(32).toString('hex') };

let c: Cloakroom;
let provider: FaultProvider;

beforeAll(async () => {
  c = await startCloakroom({
    replicas: REPLICAS,
    env,
    config: {
      secrets: { revocation: [{ env: 'REVOCATION' }] },
      // So short that every tenth of a second of use is written down: a touch is one more thing that must lose.
      session: { idle: '4s' },
      store: { redis: { commandTimeout: '5s' } },
    },
  });
  provider = c.provider;
});

beforeEach(() => {
  loginsNeedRefresh(provider);
});

afterAll(async () => {
  // Of ended sessions the journal stays for a day; nothing else lives longer than a login.
  await expectLeftClean(c, 25 * 60 * 60 * 1000);
  const lasting = [...(c.keysAtClose ?? [])].filter(([, left]) => left > 3_600_000).map(([key]) => key);
  expect(lasting.filter((key) => !/:(?:ending|queue|sessions|mark|revocation)$/.test(key))).toEqual([]);
});

/** The cookie as it was, whatever the answers do to the jar. */
function cookieOf(client: BrowserClient): string {
  return `${client.cookieName('session')}=${client.sessionCookie?.value ?? ''}`;
}

async function onEveryReplica(client: BrowserClient, cookie: string): Promise<BrowserResponse[]> {
  return await inParallel(
    Array.from({ length: REPLICAS }, (_, replica) => () => client.api('/api/x', { replica, cookie })),
  );
}

async function rounds(count: number, round: (at: number) => Promise<void>): Promise<void> {
  await inParallel(
    Array.from({ length: count }, (_, at) => () => round(at)),
    AT_A_TIME,
  );
}

test('A-058 redis-cli DEL of the key of the handle that the log printed is a complete forced logout on every replica', async () => {
  provider.reset();
  const marks = c.replicas.map((replica) => replica.mark());
  const client = await c.signedIn();
  const cookie = cookieOf(client);
  expect((await onEveryReplica(client, cookie)).map(({ status }) => status)).toEqual([200, 200, 200]);
  const started = await eventually(() =>
    c.replicas.flatMap((replica, i) => replica.events('session_started', marks[i])).at(-1),
  );
  const handle = String(started['handle']);
  expect(await c.redis?.command('DEL', `${c.prefix}:{${handle}}:session`)).toBe(1);
  const answers = await onEveryReplica(client, cookie);
  expect(answers.map(({ status, problem }) => [status, problem])).toEqual(
    Array.from({ length: REPLICAS }, () => [401, 'session-required']),
  );
  expect(
    answers.every(({ setCookies }) => setCookies.some((line) => /session=;.*Max-Age=0/i.test(line))),
  ).toBe(true);
});

/** Who of these people has a refresh token that is still good. */
function stillLive(users: readonly string[]): string[] {
  const subs = new Set(provider.ledger.liveRefreshTokens().map(({ sub }) => sub));
  return users.filter((user) => subs.has(user));
}

/** Up to 50 ms, some of it before and some after the refresh token is spent. */
function refreshesTakeLong(dice: Random): void {
  provider.always('refresh', {
    get delay() {
      return dice.int(0, 25);
    },
    get delayAfter() {
      return dice.int(0, 25);
    },
  });
}

test(`A-058 a deletion beats every later write of what was in flight: requests, refreshes, touches, late callbacks (${String(ROUNDS)} rounds)`, async () => {
  const dice = random('deletion');
  provider.always('refresh', {
    get delay() {
      return dice.int(0, 40);
    },
    get delayAfter() {
      return dice.int(0, 40);
    },
    // Over and over again, so that there is always a refresh to race with.
    mutate: (answer) => ({ ...answer, expires_in: 0.05 }),
  });
  const handles = new Set<string>();
  const back: string[] = [];
  const alive: number[] = [];
  await rounds(ROUNDS, async () => {
    const client = c.client();
    const attempt = await client.beginLogin();
    expect((await attempt.finish()).status).toBe(303);
    const cookie = cookieOf(client);
    const stored = new StoredSession(c, client);
    handles.add(stored.handle);
    const inFlight = [
      client.api(`/api/delay/${String(dice.int(0, 120))}`, { cookie }),
      client.api('/api/x', { cookie }),
      client.api('/api/x', { method: 'POST', body: 'x'.repeat(1000), cookie }),
      client.me({ cookie }),
      sleep(dice.int(0, 100)).then(() => attempt.finish()),
      sleep(dice.int(0, 100)).then(() => client.api('/api/late', { cookie })),
    ];
    await sleep(dice.int(0, 110));
    await stored.delete();
    // At once, while the others are still on their way.
    const after = await client.api('/api/x', { cookie, replica: dice.int(0, REPLICAS - 1) });
    alive.push(after.status);
    await Promise.all(inFlight);
    if (await stored.exists()) back.push(stored.handle);
    for (const { status } of await onEveryReplica(client, cookie)) alive.push(status);
  });
  expect(new Set(alive)).toEqual(new Set([401]));
  expect(back).toEqual([]);
  const logged = new Set(c.events('session_started').map((line) => line['handle']));
  expect([...handles].filter((handle) => !logged.has(handle))).toEqual([]);
  // What came later than the last answer: a touch, a commit, a release.
  await sleep(300);
  const keys = new Set(await c.redis?.keys());
  expect([...handles].filter((handle) => keys.has(`${c.prefix}:{${handle}}:session`))).toEqual([]);
}, 240_000);

test(`A-078 a refresh in flight at logout or deletion is not stored, and what it brought is revoked (${String(ROUNDS)} rounds)`, async () => {
  const dice = random('late refresh');
  provider.modes.revocation = 'token';
  refreshesTakeLong(dice);
  /** Families of which no refresh token may be left. */
  const dead: string[] = [];
  const back: string[] = [];
  const outcomes = { beforeRefresh: 0, during: 0, afterCommit: 0 };
  await rounds(ROUNDS, async (at) => {
    const user = `late${String(at)}`;
    const client = await c.signedIn({ user });
    const cookie = cookieOf(client);
    const stored = new StoredSession(c, client);
    const [first] = provider.ledger.liveRefreshTokens({ sub: user });
    const refresh = client.api('/api/x', { cookie });
    // On a busy machine nearly all would be over before the provider has even seen the refresh token.
    if (dice.chance(0.3))
      await eventually(() => first?.spentAt.length !== 0, { interval: 2, what: 'a spend' });
    await sleep(dice.int(0, 60));
    if (dice.chance(0.5)) {
      const { post } = await client.logout({ navigate: false, cookie });
      expect(post.status).toBe(200);
      dead.push(user);
    } else {
      const spent = first !== undefined && first.spentAt.length > 0;
      const generation = await deleteAndTell(stored);
      if (generation === 2) outcomes.afterCommit += 1;
      else if (spent) outcomes.during += 1;
      else outcomes.beforeRefresh += 1;
      // A deletion without a cookie cannot revoke what the store held; a refresh that comes too late can and must.
      if (generation === 1 && spent) dead.push(user);
    }
    const { status } = await refresh;
    expect([200, 401]).toContain(status);
    if (await stored.exists()) back.push(user);
    expect((await onEveryReplica(client, cookie)).map((answer) => answer.status)).toEqual([401, 401, 401]);
  });
  expect(back).toEqual([]);
  // The rounds must have hit what they are about.
  expect(outcomes.during).toBeGreaterThan(ROUNDS / 50);
  expect(outcomes.afterCommit).toBeGreaterThan(ROUNDS / 50);
  await eventually(() => stillLive(dead).length === 0, {
    timeout: 10_000,
    interval: 200,
    what: 'every late refresh token to be revoked',
  }).catch(() => undefined);
  expect(stillLive(dead)).toEqual([]);
  expect(provider.ledger.doubleSpends).toEqual([]);
}, 240_000);

/** Deletes the record; answers the generation it had in that very moment (0: it was gone). */
async function deleteAndTell(stored: StoredSession): Promise<number> {
  const replies = await c.redis?.client.multi().hget(stored.key, 'gen').del(stored.key).exec();
  return Number(replies?.[0]?.[1] ?? 0);
}

test('A-078 a logout during a refresh that the provider answers much later: nothing is stored, the new token is revoked', async () => {
  provider.modes.revocation = 'token';
  provider.always('refresh', { delayAfter: 1500 });
  const client = await c.signedIn({ user: 'slow' });
  const cookie = cookieOf(client);
  const stored = new StoredSession(c, client);
  const waiting = [0, 1, 2].map((replica) => client.api('/api/x', { replica, cookie }));
  await eventually(() => provider.ledger.refreshTokens.size > 0 && provider.ledger.count('refresh') === 1);
  await sleep(200);
  expect((await client.logout({ navigate: false, cookie })).post.status).toBe(200);
  expect((await Promise.all(waiting)).map(({ status }) => status)).toEqual([401, 401, 401]);
  expect(await stored.exists()).toBe(false);
  await eventually(() => provider.ledger.liveRefreshTokens({ sub: 'slow' }).length === 0, {
    what: 'the late refresh token to be revoked',
  });
  expect(provider.ledger.count('refresh')).toBe(1);
});

test(`A-058 A-078 A-108 a forced end from outside beats requests, refreshes and touches in flight, and no refresh token outlives it (${String(FORCED_ROUNDS)} rounds)`, async () => {
  const dice = random('forced end');
  provider.modes.revocation = 'token';
  refreshesTakeLong(dice);
  const administration = await Administration.start(c, env);
  const dead: string[] = [];
  const wrong: string[] = [];
  const generations = new Map<number, number>();
  await rounds(FORCED_ROUNDS, async (at) => {
    const user = `forced${String(at)}`;
    const client = await c.signedIn({ user });
    const cookie = cookieOf(client);
    const stored = new StoredSession(c, client);
    const inFlight = [
      client.api('/api/x', { cookie }),
      sleep(dice.int(0, 80)).then(() => client.api('/api/x', { cookie })),
      sleep(dice.int(0, 80)).then(() => client.me({ cookie })),
      client.api(`/api/delay/${String(dice.int(0, 100))}`, { method: 'POST', body: 'x', cookie }),
    ];
    await sleep(dice.int(0, 90));
    const generation = await stored.generation();
    generations.set(generation, (generations.get(generation) ?? 0) + 1);
    const filter = dice.pick([
      { handle: stored.handle },
      { issuer: provider.issuer, subject: user },
      { user: `${user}@example.test` },
    ]);
    const { ended } = await administration.end(filter);
    dead.push(user);
    const after = await onEveryReplica(client, cookie);
    await Promise.all(inFlight);
    const later = await client.api('/api/x', { cookie });
    const statuses = [...after, later].map(({ status }) => status);
    if (ended !== 1 || statuses.some((status) => status !== 401) || (await stored.exists())) {
      wrong.push(`${user}: ended ${String(ended)}, then ${statuses.join(' ')}`);
    }
  });
  expect(wrong).toEqual([]);
  // Before the refresh was stored, and after.
  expect(generations.get(1) ?? 0).toBeGreaterThan(FORCED_ROUNDS / 50);
  expect(generations.get(2) ?? 0).toBeGreaterThan(FORCED_ROUNDS / 50);
  await eventually(() => stillLive(dead).length === 0, {
    timeout: 30_000,
    interval: 500,
    what: 'every refresh token to be revoked',
  }).catch(() => undefined);
  expect(stillLive(dead)).toEqual([]);
  expect(provider.ledger.doubleSpends).toEqual([]);
  await administration.close();
}, 240_000);
