import { expect } from '@jest/globals';
import { Administration } from '../test/support/administration.js';
import type { Cloakroom } from '../test/support/cloakroom.js';
import { liveTokensOf, revocationsOf } from '../test/support/ended-for-good.js';
import { eventually, sleep } from '../test/support/lifetime.js';
import { random } from '../test/support/random.js';
import { cookieOf, onEveryReplica } from '../test/support/seeded.js';
import { ms, scenario, target, type Say } from './scenario.js';
import { seedPeople, startSeedable, statusesAt, type SeededPerson } from './seeded-people.js';

const SESSIONS = 10_000;
const REPLICAS = 4;
/** Ended one at a time before everybody is. */
const SINGLE = 200;
/** Asked again and again while everybody is ended. */
const WATCHED = 40;

/** Milliseconds until every replica refuses this one, asked over and over since `begun`. */
async function refusedAfter(room: Cloakroom, person: SeededPerson, begun: number): Promise<number> {
  const client = room.client();
  const cookie = cookieOf(person);
  const each = room.replicas.map(async (_, replica) => {
    for (;;) {
      const { status } = await client.api('/api/x', { replica, cookie });
      if (status === 401) return performance.now() - begun;
      if (status !== 200) throw new Error(`answered with ${String(status)}`);
      await sleep(5);
    }
  });
  return Math.max(...(await Promise.all(each)));
}

async function endOneByOne(
  room: Cloakroom,
  ender: Administration,
  people: readonly SeededPerson[],
  say: Say,
): Promise<void> {
  const times: number[] = [];
  for (const person of people) {
    const begun = performance.now();
    const refused = refusedAfter(room, person, begun);
    await ender.end({ handle: person.handle });
    // The next request on any replica, whatever was under way.
    for (const { status } of await onEveryReplica(room, cookieOf(person))) expect(status).toBe(401);
    times.push(await refused);
  }
  times.sort((a, b) => a - b);
  const at = (share: number): number => times[Math.ceil((times.length * share) / 100) - 1] ?? Number.NaN;
  say(
    `${String(people.length)} ended one by one, refused by all ${String(REPLICAS)} replicas: p50 ${ms(at(50))}, slowest ${ms(at(100))}`,
  );
  say(target('p99 from the wish to the last first refusal', at(99), 250, ' ms'));
}

scenario(
  'A-108',
  `${String(SESSIONS)} sessions over ${String(REPLICAS)} replicas: everybody is ended, and each cookie is refused by each replica at once`,
  10,
  async (say) => {
    const { c, env, seeder } = await startSeedable(REPLICAS);
    const dice = random('forced logout');
    const people = dice.shuffle(
      await seedPeople(c, seeder, SESSIONS, (i) => ({ subject: `person-${String(i)}` }), say),
    );
    await seeder.close();
    for (const { index } of c.replicas) {
      // Each replica has opened every one of them: what it remembers must not count afterwards.
      expect(await statusesAt(c, index, people)).toEqual({ 200: SESSIONS });
    }
    say(`each of ${String(SESSIONS)} cookies is served by each of ${String(REPLICAS)} replicas`);

    const ender = await Administration.start(c, env);
    await endOneByOne(c, ender, people.slice(0, SINGLE), say);

    const watched = people.slice(-WATCHED);
    const begun = performance.now();
    const refusals = Promise.all(watched.map((person) => refusedAfter(c, person, begun)));
    const { ended, durability } = await ender.end({ all: true });
    const answered = performance.now() - begun;
    const left = SESSIONS - SINGLE;
    expect([ended, durability]).toEqual([left, 'unreplicated']);
    const replicas = await Promise.all(c.replicas.map(({ index }) => statusesAt(c, index, people)));
    expect(replicas).toEqual(c.replicas.map(() => ({ 401: SESSIONS })));
    const last = Math.max(...(await refusals));
    say(
      `everybody else: ${String(ended)} ended in ${ms(answered)} (${(left / (answered / 1000)).toFixed(0)} a second), ${String(WATCHED)} asked over and over meanwhile`,
    );
    say(`the last first refusal of those came ${ms(last)} after the wish`);
    say(target('from the answer to the last first refusal', Math.max(0, last - answered), 1000, ' ms'));
    say(
      `asked afterwards, each once at each replica: ${String(SESSIONS * REPLICAS)} of ${String(SESSIONS * REPLICAS)} are 401`,
    );

    const subjects = new Set(people.map(({ subject }) => subject));
    await eventually(() => liveTokensOf(c.provider, subjects) === 0, {
      timeout: 180_000,
      interval: 500,
      what: 'every refresh token to be revoked',
    });
    const counts = revocationsOf(c.provider, subjects);
    const more = counts.filter((times) => times > 1).length;
    say(
      `every refresh token is revoked ${((performance.now() - begun) / 1000).toFixed(0)} s after the wish, ${String(more)} more than once`,
    );
    expect(counts).toHaveLength(SESSIONS);
    expect(more).toBe(0);
  },
);
