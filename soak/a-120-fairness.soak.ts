import { expect } from '@jest/globals';
import { startCloakroom } from '../test/support/cloakroom.js';
import { loginsLast } from '../test/support/over-at-once.js';
import { sleep } from '../test/support/lifetime.js';
import { carriedRate, Load, startPlainUpstream, type Samples } from './load.js';
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

    const others = await Load.start(c, { clients: people, rate, seconds: 4 * SECONDS + 20 });
    const measure = async (to?: string): Promise<{ from: number; until: number; hot: Samples }> => {
      const load = await Load.start(c, { clients: [hot], rate, seconds: SECONDS, ...(to && { to }) });
      // The first second opens connections.
      const from = Date.now() + 1000;
      const samples = await load.ended();
      return { from, until: Date.now(), hot: samples };
    };
    await sleep(2000);
    // As many calls as the hot one makes, of a server that has nothing to do with Cloakroom: what they cost this machine,
    // which sends them as well, is not what one session does to another.
    const elsewhere = await measure(upstream.url);
    const here = await measure();
    const all = await others.stop();

    const reference = all.between(elsewhere.from, elsewhere.until);
    const beside = all.between(here.from, here.until);
    const greedy = here.hot;
    say(`the others, while as much goes elsewhere: ${reference.describe()}`);
    say(`the others beside it: ${beside.describe()}`);
    say(`the hot one: ${greedy.describe()}`);
    say(target('p99 beside it, times that', beside.percentile(99) / reference.percentile(99), 1.2));

    expect(beside.withStatus(200).count).toBe(beside.count);
    const served = greedy.withStatus(200).count;
    expect(greedy.withStatus(429).count + served).toBe(greedy.count);
    // A period more at the beginning, and what two replicas let through before they hear of each other.
    expect(served).toBeLessThan(20 * 2 * (SECONDS + 2));
  },
);
