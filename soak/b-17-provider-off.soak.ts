import { expect } from '@jest/globals';
import type { BrowserClient } from '../test/support/browser-client.js';
import { startCloakroom } from '../test/support/cloakroom.js';
import { eventually, sleep } from '../test/support/lifetime.js';
import { loginsLast } from '../test/support/over-at-once.js';
import { StoredSession } from '../test/support/stored-session.js';
import { logIn } from './people.js';
import { scenario } from './scenario.js';

const LIFETIME = 60;
const OUTAGE = 20 * 60_000;
const EACH = 20;
const BETWEEN_CALLS = 1000;

interface Seen {
  served: number;
  refused: number;
  lastServed: number;
  wrong: string[];
}

scenario(
  'B-17',
  'the provider is off for 20 min, access tokens last 60 s: served while the token is good, then 503, kept, and healed without anybody',
  26,
  async (say) => {
    const c = await startCloakroom({
      tap: false,
      // The time limit of the store is not what is tested, and the machine may be busy for a moment.
      config: { store: { redis: { commandTimeout: '2s' } } },
    });
    // As long as the outage and longer, in the provider's books too, by which the API judges them.
    loginsLast(c.provider, 3600, { accessTokenLifetime: 3600 });
    const long = await logIn(c, EACH, say);
    // An API allows for a clock that is a little off, and for a call that was under way when the token ended.
    loginsLast(c.provider, LIFETIME, { accessTokenLifetime: LIFETIME + 10 });
    const short = await logIn(c, EACH, say);
    const ends = Date.now() + LIFETIME * 1000;
    const stored = [...long, ...short].map((client) => new StoredSession(c, client));

    let going = true;
    let off = 0;
    const work = async (client: BrowserClient, seen: Seen): Promise<void> => {
      while (going) {
        const answer = await client.api('/api/x');
        if (answer.status === 200) {
          seen.served += 1;
          if (off !== 0) seen.lastServed = Math.max(seen.lastServed, Date.now());
        } else if (answer.problem === 'idp-unavailable' && answer.setCookies.length === 0) {
          seen.refused += 1;
          if (!/^[1-9]\d*$/.test(answer.headers['retry-after'] ?? '')) seen.wrong.push('no Retry-After');
        } else seen.wrong.push(`${String(answer.status)} ${answer.text.slice(0, 200)}`);
        await sleep(BETWEEN_CALLS);
      }
    };
    const begin = (): Seen => ({ served: 0, refused: 0, lastServed: 0, wrong: [] });
    const [ofLong, ofShort] = [begin(), begin()];
    await sleep(2000);
    await c.provider.stop();
    off = Date.now();
    say(
      `provider off; ${String(EACH)} people with tokens of 3600 s, ${String(EACH)} with ${String(LIFETIME)} s`,
    );
    const calls = [
      ...long.map((client) => work(client, ofLong)),
      ...short.map((client) => work(client, ofShort)),
    ];
    for (let minute = 1; minute * 60_000 <= OUTAGE; minute += 1) {
      await sleep(off + minute * 60_000 - Date.now());
      if (minute % 5 === 0) {
        say(
          `after ${String(minute)} min: long ${String(ofLong.served)} served, ${String(ofLong.refused)} refused; short ${String(ofShort.served)} served, ${String(ofShort.refused)} refused`,
        );
      }
    }
    const lastServed = ofShort.lastServed;
    expect(await Promise.all(stored.map((session) => session.exists()))).toEqual(stored.map(() => true));
    going = false;
    await Promise.all(calls);
    await c.provider.start();
    const back = Date.now();
    await Promise.all(
      short.map((client) =>
        eventually(async () => (await client.api('/api/x')).status === 200, {
          timeout: 90_000,
          interval: 250,
          what: 'a session to be served again',
        }),
      ),
    );
    say(
      `tokens were used until ${((lastServed - ends) / 1000).toFixed(1)} s after the last of them was made to end`,
    );
    say(`everybody served again ${((Date.now() - back) / 1000).toFixed(1)} s after the provider was back`);

    expect([...ofLong.wrong, ...ofShort.wrong]).toEqual([]);
    expect(ofLong.refused).toBe(0);
    expect(ofShort.served).toBeGreaterThan(EACH * 30);
    expect(ofShort.refused).toBeGreaterThan((EACH * (OUTAGE / BETWEEN_CALLS - LIFETIME)) / 2);
    expect(c.provider.ledger.doubleSpends).toEqual([]);
    expect(c.events('session_ended')).toEqual([]);
  },
);
