import { expect } from '@jest/globals';
import { startCloakroom } from '../test/support/cloakroom.js';
import { loginsLast } from '../test/support/over-at-once.js';
import { sleep } from '../test/support/lifetime.js';
import { startRedis } from '../test/support/redis.js';
import { carriedRate, Load, startPlainUpstream } from './load.js';
import { logIn, statusesOf } from './people.js';
import { scenario, target } from './scenario.js';

const PEOPLE = 500;
const RATES = [2000, 1500, 1000, 700, 400];
const BEFORE = 5000;
const OUTAGE = 30_000;
const AFTER = 8000;

scenario(
  'B-02',
  'Redis is killed for 30 s under an even load: 503 for every request with a session and nothing else, everybody back',
  5,
  async (say) => {
    const redis = await startRedis({ appendonly: true });
    const c = await startCloakroom({ redis, upstream: await startPlainUpstream(), tap: false });
    loginsLast(c.provider, 3600);
    const clients = await logIn(c, PEOPLE, say);
    const rate = await carriedRate(c, clients, RATES, say);
    const pids = c.replicas.map(({ pid }) => pid);

    const load = await Load.start(c, { clients, rate, seconds: (BEFORE + OUTAGE + AFTER) / 1000 + 10 });
    await sleep(BEFORE);
    const killing = Date.now();
    await redis.kill();
    const killed = Date.now();
    await sleep(OUTAGE / 2);
    // What needs no session does not notice.
    const anonymous = c.client();
    expect((await anonymous.api('/api/x')).status).toBe(401);
    expect((await anonymous.fetch('/livez')).status).toBe(200);
    expect((await anonymous.fetch('/readyz')).status).toBe(503);
    await sleep(killed + OUTAGE - Date.now());
    const restarting = Date.now();
    await redis.restart();
    const back = Date.now();
    await sleep(AFTER);
    const all = await load.stop();

    const outage = all.between(killed, restarting);
    say(`sent ${all.rate.toFixed(0)} requests/s (asked for ${String(rate)}), ${String(all.unsent)} not sent`);
    say(`before: ${all.between(0, killing).describe()}`);
    say(`the ${((restarting - killed) / 1000).toFixed(1)} s without Redis: ${outage.describe()}`);
    say(target('p99 of the 503s', outage.percentile(99), 500, ' ms'));
    const late = all.between(back, Infinity).withStatus(503);
    say(`after: ${all.between(back, Infinity).describe()}`);
    say(
      target(
        'from the first PONG until the last 503 was asked for',
        late.count === 0 ? 0 : late.last - back,
        2000,
        ' ms',
      ),
    );

    expect(outage.count).toBeGreaterThan((rate * OUTAGE) / 1000 / 2);
    expect(outage.statuses).toEqual({ 503: outage.count });
    expect(Object.keys(all.statuses).sort()).toEqual(['200', '503']);
    expect(all.marked).toBe(0);
    expect(all.errors).toEqual([]);
    expect(await statusesOf(clients)).toEqual({ 200: PEOPLE });
    expect(c.replicas.map(({ pid }) => pid)).toEqual(pids);
    say(`${String(PEOPLE)} of ${String(PEOPLE)} sessions are served afterwards`);
  },
);
