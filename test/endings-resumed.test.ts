import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Administration } from './support/administration.js';
import { inParallel } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { liveTokensOf, queued, revocationsOf, sessionsLeft } from './support/ended-for-good.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';
import { random } from './support/random.js';
import { startRedisProxy } from './support/redis.js';
import { answersOf, cookieOf, seedEach } from './support/seeded.js';

const DAY = 24 * 60 * 60 * 1000;
const REPLICAS = 4;
/** `SESSIONS=10000` for the full size. */
const SESSIONS = Number(process.env['SESSIONS'] ?? 2000);
/** A process that dies is noticed after 10 s, its revocations after 15. */
const FINISHED_WITHIN = 30_000;

const env = { REVOCATION: randomBytes(32).toString('hex') };

let c: Cloakroom;
/** Set when the replica that one scenario kills is up again: until then not every replica can be asked. */
const restarted = new AbortController();
const scenarios = new Map<() => Promise<void>, Promise<void>>();

beforeAll(async () => {
  c = await startCloakroom({
    replicas: REPLICAS,
    tap: false,
    env,
    config: {
      store: { redis: { commandTimeout: '5s' } },
      secrets: { revocation: [{ env: 'REVOCATION' }] },
    },
  });
  // All at once: they wait for the same clocks, and disturb one another as they would in real life.
  for (const run of [killedAtEachStep, killedInTheMiddle, cutOff]) {
    const running = run();
    running.catch(() => undefined);
    scenarios.set(run, running);
  }
});

afterAll(async () => {
  await expectLeftClean(c, 31 * DAY);
});

async function killedAtEachStep(): Promise<void> {
  const PER_SUBJECT = 5;
  const points = Array.from({ length: 14 }, (_, i) => 1 + i * 2);
  const seeder = await Administration.start(c, env);
  const groups = await Promise.all(
    points.map(async (point) => ({
      point,
      subject: `point-${String(point)}`,
      sessions: await seedEach(
        c,
        seeder,
        Array.from({ length: PER_SUBJECT }, () => ({ subject: `point-${String(point)}` })),
      ),
    })),
  );
  const died = await inParallel(
    groups.map(({ point, subject }) => async () => {
      const ender = await Administration.start(c, env);
      const filter = { issuer: c.provider.issuer, subject };
      const outcome = await ender.end(filter, { id: subject, dieAtCall: point }).then(
        ({ ended }) => ended,
        (error: unknown) => String(error),
      );
      await ender.close();
      return outcome;
    }),
    3,
  );
  expect(died.filter((outcome) => String(outcome).includes('SIGKILL')).length).toBeGreaterThan(10);
  const begun = await Promise.all(groups.map(({ subject }) => seeder.asked(subject)));
  // Both kinds must be among them.
  expect(new Set(begun)).toEqual(new Set([true, false]));
  const meant = groups.filter((_, i) => begun[i] === true);
  const handles = meant.flatMap(({ sessions }) => sessions.map(({ handle }) => handle));
  const subjects = new Set(meant.map(({ subject }) => subject));
  await eventually(
    async () => (await sessionsLeft(c, handles)) === 0 && liveTokensOf(c.provider, subjects) === 0,
    {
      timeout: FINISHED_WITHIN,
      interval: 200,
      what: 'everything that was begun to be finished',
    },
  );
  await eventually(() => restarted.signal.aborted, { timeout: 60_000, what: 'every replica to be up' });
  const cookies = meant.flatMap(({ sessions }) => sessions.slice(0, 2).map(cookieOf));
  expect((await answersOf(c, cookies)).every((answer) => answer.startsWith('401'))).toBe(true);
  // Where nothing had been written down, nothing ended: whoever asked was not answered either.
  const untouched = groups.filter((_, i) => begun[i] === false).flatMap(({ sessions }) => sessions);
  expect(await answersOf(c, untouched.map(cookieOf))).toEqual(['200']);
  // Whoever asks again gets the same act.
  for (const { subject } of meant) {
    const again = await seeder.end({ issuer: c.provider.issuer, subject }, { id: subject });
    expect(again.ended).toBeLessThanOrEqual(PER_SUBJECT);
  }
  expect(revocationsOf(c.provider, subjects).filter((times) => times > 1).length).toBeLessThanOrEqual(32);
  await seeder.close();
}

async function killedInTheMiddle(): Promise<void> {
  const dice = random('killed in the middle');
  const seeder = await Administration.start(c, env);
  const subject = 'middle';
  const subjects = new Set([subject]);
  const filter = { issuer: c.provider.issuer, subject };
  const seeded = await seedEach(
    c,
    seeder,
    Array.from({ length: SESSIONS }, () => ({ subject })),
  );
  const handles = seeded.map(({ handle }) => handle);
  const ender = await Administration.start(c, env);
  const dieAtProgress = dice.int(1, Math.floor(SESSIONS / 3));
  await expect(ender.end(filter, { id: 'middle', dieAtProgress })).rejects.toThrow('SIGKILL');
  const left = await sessionsLeft(c, handles);
  expect(left).toBeGreaterThan(0);
  expect(left).toBeLessThan(SESSIONS);
  // Somebody who signs in now is not meant, whoever goes on.
  await sleep(2100);
  const newcomer = await c.signedIn({ user: subject });

  const marks = c.replicas.map((replica) => replica.mark());
  const second = await eventually(
    () => c.replicas.find((replica, i) => replica.events('ending_resumed', marks[i]).length > 0),
    { timeout: FINISHED_WITHIN, interval: 1, what: 'a replica to go on' },
  );
  await sleep(dice.int(0, 30));
  const inTheMiddle = (await queued(c, 'endings')) > 0;
  await second.crash();
  await eventually(async () => (await sessionsLeft(c, handles)) === 0, {
    timeout: FINISHED_WITHIN,
    interval: 100,
    what: 'all sessions to be ended',
  });
  if (inTheMiddle) {
    await eventually(async () => (await queued(c, 'endings')) === 0, {
      timeout: FINISHED_WITHIN,
      what: 'its end',
    });
  }
  await second.start();
  restarted.abort();
  const sample = dice.shuffle(seeded).slice(0, 40).map(cookieOf);
  const answers = await answersOf(c, sample);
  expect(answers.filter((answer) => !/^401 session-required (operator|elsewhere)$/.test(answer))).toEqual([]);
  expect((await newcomer.api('/api/x')).status).toBe(200);
  await eventually(() => liveTokensOf(c.provider, subjects) === 1, {
    timeout: FINISHED_WITHIN + SESSIONS * 10,
    interval: 250,
    what: 'the ledger to show every refresh token revoked but that of the newcomer',
  });
  await eventually(async () => (await queued(c, 'revocations')) === 0, {
    timeout: FINISHED_WITHIN,
    what: 'its end',
  });
  const counts = revocationsOf(c.provider, subjects);
  expect(counts.filter((times) => times > 0)).toHaveLength(SESSIONS);
  // Once each: only what was on its way when the replica was killed may come twice.
  expect(counts.filter((times) => times > 1).length).toBeLessThanOrEqual(32);
  expect((await seeder.end(filter, { id: 'middle' })).ended).toBeLessThanOrEqual(SESSIONS);
  expect((await newcomer.api('/api/x')).status).toBe(200);
  await seeder.close();
}

async function cutOff(): Promise<void> {
  if (c.redis === undefined) return;
  const proxy = await startRedisProxy(c.redis);
  const seeder = await Administration.start(c, env);
  const ender = await Administration.start(c, { ...env, CLOAKROOM_STORE__REDIS__URL: proxy.url });
  const subject = 'cut-off';
  const subjects = new Set([subject]);
  const seeded = await seedEach(
    c,
    seeder,
    Array.from({ length: 600 }, () => ({ subject })),
  );
  const handles = seeded.map(({ handle }) => handle);
  const ending = ender.end({ issuer: c.provider.issuer, subject }, { id: 'cut-off' });
  const outcome = ending.then(
    () => 'ended',
    (error: unknown) => String(error),
  );
  await eventually(() => ender.progress.length > 0, { interval: 1 });
  await proxy.refuse();
  expect(await outcome).toContain('store-unavailable');
  await eventually(async () => (await sessionsLeft(c, handles)) === 0, {
    timeout: FINISHED_WITHIN,
    interval: 100,
    what: 'all sessions to be ended',
  });
  await eventually(() => liveTokensOf(c.provider, subjects) === 0, {
    timeout: FINISHED_WITHIN,
    interval: 100,
    what: 'all refresh tokens to be revoked',
  });
  expect(revocationsOf(c.provider, subjects).filter((times) => times > 1).length).toBeLessThanOrEqual(32);
  await ender.close();
  await seeder.close();
  await proxy.close();
}

test('B-34 the ending process is killed before each of its steps in turn: nothing was begun, or another process finishes it', async () => {
  await scenarios.get(killedAtEachStep);
}, 240_000);

test(`B-34 kill -9 of whoever ends ${String(SESSIONS)} sessions, and of the replica that goes on: another finishes, each refresh token is revoked`, async () => {
  await scenarios.get(killedInTheMiddle);
}, 240_000);

test('B-34 Redis is cut off in the middle: whoever asked is told, and the replicas finish what was begun', async () => {
  await scenarios.get(cutOff);
}, 240_000);
