import { expect } from '@jest/globals';
import { startCloakroom } from '../test/support/cloakroom.js';
import { loginsLast } from '../test/support/over-at-once.js';
import { sleep } from '../test/support/lifetime.js';
import { carriedRate, Load, startPlainUpstream } from './load.js';
import { logIn } from './people.js';
import { scenario, target } from './scenario.js';

const PEOPLE = 500;
const RATES = [2000, 1500, 1000, 700, 400, 200];
/** Seconds of each measurement. */
const SECONDS = 15;

scenario(
  'A-120',
  'one session at full speed beside 500 others: it is held to its limit, and what the others wait for hardly changes',
  5,
  async (say) => {
    const upstream = await startPlainUpstream();
    const c = await startCloakroom({
      upstream,
      tap: false,
      config: {
        routes: [{ path: '/api/', upstream: upstream.url, limits: { rate: { requests: 20, per: '1s' } } }],
      },
    });
    loginsLast(c.provider, 3600);
    const people = await logIn(c, PEOPLE, say);
    const hot = await c.signedIn({ user: 'hot' });
    // Half of what the machine carries, so that there is room for the hot one.
    const rate = Math.round((await carriedRate(c, people, RATES, say)) / 2);

    const others = await Load.start(c, { clients: people, rate, seconds: 2 * SECONDS + 5 });
    await sleep(2000);
    const begun = Date.now();
    await sleep(SECONDS * 1000);
    const joined = Date.now();
    const load = await Load.start(c, { clients: [hot], rate, seconds: SECONDS });
    const greedy = await load.ended();
    const left = Date.now();
    const all = await others.stop();

    const alone = all.between(begun, joined);
    const beside = all.between(joined, left);
    say(`the others alone: ${alone.describe()}`);
    say(`the others beside it: ${beside.describe()}`);
    say(`the hot one: ${greedy.describe()}`);
    say(target('p99 beside it, times that alone', beside.percentile(99) / alone.percentile(99), 1.2));

    expect(beside.withStatus(200).count).toBe(beside.count);
    const served = greedy.withStatus(200).count;
    expect(greedy.withStatus(429).count + served).toBe(greedy.count);
    // A period more at the beginning, and what two replicas let through before they hear of each other.
    expect(served).toBeLessThan(20 * 2 * (SECONDS + 2));
  },
);
