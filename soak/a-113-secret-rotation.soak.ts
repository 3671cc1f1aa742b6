import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from '@jest/globals';
import { parse, stringify } from 'yaml';
import { merge, startCloakroom, type Cloakroom, type ConfigFile } from '../test/support/cloakroom.js';
import { sleep } from '../test/support/lifetime.js';
import { loginsLast } from '../test/support/over-at-once.js';
import { Load, startPlainUpstream } from './load.js';
import { logIn, statusesOf } from './people.js';
import { scenario } from './scenario.js';

const REPLICAS = 3;
const PEOPLE = 1000;
const RATE = 200;
/** Milliseconds: the balancer must see that a replica is back before the next one goes. */
const BETWEEN = 300;

type Kind = 'cookie' | 'seal';

/** A rolling restart with these files as the secrets of one kind, the one that writes first. */
async function deploy(c: Cloakroom, kind: Kind, names: string[]): Promise<void> {
  const secrets = { [kind]: names.map((name) => ({ file: join(c.folder, name) })) };
  for (const replica of c.replicas) {
    const file = parse(readFileSync(replica.configFile, 'utf8')) as ConfigFile;
    writeFileSync(replica.configFile, stringify(merge(file, { secrets })));
    await replica.restart();
    await sleep(BETWEEN);
  }
}

scenario(
  'A-113',
  `${String(PEOPLE)} people are signed in while the cookie and the seal secret are rotated over ${String(REPLICAS)} replicas: nobody is logged out, and retiring ends exactly the sessions under the old one`,
  10,
  async (say) => {
    const c = await startCloakroom({
      replicas: REPLICAS,
      tap: false,
      upstream: await startPlainUpstream(),
      config: { shutdown: { delay: '500ms', drain: '10s' }, store: { redis: { commandTimeout: '2s' } } },
    });
    loginsLast(c.provider, 3600);
    let before = await logIn(c, PEOPLE, say);
    for (const kind of ['cookie', 'seal'] as const) {
      const [old, next] = [`${kind}-0`, `${kind}-1`];
      c.writeSecret(next, randomBytes(32).toString('hex'));
      const load = await Load.start(c, { clients: before, rate: RATE, seconds: 300, balance: true });
      // First every replica accepts the new one, then it becomes the one that writes.
      await deploy(c, kind, [old, next]);
      await deploy(c, kind, [next, old]);
      const all = await load.stop();
      say(
        `${kind}: ${String(2 * REPLICAS)} restarts under ${all.rate.toFixed(0)} calls/s: ${all.describe()}`,
      );
      expect(all.statuses).toEqual({ 200: all.count });
      const after = await logIn(c, PEOPLE / 10, say);
      expect(await statusesOf([...before, ...after])).toEqual({ 200: before.length + after.length });
      say(`${kind}: ${String(before.length)} old and ${String(after.length)} new sessions are served`);
      // Clones: a refused cookie is cleared.
      const lost = before.map((client) => client.clone());
      await deploy(c, kind, [next]);
      const [ofOld, ofNew] = [await statusesOf(lost), await statusesOf(after)];
      say(`${kind}: the old one retired: old ${JSON.stringify(ofOld)}, new ${JSON.stringify(ofNew)}`);
      expect([ofOld, ofNew]).toEqual([{ 401: before.length }, { 200: after.length }]);
      await deploy(c, kind, [next, old]);
      before = [...before, ...after];
      expect(await statusesOf(before)).toEqual({ 200: before.length });
    }
    say(`${String(before.length)} of ${String(before.length)} sessions are served at the end`);
  },
);
