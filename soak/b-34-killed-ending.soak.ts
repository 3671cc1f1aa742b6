import { expect } from '@jest/globals';
import { Administration } from '../test/support/administration.js';
import type { Cloakroom, Replica } from '../test/support/cloakroom.js';
import { liveTokensOf, queued, revocationsOf, sessionsLeft } from '../test/support/ended-for-good.js';
import { eventually, sleep } from '../test/support/lifetime.js';
import { random, type Random } from '../test/support/random.js';
import { scenario, type Say } from './scenario.js';
import { seedPeople, startSeedable, statusesAt, type SeededPerson } from './seeded-people.js';

const SESSIONS = 10_000;
const ROUNDS = 5;
const REPLICAS = 3;
/** Milliseconds: an ending is taken over after 10 s, and may be left alone once more. */
const FINISHED_WITHIN = 60_000;
/** Revocations that a replica has under way at once, which its death leaves to be asked for again. */
const UNDER_WAY = 32;

const seconds = (since: number): string => `${((performance.now() - since) / 1000).toFixed(1)} s`;

/** SIGKILL to whoever goes on with the ending, soon after it began to. */
async function killTheNext(room: Cloakroom, marks: readonly number[], dice: Random): Promise<Replica> {
  const next = await eventually(
    () => room.replicas.find((replica, i) => replica.events('ending_resumed', marks[i]).length > 0),
    { timeout: FINISHED_WITHIN, interval: 1, what: 'a replica to go on' },
  );
  await sleep(dice.int(0, 1500));
  await next.crash();
  return next;
}

async function round(
  room: Cloakroom,
  people: readonly SeededPerson[],
  number: number,
  { env, dice, say }: { env: Record<string, string>; dice: Random; say: Say },
): Promise<void> {
  const handles = people.map(({ handle }) => handle);
  const subjects = new Set(people.map(({ subject }) => subject));
  const ender = await Administration.start(room, env);
  const marks = room.replicas.map((replica) => replica.mark());
  const begun = performance.now();
  // From outside, at any moment, in the middle of whatever it does.
  const point = dice.int(0, 90) / 100;
  const ending = ender.end({ all: true }, { id: `round-${String(number)}` }).then(
    () => 'finished',
    (error: unknown) => String(error),
  );
  await eventually(() => (ender.progress.at(-1) ?? 0) > point * SESSIONS, { interval: 1, timeout: 60_000 });
  await sleep(dice.int(0, 20));
  await ender.crash();
  expect(await ending).toContain('SIGKILL');
  const left = await sessionsLeft(room, handles);
  const told = `round ${String(number)}: killed with ${String(left)} left`;
  expect(left).toBeGreaterThan(0);
  expect(left).toBeLessThan(SESSIONS);

  // In every other round whoever takes over dies as well.
  const second = number % 2 === 1 ? await killTheNext(room, marks, dice) : undefined;
  const leftThen =
    second === undefined
      ? ''
      : `, then replica ${String(second.index)} with ${String(await sessionsLeft(room, handles))} left`;
  await eventually(async () => (await sessionsLeft(room, handles)) === 0, {
    timeout: FINISHED_WITHIN,
    interval: 100,
    what: 'every session to be ended',
  });
  say(`${told}${leftThen}; all are ended after ${seconds(begun)}`);
  await second?.start();
  for (const { index } of room.replicas) {
    expect(await statusesAt(room, index, people)).toEqual({ 401: SESSIONS });
  }
  await eventually(() => liveTokensOf(room.provider, subjects) === 0, {
    timeout: FINISHED_WITHIN + SESSIONS * 10,
    interval: 250,
    what: 'the ledger to show every refresh token revoked',
  });
  for (const queue of ['endings', 'revocations'] as const) {
    await eventually(async () => (await queued(room, queue)) === 0, {
      timeout: FINISHED_WITHIN,
      what: `the queue of ${queue} to be empty`,
    });
  }
  const counts = revocationsOf(room.provider, subjects);
  const twice = counts.filter((times) => times > 1).length;
  say(
    `round ${String(number)}: none of ${String(SESSIONS)} is accepted by any replica; ${String(counts.filter((times) => times > 0).length)} refresh tokens revoked after ${seconds(begun)}, ${String(twice)} more than once`,
  );
  expect(counts.filter((times) => times === 0)).toEqual([]);
  expect(counts).toHaveLength(SESSIONS);
  expect(twice).toBeLessThanOrEqual(second === undefined ? 0 : UNDER_WAY);
}

scenario(
  'B-34',
  `${String(ROUNDS)} times kill -9 in the middle of ending ${String(SESSIONS)} sessions, of whoever asked and of a replica that went on: another finishes, none is accepted, each refresh token is revoked`,
  20,
  async (say) => {
    const { c, env, seeder } = await startSeedable(REPLICAS);
    const dice = random('killed ending');
    for (let number = 1; number <= ROUNDS; number += 1) {
      const name = `round-${String(number)}`;
      const people = await seedPeople(
        c,
        seeder,
        SESSIONS,
        (i) => ({ subject: `${name}-${String(i)}` }),
        () => undefined,
      );
      await round(c, people, number, { env, dice, say });
    }
    await seeder.close();
  },
);
