import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { parse, stringify } from 'yaml';
import { inParallel, type BrowserClient } from './support/browser-client.js';
import {
  merge,
  repository,
  startCloakroom,
  type Cloakroom,
  type ConfigFile,
  type Replica,
} from './support/cloakroom.js';
import type { FaultProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';
import { loginsLast, loginsNeedRefresh } from './support/over-at-once.js';
import { startRedis, type RedisServer } from './support/redis.js';
import { StoredSession } from './support/stored-session.js';

let redis: RedisServer;
let c: Cloakroom;
let provider: FaultProvider;

beforeAll(async () => {
  redis = await startRedis();
  c = await startCloakroom({ redis });
  provider = c.provider;
});

beforeEach(() => {
  loginsLast(provider, 3600);
});

afterAll(async () => {
  await expectLeftClean(c);
});

async function restart(replica: Replica, change: ConfigFile): Promise<void> {
  const file = parse(readFileSync(replica.configFile, 'utf8')) as ConfigFile;
  writeFileSync(replica.configFile, stringify(merge(file, change)));
  await replica.restart();
}

/** A rolling restart with a changed configuration, as a deployment does it. */
async function deploy(change: ConfigFile): Promise<void> {
  for (const replica of c.replicas) await restart(replica, change);
}

/** The same where nobody is at work meanwhile. */
async function deployAtOnce(change: ConfigFile): Promise<void> {
  await Promise.all(c.replicas.map((replica) => restart(replica, change)));
}

function newKey(name: string): { file: string } {
  c.writeSecret(name, randomBytes(32).toString('hex'));
  return { file: join(c.folder, name) };
}

/**
 * Requests of people at work during `change`; answers what they saw that was not a 200. A process that has only just begun
 * to listen may say 503 until it is ready, which is when a load balancer would give it work.
 */
async function duringWork(clients: BrowserClient[], change: () => Promise<void>): Promise<string[]> {
  const wrong: string[] = [];
  let going = true;
  const work = clients.map(async (client) => {
    while (going) {
      await client.api('/api/x').then(
        ({ status, text }) => {
          if (status !== 200 && status !== 503) wrong.push(`${String(status)} ${text}`);
        },
        // A replica that restarts refuses connections; the load balancer of a real installation asks the other.
        (error: unknown) => {
          if (!/ECONNREFUSED|ECONNRESET|socket hang up/.test(String(error))) wrong.push(String(error));
        },
      );
      await sleep(40);
    }
  });
  await change();
  going = false;
  await Promise.all(work);
  return wrong;
}

const people = (count: number): Promise<BrowserClient[]> =>
  inParallel(
    Array.from({ length: count }, (_, i) => () => c.signedIn({ user: `user${String(i)}` })),
    4,
  );

const statuses = (clients: BrowserClient[]): Promise<number[]> =>
  inParallel(clients.map((client) => async () => (await client.api('/api/x')).status));

const all = (clients: BrowserClient[], status: number): number[] => clients.map(() => status);

describe.each(['cookie', 'seal'] as const)('A-113 a %s secret', (kind) => {
  const old = (): { file: string } => ({ file: join(c.folder, `${kind}-0`) });
  let before: BrowserClient[];
  let after: BrowserClient[];

  test('is rotated under load without one more 401, and both old and new sessions go on', async () => {
    before = await people(10);
    const next = newKey(`${kind}-1`);
    const wrong = await duringWork(before, async () => {
      // First every replica accepts the new one, then it becomes the one that writes.
      await deploy({ secrets: { [kind]: [old(), next] } });
      await deploy({ secrets: { [kind]: [next, old()] } });
    });
    expect(wrong).toEqual([]);
    after = await people(5);
    expect(await statuses([...before, ...after])).toEqual(all([...before, ...after], 200));
  });

  test('that is retired ends exactly the sessions under it', async () => {
    await deployAtOnce({ secrets: { [kind]: [{ file: join(c.folder, `${kind}-1`) }] } });
    const records = before.map((client) => new StoredSession(c, client));
    expect(await statuses(before)).toEqual(all(before, 401));
    expect(await statuses(after)).toEqual(all(after, 200));
    // A record that no longer opens is left to its end: a server of another version may still read it.
    for (const record of records) expect(await record.exists()).toBe(true);
    expect((await people(1)).length).toBe(1);
    await deployAtOnce({ secrets: { [kind]: [old(), { file: join(c.folder, `${kind}-1`) }] } });
  });
});

test('A-113 a record is sealed anew under the new key when its tokens are renewed', async () => {
  loginsNeedRefresh(provider);
  const [client] = await people(1);
  if (client === undefined) throw new Error('no session');
  const stored = new StoredSession(c, client);
  const kid = await stored.field('kid');
  const next = newKey('seal-2');
  await deployAtOnce({ secrets: { seal: [next, { file: join(c.folder, 'seal-0') }] } });
  expect((await client.api('/api/x')).status).toBe(200);
  expect(await stored.field('kid')).not.toBe(kid);
  // Now the old key can go.
  await deployAtOnce({ secrets: { seal: [next] } });
  expect((await client.api('/api/x')).status).toBe(200);
});

test('A-113 B-22 the client secret is replaced in place, without a restart: nobody is logged out', async () => {
  loginsNeedRefresh(provider);
  const clients = await people(6);
  const pids = c.replicas.map(({ pid }) => pid);
  const next = `secret-${randomBytes(24).toString('hex')}`;
  provider.setClientSecret(next);
  // The provider knows the new one, the file still has the old one: not the users' fault.
  const between = await inParallel(clients.map((client) => () => client.api('/api/x')));
  expect(between.map(({ status, problem }) => [status, problem])).toEqual(
    clients.map(() => [503, 'idp-unavailable']),
  );
  await c.logged('client_misconfigured', 1);
  expect(c.events('client_misconfigured').length).toBeGreaterThan(0);
  c.writeSecret('client-secret', next);
  await eventually(async () => (await statuses(clients)).every((status) => status === 200), {
    timeout: 15_000,
    interval: 250,
    what: 'everybody to be served again',
  });
  expect(c.replicas.map(({ pid }) => pid)).toEqual(pids);
  expect(c.events('session_ended')).toEqual([]);
  expect(provider.ledger.doubleSpends).toEqual([]);
});

test("A-113 the store's password is rotated with an overlap: nobody is logged out", async () => {
  const clients = await people(5);
  const url = (password: string): string => `redis://app:${password}@127.0.0.1:${String(redis.port)}`;
  const [first, second] = [randomBytes(16).toString('hex'), randomBytes(16).toString('hex')];
  const grant = (...rules: string[]): Promise<unknown> => redis.command('ACL', 'SETUSER', 'app', ...rules);
  // The rights that the documentation asks for and no more.
  const [, rules = ''] =
    /^ACL SETUSER cloakroom on >\S+ ~cloakroom:\* (.+)$/m.exec(
      readFileSync(join(repository, 'docs', 'redis.md'), 'utf8'),
    ) ?? [];
  expect(rules).toContain('-@all');
  await grant('on', `>${first}`, `~${c.prefix}:*`, ...rules.split(' '));
  const wrong = await duringWork(clients, async () => {
    await deploy({ store: { redis: { url: { file: storeUrl('redis-1', url(first)) } } } });
    await grant(`>${second}`);
    await deploy({ store: { redis: { url: { file: storeUrl('redis-2', url(second)) } } } });
    await grant(`<${first}`);
  });
  expect(wrong).toEqual([]);
  expect(await statuses(clients)).toEqual(all(clients, 200));
  expect((await c.client().login()).status).toBe(303);
});

function storeUrl(name: string, url: string): string {
  c.writeSecret(name, url);
  return join(c.folder, name);
}
