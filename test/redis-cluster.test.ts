import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import type { BrowserClient, BrowserResponse } from './support/browser-client.js';
import { runCloakroom, startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';
import { loginsLast, loginsNeedRefresh } from './support/over-at-once.js';
import { ownRedis } from './support/redis.js';
import { startRedisCluster, type RedisCluster } from './support/redis-cluster.js';
import { StoredSession } from './support/stored-session.js';

// Only a Redis of the tests' own may be killed, frozen or configured; REDIS_URL may be somebody else's.
const onCluster = ownRedis ? test : test.skip;
/** A request that has no answer after this is one that hangs. */
const NOT_HANGING = 5000;

let cluster: RedisCluster;
let c: Cloakroom;

beforeAll(async () => {
  if (!ownRedis) return;
  cluster = await startRedisCluster();
  c = await startCloakroom({ redis: cluster, config: { store: { redis: { cluster: true } } } });
});

beforeEach(async () => {
  if (!ownRedis) return;
  for (const replica of c.replicas) await replica.waitReady();
  loginsLast(c.provider, 300);
});

afterAll(async () => {
  if (ownRedis) await expectLeftClean(c);
});

const call = (client: BrowserClient, replica?: number): Promise<BrowserResponse> =>
  client.api('/api/x', { timeout: NOT_HANGING, ...(replica === undefined ? {} : { replica }) });

const keyOf = (client: BrowserClient): string => new StoredSession(c, client).key;

/** Browsers with a session, so many that every node holds one. By node. */
async function signedInEverywhere(): Promise<BrowserClient[][]> {
  const byNode: BrowserClient[][] = cluster.nodes.map(() => []);
  for (let i = 0; i < 60 && byNode.some((clients) => clients.length === 0); i += 1) {
    const client = await c.signedIn({ user: `u${String(i)}` });
    byNode[await cluster.ownerOf(keyOf(client))]?.push(client);
  }
  expect(byNode.every((clients) => clients.length > 0)).toBe(true);
  return byNode;
}

function expectStoreUnavailable(answer: BrowserResponse): void {
  expect([answer.status, answer.problem]).toEqual([503, 'store-unavailable']);
  expect(Number(answer.headers['retry-after'])).toBeGreaterThanOrEqual(1);
  expect(answer.setCookies).toEqual([]);
}

/** Calls at every replica until each is served; an answer before may be a 503 and nothing else. */
async function servedAgain(clients: BrowserClient[]): Promise<void> {
  for (const client of clients) {
    for (const { index } of c.replicas) {
      await eventually(
        async () => {
          const { status, text } = await call(client, index);
          if (status !== 200 && status !== 503) throw new Error(`${String(status)} ${text}`);
          return status === 200;
        },
        { timeout: 20_000, what: 'service to come back' },
      );
    }
  }
}

/** How often each replica logged an event since the marks. */
const linesSince = (marks: number[], event: string): number[] =>
  c.replicas.map((replica, i) => replica.events(event, marks[i]).length);

onCluster('a session lives its life: login, calls, refresh, logout, on whichever node it is', async () => {
  loginsNeedRefresh(c.provider);
  const byNode = await signedInEverywhere();
  for (const client of byNode.flat()) {
    expect((await call(client, 0)).status).toBe(200);
    expect((await call(client, 1)).status).toBe(200);
    expect(await cluster.command('HGET', keyOf(client), 'gen')).toBe('2');
  }
  expect(c.provider.ledger.doubleSpends).toEqual([]);
  const keys = await cluster.keys();
  expect(keys.map((found) => found.some((key) => key.endsWith(':session')))).toEqual([true, true, true]);
  for (const [client] of byNode) {
    if (client === undefined) continue;
    const cookie = `${client.cookieName('session')}=${client.sessionCookie?.value ?? ''}`;
    const key = keyOf(client);
    expect((await client.logout()).post.status).toBe(200);
    expect(await cluster.command('EXISTS', key)).toBe(0);
    for (const { index } of c.replicas)
      expect((await client.api('/api/x', { cookie, replica: index })).status).toBe(401);
  }
});

onCluster('user and password of the address are used at every node', async () => {
  for (const index of cluster.nodes.keys()) {
    const users = await cluster.usersAt(index);
    expect(users.filter((user) => user === cluster.user).length).toBeGreaterThanOrEqual(c.replicas.length);
  }
});

onCluster('a key deleted at its node ends that session at every replica, and no other', async () => {
  const clients = (await signedInEverywhere()).map(([client]) => client as BrowserClient);
  for (const [index, client] of clients.entries()) {
    expect((await call(client, 0)).status).toBe(200);
    expect(await cluster.node(index).command('DEL', keyOf(client))).toBe(1);
    for (const replica of c.replicas) expect((await call(client, replica.index)).status).toBe(401);
    for (const other of clients.slice(index + 1)) expect((await call(other)).status).toBe(200);
  }
});

onCluster('keys with an end only', async () => {
  await signedInEverywhere();
  const endless = [...(await cluster.lifetimes())].filter(([, left]) => left < 0);
  expect(endless).toEqual([]);
});

onCluster(
  'one master killed: 503 for its sessions, the others are served; it heals and nobody is logged out',
  async () => {
    const byNode = await signedInEverywhere();
    const marks = c.replicas.map((replica) => replica.mark());
    for (const index of [1, 0]) {
      await cluster.node(index).kill();
      for (let round = 0; round < 10; round += 1) {
        for (const [at, clients] of byNode.entries()) {
          for (const client of clients.slice(0, 2)) {
            const answer = await call(client);
            if (at === index) expectStoreUnavailable(answer);
            else expect([answer.status, answer.setCookies]).toEqual([200, []]);
          }
        }
      }
      for (const replica of c.replicas)
        expect((await c.client().fetch('/readyz', { replica: replica.index })).status).toBe(200);
      await cluster.node(index).restart();
      await servedAgain(byNode.flat());
    }
    await eventually(() => linesSince(marks, 'store_node_available').every((count) => count === 2));
    expect(linesSince(marks, 'store_node_unavailable')).toEqual([2, 2]);
    expect(linesSince(marks, 'store_unavailable')).toEqual([0, 0]);
  },
);

onCluster('one master that stands still: 503 for its sessions, the others are served; it heals', async () => {
  const byNode = await signedInEverywhere();
  cluster.node(2).pause();
  for (let round = 0; round < 10; round += 1) {
    for (const [at, clients] of byNode.entries()) {
      const answer = await call(clients[0] as BrowserClient);
      if (at === 2) expectStoreUnavailable(answer);
      else expect(answer.status).toBe(200);
    }
  }
  cluster.node(2).resume();
  await servedAgain(byNode.flat());
});

onCluster(
  'all masters killed, and the configured one stays away: the others are found again without it',
  async () => {
    const byNode = await signedInEverywhere();
    const marks = c.replicas.map((replica) => replica.mark());
    await Promise.all(cluster.nodes.map((node) => node.kill()));
    for (const client of byNode.flat().slice(0, 6)) expectStoreUnavailable(await call(client));
    expect((await c.client().fetch('/readyz', { timeout: NOT_HANGING })).status).toBe(503);
    expect((await c.client().api('/api/x', { timeout: NOT_HANGING })).status).toBe(401);
    await Promise.all([cluster.node(1).restart(), cluster.node(2).restart()]);
    await servedAgain([...(byNode[1] ?? []), ...(byNode[2] ?? [])]);
    expectStoreUnavailable(await call(byNode[0]?.[0] as BrowserClient));
    await cluster.node(0).restart();
    await servedAgain(byNode.flat());
    await eventually(() => linesSince(marks, 'store_available').every((count) => count > 0));
    expect(linesSince(marks, 'store_unavailable')).toEqual([1, 1]);
    expect(linesSince(marks, 'store_available')).toEqual([1, 1]);
  },
);

onCluster('a slot that moves to another node takes its sessions along: nobody notices', async () => {
  const client = (await signedInEverywhere())[0]?.[0] as BrowserClient;
  await servedAgain([client]);
  const slot = Number(await cluster.node(0).command('CLUSTER', 'KEYSLOT', keyOf(client)));
  const served = async (): Promise<void> => {
    for (const { index } of c.replicas) expect((await call(client, index)).status).toBe(200);
  };
  await cluster.moveSlot(slot, 0, 1, served);
  await served();
  expect((await client.logout()).post.status).toBe(200);
});

onCluster('a process that starts while the cluster is away is ready by itself when it is back', async () => {
  await Promise.all(cluster.nodes.map((node) => node.kill()));
  const room = await startCloakroom({
    redis: cluster,
    provider: c.provider,
    config: { store: { redis: { cluster: true } } },
    replicas: 1,
    ready: false,
  });
  expect((await room.client().fetch('/readyz', { timeout: NOT_HANGING })).status).toBe(503);
  await sleep(1000);
  await Promise.all(cluster.nodes.map((node) => node.restart()));
  await room.first.waitReady();
  await cluster.settled();
  await eventually(async () => (await room.client().login()).status === 303, { what: 'a login' });
  cluster.node(1).pause();
  expect(await room.first.stop()).toBe(0);
  cluster.node(1).resume();
  await room.close();
});

onCluster('cloakroom check tells of every master', async () => {
  await cluster.settled();
  const { code, stdout, stderr } = await runCloakroom(['check', '--config', c.first.configFile]);
  expect([code, stderr]).toEqual([0, '']);
  expect(stdout).toContain('3 masters');
  expect(stdout).not.toContain(new URL(cluster.url).password);
  await cluster.node(2).kill();
  const broken = await runCloakroom(['check', '--config', c.first.configFile]);
  await cluster.node(2).restart();
  expect(broken.code).toBe(78);
  expect(broken.stderr).toContain(`127.0.0.1:${String(cluster.node(2).port)}`);
});
