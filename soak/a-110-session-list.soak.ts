import { randomBytes } from 'node:crypto';
import { expect } from '@jest/globals';
import { Administration } from '../test/support/administration.js';
import { runCloakroom, startCloakroom } from '../test/support/cloakroom.js';
import { loginsLast } from '../test/support/over-at-once.js';
import { random } from '../test/support/random.js';
import { ownRedis } from '../test/support/redis.js';
import { startRedisCluster } from '../test/support/redis-cluster.js';
import { startPlainUpstream } from './load.js';
import { scenario, target, type Say } from './scenario.js';
import { seedPeople, statusesAt } from './seeded-people.js';

const SESSIONS = 50_000;
const REPLICAS = 2;
const PAGE = 250;
const SAMPLE = 2000;
/** Sessions of the one who is looked for among all. */
const THEIRS = 25;
const HOUR = 3_600_000;

const megabytes = (bytes: number): string => `${(bytes / 1024 / 1024).toFixed(0)} MiB`;

async function timed<T>(say: Say, what: string, work: () => Promise<T>): Promise<{ value: T; took: number }> {
  const begun = performance.now();
  const value = await work();
  const took = performance.now() - begun;
  say(`${what}: ${(took / 1000).toFixed(2)} s`);
  return { value, took };
}

scenario(
  'A-110',
  `${String(SESSIONS)} sessions on three masters: each is listed once, by creation; a damaged record is skipped; then everybody is ended`,
  15,
  async (say) => {
    const cluster = await startRedisCluster();
    const c = await startCloakroom({
      redis: cluster,
      replicas: REPLICAS,
      tap: false,
      upstream: await startPlainUpstream(),
      config: { store: { redis: { cluster: true, commandTimeout: '5s' } } },
    });
    loginsLast(c.provider, 3600);
    const dice = random('session list');
    const seeder = await Administration.start(c);
    const began = Date.now() - HOUR;
    const created = new Map<string, number>();
    const moments = Array.from({ length: SESSIONS }, () => began + dice.int(0, HOUR - 60_000));
    const every = Math.floor(SESSIONS / THEIRS);
    const people = await seedPeople(
      c,
      seeder,
      SESSIONS,
      (i) => ({
        subject: i % every === 0 ? 'wanted' : `person-${String(i)}`,
        createdAt: moments[i] ?? began,
      }),
      say,
    );
    for (const [i, { handle }] of people.entries()) created.set(handle, moments[i] ?? 0);
    await seeder.close();
    const nodes = (await cluster.keys(`${c.prefix}:*:session`)).map((keys) => keys.length);
    say(`sessions on each node: ${nodes.join(', ')}`);
    expect(Math.min(...nodes)).toBeGreaterThan(SESSIONS / 4);

    const damaged = people[dice.int(1, every - 1)];
    const key = `${c.prefix}:{${damaged?.handle ?? ''}}:session`;
    await cluster.command('HSET', key, 'about', randomBytes(150).toString('latin1'));

    /** Exactly what is to be listed: each once, and in the order they began. */
    const judge = (handles: readonly string[], ended: ReadonlySet<string> = new Set()): void => {
      const seen = new Set(handles);
      expect(seen.size).toBe(handles.length);
      expect(seen.has(damaged?.handle ?? '')).toBe(false);
      const missing = people.filter(
        ({ handle }) => !seen.has(handle) && handle !== damaged?.handle && !ended.has(handle),
      );
      expect(missing).toEqual([]);
      const order = handles.map((handle) => created.get(handle) ?? Number.NaN);
      expect(order.findIndex((at, i) => !(at >= (order[i - 1] ?? 0)))).toBe(-1);
    };

    const lister = await Administration.start(c);
    const idle = await lister.peakMemory();
    const { value: handles } = await timed(say, `all of them in pages of ${String(PAGE)}`, () =>
      lister.handles({ all: true }, PAGE),
    );
    expect(handles).toHaveLength(SESSIONS - 1);
    judge(handles);
    const peak = await lister.peakMemory();
    say(`peak memory of who lists: ${megabytes(peak)}, ${megabytes(peak - idle)} more than before`);
    expect(peak - idle).toBeLessThan(200 * 1024 * 1024);

    const theirs = await timed(say, `the ${String(THEIRS)} of one person`, () =>
      lister.handles({ subject: 'wanted' }, PAGE),
    );
    expect(theirs.value).toHaveLength(THEIRS);
    say(target('one person among all', theirs.took, 1000, ' ms'));

    const { value: cli } = await timed(say, 'all of them by `cloakroom sessions list --json`', () =>
      runCloakroom(['sessions', 'list', '--json', '--config', c.first.configFile], { timeout: 300_000 }),
    );
    expect([cli.code, cli.stderr]).toEqual([0, '']);
    judge(cli.stdout.match(/(?<="handle":")[A-Za-z0-9_-]{43}(?=")/g) ?? []);

    // People who leave while somebody lists: the others are still listed, each once.
    const leaving = dice.shuffle(people).slice(0, 500);
    const ender = await Administration.start(c);
    const listing = lister.handles({ all: true }, PAGE);
    for (const { handle } of leaving) await ender.end({ handle });
    judge(await listing, new Set(leaving.map(({ handle }) => handle)));
    say(
      `${String(leaving.length)} ended while all were listed: nobody else is missing, nobody is there twice`,
    );

    const sample = dice.shuffle(people.filter((one) => !leaving.includes(one))).slice(0, SAMPLE);
    expect(await statusesAt(c, 0, sample)).toEqual({ 200: SAMPLE });
    const left = SESSIONS - leaving.length;
    const { value: end, took } = await timed(say, `${String(left)} sessions ended`, () =>
      ender.end({ all: true }),
    );
    say(
      `${(left / (took / 1000)).toFixed(0)} a second; peak memory of who ends: ${megabytes(await ender.peakMemory())}`,
    );
    expect(end.ended).toBe(left);
    for (const { index } of c.replicas) expect(await statusesAt(c, index, sample)).toEqual({ 401: SAMPLE });
    expect((await cluster.keys(`${c.prefix}:*:session`)).flat()).toEqual([]);
    expect(await lister.handles({ all: true })).toEqual([]);
    say(
      `${String(SAMPLE)} of ${String(SAMPLE)} that were asked are refused by every replica; no key of a session is left`,
    );
  },
  ownRedis ? undefined : 'it needs redis-server on the path',
);
