import { expect } from '@jest/globals';
import { startCloakroom } from '../test/support/cloakroom.js';
import { startProvider } from '../test/support/fault-provider.js';
import { sleep } from '../test/support/lifetime.js';
import { random } from '../test/support/random.js';
import { ms, scenario } from './scenario.js';

const SECONDS = 60;
const AT_ONCE = 8;

scenario(
  'A-044',
  `signing keys rotate each second for ${String(SECONDS)} s with logins all the time: every login succeeds at the first try`,
  4,
  async (say) => {
    const draw = random('signing keys');
    // Keys of elliptic curves are made in no time.
    const provider = await startProvider({ alg: 'ES256' });
    const c = await startCloakroom({ provider, tap: false });
    const outcomes: Record<string, number> = {};
    const times: number[] = [];
    let over = false;
    const people = Array.from({ length: AT_ONCE }, async (_, at) => {
      while (!over) {
        const begun = performance.now();
        const { status } = await c.client({ replica: at % c.replicas.length }).login();
        times.push(performance.now() - begun);
        outcomes[String(status)] = (outcomes[String(status)] ?? 0) + 1;
        await sleep(draw.int(5, 60));
      }
    });
    for (let rotation = 0; rotation < SECONDS; rotation += 1) {
      // The old key stays published for a second: a token signed just before the rotation must still be read.
      await provider.rotateKeys();
      for (const old of provider.keys.slice(0, -2)) old.published = false;
      await sleep(1000);
    }
    over = true;
    await Promise.all(people);
    times.sort((a, b) => a - b);
    say(
      `${String(times.length)} logins over ${String(SECONDS)} rotations: ${JSON.stringify(outcomes)}; slowest ${ms(times.at(-1) ?? 0)}`,
    );
    say(`keys read ${String(provider.ledger.count('jwks'))} times by ${String(c.replicas.length)} replicas`);
    expect(outcomes).toEqual({ 303: times.length });
    expect(times.length).toBeGreaterThan(SECONDS * 5);
    expect(c.events('id_token_rejected')).toEqual([]);
  },
);
