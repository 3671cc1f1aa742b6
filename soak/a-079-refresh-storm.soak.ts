import { cpus } from 'node:os';
import { expect } from '@jest/globals';
import { merge, startCloakroom, type ConfigFile } from '../test/support/cloakroom.js';
import { startProvider, type FaultProvider } from '../test/support/fault-provider.js';
import type { Hit } from '../test/support/ledger.js';
import { sleep } from '../test/support/lifetime.js';
import { startRedis } from '../test/support/redis.js';
import { CpuUse } from './cpu.js';
import { Load, startPlainUpstream } from './load.js';
import { logIn, statusesOf } from './people.js';
import { scenario, target, type Say } from './scenario.js';

const SESSIONS = 10_000;
const RATE = 800;
const MOST_AT_ONCE = 64;
/** Milliseconds of ordinary work, measured for comparison. */
const ORDINARY = 30_000;
/** Milliseconds between the end of the first tokens and the end of those that replaced them. */
const SECOND_LIFE = 100_000;
/** Seconds that a token lives when nothing is to happen any more. */
const LONG = 3600;

/** Each replica proves who it is in a way of its own, by which the provider's ledger tells them apart. */
const METHODS = ['client_secret_basic', 'client_secret_post'];
const replicaOf = (hit: Hit): number => (hit.headers['authorization'] === undefined ? 1 : 0);

/** The most of these calls that were under way together. */
function mostAtOnce(hits: readonly Hit[]): number {
  const steps = hits.flatMap(({ at, endedAt }) => [
    { when: at, by: 1 },
    { when: endedAt ?? Infinity, by: -1 },
  ]);
  // Of what happened in the same millisecond the ends come first: the clock cannot tell.
  steps.sort((a, b) => a.when - b.when || a.by - b.by);
  let now = 0;
  let most = 0;
  for (const { by } of steps) most = Math.max(most, (now += by));
  return most;
}

/** From now on tokens of logins, or of refreshes, are over at this moment, whenever they are asked for. */
function tokensEnd(provider: FaultProvider, grant: 'token' | 'refresh', at: number): void {
  provider.always(grant, { mutate: (answer) => ({ ...answer, expires_in: (at - Date.now()) / 1000 }) });
}

function judgeRefreshes(provider: FaultProvider, say: Say): void {
  const hits = provider.ledger.hitsOf('refresh');
  const most = METHODS.map((_, replica) => mostAtOnce(hits.filter((hit) => replicaOf(hit) === replica)));
  say(
    `${String(hits.length)} token requests for ${String(SESSIONS)} sessions; at once: ${most.map((count, i) => `${String(count)} from replica ${String(i)}`).join(', ')}`,
  );
  expect(hits.length).toBeLessThanOrEqual(SESSIONS);
  expect(Math.max(...most)).toBeLessThanOrEqual(MOST_AT_ONCE);
  expect(provider.ledger.doubleSpends).toEqual([]);
}

scenario(
  'A-079',
  `the tokens of ${String(SESSIONS)} sessions end in the same second: at most one token request each, at most ${String(MOST_AT_ONCE)} at a time from a replica, no session lost`,
  20,
  async (say) => {
    const provider = await startProvider({ alg: 'ES256' });
    const upstream = await startPlainUpstream();
    const redis = await startRedis();
    let replica = 0;
    const c = await startCloakroom({
      provider,
      tap: false,
      redis,
      upstream,
      config: (file) => {
        const { main } = file['providers'] as { main: Record<string, unknown> };
        const clientAuth = METHODS[replica];
        replica += 1;
        // The time limit of the store is not what is tested, and the machine may be busy.
        const store = merge(file['store'] as ConfigFile, { redis: { commandTimeout: '2s' } });
        return { ...file, store, providers: { main: { ...main, clientAuth } } };
      },
    });
    const begun = Date.now();
    tokensEnd(provider, 'token', begun + LONG * 1000);
    await logIn(c, 500, say);
    const slow = ((Date.now() - begun) / 500) * SESSIONS;
    // The earliest renewal, at three quarters of the life of the first token, must leave time for the logins and for the
    // measurement of ordinary work.
    const life = Math.max(300_000, (slow * 1.5 + ORDINARY + 30_000) / 0.75);
    const ends = Date.now() + life;
    const firstRenewal = Date.now() + 0.75 * life;
    tokensEnd(provider, 'token', ends);
    // An answer of a provider that is somewhere else takes a while.
    provider.always('refresh', {
      delay: 50,
      mutate: (answer) => ({ ...answer, expires_in: (ends + SECOND_LIFE - Date.now()) / 1000 }),
    });
    const clients = await logIn(c, SESSIONS, say);
    const idle = firstRenewal - Date.now() - ORDINARY - 15_000;
    if (idle < 0) throw new Error('the logins took so long that the storm has begun');
    await sleep(idle);
    provider.ledger.resetCounts();

    say(
      `people at work: ${String(RATE)} calls/s over all sessions, before and while their tokens are renewed`,
    );
    const load = await Load.start(c, { clients, rate: RATE, seconds: 600 });
    const cpu = new CpuUse({
      replicas: c.replicas.map(({ pid }) => pid),
      redis: [redis.pid],
      'provider and test': [process.pid],
      'load and upstream': [load.pid, upstream.pid],
    });
    await sleep(ends + 5000 - Date.now());
    const all = await load.stop();
    cpu.stop();
    const hits = provider.ledger.hitsOf('refresh');
    const [first, last] = [hits[0]?.at ?? Number.NaN, hits.at(-1)?.endedAt ?? Number.NaN];
    const ordinary = all.between(first - ORDINARY, first);
    const storm = all.between(first, last);
    say(`sent ${all.rate.toFixed(0)} calls/s, ${String(all.unsent)} not sent`);
    say(
      `ordinary times, ${((first - Math.max(first - ORDINARY, begun)) / 1000).toFixed(0)} s: ${ordinary.describe()}`,
    );
    say(`the storm, ${((last - first) / 1000).toFixed(0)} s: ${storm.describe()}`);
    say(`CPU of ${String(cpus().length)} cores in ordinary times: ${cpu.describe(first - ORDINARY, first)}`);
    say(`CPU of ${String(cpus().length)} cores in the storm: ${cpu.describe(first, last)}`);
    say(
      target('p99 in the storm / p99 in ordinary times', storm.percentile(99) / ordinary.percentile(99), 2),
    );
    judgeRefreshes(provider, say);
    say(target('calls that were told to come back', all.count - all.withStatus(200).count, 1));
    expect(Object.keys(all.statuses).filter((status) => status !== '200' && status !== '503')).toEqual([]);
    expect(all.marked).toBe(0);

    say(`nobody at work while tokens could be renewed early, then ${String(RATE)} calls/s on ended tokens`);
    await sleep(ends + SECOND_LIFE + 1000 - Date.now());
    provider.ledger.resetCounts();
    provider.always('refresh', { delay: 50, mutate: (answer) => ({ ...answer, expires_in: LONG }) });
    const late = await (
      await Load.start(c, { clients, rate: RATE, seconds: Math.ceil((SESSIONS / RATE) * 1.5) })
    ).ended();
    say(`sent ${late.rate.toFixed(0)} calls/s, ${String(late.unsent)} not sent: ${late.describe()}`);
    judgeRefreshes(provider, say);
    // A call may be told to come back; a session may not end.
    expect(Object.keys(late.statuses).filter((status) => status !== '200' && status !== '503')).toEqual([]);
    expect(late.marked).toBe(0);

    expect(await statusesOf(clients)).toEqual({ 200: SESSIONS });
    expect(c.events('session_ended')).toEqual([]);
    say(`${String(SESSIONS)} of ${String(SESSIONS)} sessions are served afterwards`);
  },
);
