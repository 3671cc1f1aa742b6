import { randomBytes } from 'node:crypto';
import { Administration } from '../test/support/administration.js';
import { startCloakroom, type Cloakroom, type ConfigFile } from '../test/support/cloakroom.js';
import { sendMany } from '../test/support/many-requests.js';
import { loginsLast } from '../test/support/over-at-once.js';
import { cookieOf, seedEach } from '../test/support/seeded.js';
import { startPlainUpstream } from './load.js';
import type { Say } from './scenario.js';

const PART = 5000;

export type SeededPerson = Awaited<ReturnType<typeof seedEach>>[number];
export type Wish = Parameters<typeof seedEach>[2][number];

/** Replicas that know the key for revocation, and what puts sessions into their store. */
export async function startSeedable(
  replicas: number,
  config: ConfigFile = {},
): Promise<{ c: Cloakroom; env: Record<string, string>; seeder: Administration }> {
  const env = { REVOCATION: randomBytes(32).toString('hex') };
  const c = await startCloakroom({
    replicas,
    tap: false,
    env,
    upstream: await startPlainUpstream(),
    config: {
      store: { redis: { commandTimeout: '5s' } },
      secrets: { revocation: [{ env: 'REVOCATION' }] },
      ...config,
    },
  });
  loginsLast(c.provider, 3600);
  return { c, env, seeder: await Administration.start(c, env) };
}

/** Sessions without logins, with real cookies and with tokens that the provider knows. */
export async function seedPeople(
  room: Cloakroom,
  administration: Administration,
  count: number,
  wish: (i: number) => Wish,
  say: Say,
): Promise<SeededPerson[]> {
  const begun = performance.now();
  const seeded: SeededPerson[] = [];
  while (seeded.length < count) {
    const from = seeded.length;
    const wishes = Array.from({ length: Math.min(PART, count - from) }, (_, i) => wish(from + i));
    seeded.push(...(await seedEach(room, administration, wishes)));
  }
  say(`${String(count)} sessions stored in ${((performance.now() - begun) / 1000).toFixed(1)} s`);
  return seeded;
}

/** How many of them get which status from a replica, each asked once. */
export async function statusesAt(
  room: Cloakroom,
  replica: number,
  people: readonly SeededPerson[],
): Promise<Record<string, number>> {
  const { host, origin } = new URL(room.publicUrl);
  const counts: Record<string, number> = {};
  const requests = people.map(
    (person) =>
      `GET /api/x HTTP/1.1\r\nHost: ${host}\r\nX-Forwarded-Proto: https\r\nX-CSRF: 1\r\nOrigin: ${origin}\r\nCookie: ${cookieOf(person)}\r\n\r\n`,
  );
  await sendMany([room.replica(replica).port], requests.values(), ({ status }) => {
    counts[String(status)] = (counts[String(status)] ?? 0) + 1;
  });
  return counts;
}
