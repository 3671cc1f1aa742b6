import { expect } from '@jest/globals';
import { startCloakroom } from '../test/support/cloakroom.js';
import { loginsLast } from '../test/support/over-at-once.js';
import { sleep } from '../test/support/lifetime.js';
import { carriedRate, Load, startPlainUpstream } from './load.js';
import { logIn, statusesOf } from './people.js';
import { scenario } from './scenario.js';

const REPLICAS = 4;
const ROUNDS = 20;
const PEOPLE = 200;
const RATES = [1000, 700, 500, 300];
/** Milliseconds after which it is enough, however often it was on a slow machine. */
const LONGEST = 10 * 60_000;
/** Milliseconds: a few times what the balancer needs to notice, and one restart does not begin before the last is over. */
const BETWEEN = 300;

scenario(
  'B-35',
  `${String(REPLICAS)} replicas are restarted one after the other, up to ${String(ROUNDS)} times round, behind a balancer that asks /readyz: no request fails`,
  15,
  async (say) => {
    const c = await startCloakroom({
      replicas: REPLICAS,
      tap: false,
      upstream: await startPlainUpstream(),
      config: {
        shutdown: { delay: '600ms', drain: '10s' },
        // A process that starts takes a whole core for a second.
        store: { redis: { commandTimeout: '2s' } },
      },
    });
    loginsLast(c.provider, 3600);
    const clients = await logIn(c, PEOPLE, say);
    const rate = await carriedRate(c, clients, RATES, say);
    const load = await Load.start(c, { clients, rate, seconds: 800, balance: true });
    await sleep(1000);
    const begun = Date.now();
    const codes: (number | null)[] = [];
    for (let round = 1; round <= ROUNDS && Date.now() - begun < LONGEST; round += 1) {
      for (const replica of c.replicas) {
        codes.push(await replica.stop());
        await replica.start();
        await sleep(BETWEEN);
      }
      if (round % 5 === 0)
        say(`${String(round)} times round after ${((Date.now() - begun) / 1000).toFixed(0)} s`);
    }
    const all = await load.stop();
    const restarting = all.between(begun, Infinity);
    say(
      `sent ${all.rate.toFixed(0)} requests/s (asked for ${String(rate)}), ${String(codes.length)} restarts`,
    );
    say(`while they were restarted: ${restarting.describe()}`);
    say(
      `errors: ${all.errors.map(([what, count]) => `${String(count)} x ${what}`).join(', ') || 'none'}; not sent: ${String(all.unsent)}`,
    );
    expect(codes).toEqual(codes.map(() => 0));
    expect(all.statuses).toEqual({ 200: all.count });
    expect([all.unsent, all.errors]).toEqual([0, []]);
    expect(await statusesOf(clients)).toEqual({ 200: PEOPLE });
  },
);
