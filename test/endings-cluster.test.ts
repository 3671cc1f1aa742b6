import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { Administration } from './support/administration.js';
import { runCloakroom, startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { liveTokensOf, revocationsOf } from './support/ended-for-good.js';
import { EventReader } from './support/event-reader.js';
import { expectLeftClean } from './support/left-clean.js';
import { closeLater, eventually } from './support/lifetime.js';
import { deliver, logoutToken, person, statuses } from './support/logout-tokens.js';
import { loginsLast } from './support/over-at-once.js';
import { ownRedis } from './support/redis.js';
import { startRedisCluster, type RedisCluster } from './support/redis-cluster.js';
import { answersOf, cookieOf, seedEach, seedSessions } from './support/seeded.js';

// Only a Redis of the tests' own may be killed, frozen or configured; REDIS_URL may be somebody else's.
const onCluster = ownRedis ? test : test.skip;
const DAY = 24 * 60 * 60 * 1000;
const OPERATOR = '401 session-required operator';
/** More than two pages. */
const OF_ONE_PERSON = 600;

const env = { REVOCATION: randomBytes(32).toString('hex') };

let cluster: RedisCluster;
let c: Cloakroom;
let administration: Administration;
/** It waits for clocks while the other tests run. */
let killed: Promise<void>;

type Seeded = Awaited<ReturnType<typeof seedEach>>;

beforeAll(async () => {
  if (!ownRedis) return;
  cluster = await startRedisCluster();
  c = await startCloakroom({
    redis: cluster,
    env,
    config: {
      store: { redis: { cluster: true, commandTimeout: '5s' } },
      secrets: { revocation: [{ env: 'REVOCATION' }] },
      session: { freshLoginFor: '0s' },
    },
  });
  loginsLast(c.provider, 3600);
  administration = await Administration.start(c, env);
  killed = killedInTheMiddle();
  killed.catch(() => undefined);
});

afterAll(async () => {
  if (ownRedis) await expectLeftClean(c, 31 * DAY);
});

const sessionKey = (handle: string): string => `${c.prefix}:{${handle}}:session`;

function cli(...args: string[]): ReturnType<typeof runCloakroom> {
  return runCloakroom([...args, '--config', c.first.configFile], { env });
}

/** The first of these that each node holds. */
async function oneOnEachNode(seeded: Seeded): Promise<Seeded> {
  const owners = await Promise.all(seeded.map(({ handle }) => cluster.ownerOf(sessionKey(handle))));
  const first = cluster.nodes.map((_, node) => seeded[owners.indexOf(node)]);
  expect(first).not.toContain(undefined);
  return first as Seeded;
}

/** Keys of a kind on each node. */
async function spread(kind: string): Promise<number[]> {
  return (await cluster.keys(`${c.prefix}:*:${kind}`)).map((keys) => keys.length);
}

async function killedInTheMiddle(): Promise<void> {
  const subject = 'killed';
  const filter = { issuer: c.provider.issuer, subject };
  const seeder = await Administration.start(c, env);
  const seeded = await seedEach(
    c,
    seeder,
    Array.from({ length: OF_ONE_PERSON }, () => ({ subject })),
  );
  const ender = await Administration.start(c, env);
  await expect(ender.end(filter, { id: 'killed', dieAtProgress: 1 })).rejects.toThrow('SIGKILL');
  const left = await seeder.count(filter);
  expect(left).toBeGreaterThan(0);
  expect(left).toBeLessThan(OF_ONE_PERSON);
  await eventually(async () => (await seeder.count(filter)) === 0, {
    timeout: 30_000,
    interval: 250,
    what: 'a replica to finish',
  });
  const subjects = new Set([subject]);
  await eventually(() => liveTokensOf(c.provider, subjects) === 0, { timeout: 30_000, interval: 100 });
  expect(revocationsOf(c.provider, subjects).filter((times) => times > 1).length).toBeLessThanOrEqual(32);
  const sample = await oneOnEachNode(seeded);
  const answers = await answersOf(c, sample.map(cookieOf));
  expect(answers.filter((answer) => !/^401 session-required (operator|elsewhere)$/.test(answer))).toEqual([]);
  await seeder.close();
}

onCluster('A-110 sessions on all nodes are listed in pages, each once, in the order they began', async () => {
  const began = Date.now() - 3_600_000;
  const seeded = await seedEach(
    c,
    administration,
    Array.from({ length: 60 }, (_, i) => ({
      subject: 'paged',
      sid: `paged-${String(i)}`,
      // Two at a time in the same millisecond.
      createdAt: began + (i >> 1),
      address: i % 3 === 0 ? '203.0.113.0/24' : '198.51.100.0/24',
    })),
  );
  await oneOnEachNode(seeded);
  const everybodys = await administration.handles({ all: true, createdBefore: began + 30 }, 7);
  expect([...everybodys].sort()).toEqual(seeded.map(({ handle }) => handle).sort());
  const place = new Map(seeded.map(({ handle }, i) => [handle, i >> 1]));
  const order = everybodys.map((handle) => place.get(handle) ?? -1);
  expect(order).toEqual([...order].sort((a, b) => a - b));
  expect(
    await administration.handles({ user: 'PAGED@example.test', createdBefore: began + 30 }, 100),
  ).toEqual(everybodys);
  expect(await administration.handles({ subject: 'paged' }, 100)).toEqual(everybodys);
  expect(await administration.handles({ sid: 'paged-17' })).toEqual([seeded[17]?.handle]);
  expect(await administration.handles({ address: '203.0.113.0/24' }, 100)).toEqual(
    everybodys.filter((handle) => seeded.findIndex((one) => one.handle === handle) % 3 === 0),
  );
  // A session that ends between two pages disturbs neither.
  const first = await administration.page({ subject: 'paged' }, undefined, 10);
  expect((await administration.end({ handle: everybodys[9] ?? '' })).ended).toBe(1);
  const rest = await administration.page({ subject: 'paged' }, first.next, 100);
  expect(rest.sessions.map(({ handle }) => handle)).toEqual(everybodys.slice(10));

  const { code, stdout } = await cli('sessions', 'list', '--subject', 'paged', '--limit', '20', '--json');
  const lines = stdout.split('\n').filter((line) => line !== '');
  const listed = lines.map((line) => JSON.parse(line) as { handle?: string; next?: string });
  expect([code, listed.length]).toEqual([0, 21]);
  const next = listed.at(-1)?.next ?? '';
  const more = await cli('sessions', 'list', '--subject', 'paged', '--cursor', next, '--json');
  expect(more.stdout.match(/"handle":"([^"]+)"/g)).toHaveLength(39);
});

onCluster(
  'A-110 a damaged record and a key of another kind, on every node, are skipped, and can be ended',
  async () => {
    const wishes = Array.from({ length: 60 }, () => ({ subject: 'damaged' }));
    const seeded = await seedEach(c, administration, wishes);
    const [noise, text, list] = await oneOnEachNode(seeded);
    const key = (one: Seeded[number] | undefined): string => sessionKey(one?.handle ?? '');
    await cluster.command('HSET', key(noise), 'about', randomBytes(100).toString('latin1'));
    await cluster.command('SET', key(text), 'junk', 'PX', 60_000);
    await cluster.command('DEL', key(list));
    await cluster.command('RPUSH', key(list), 'junk');
    await cluster.command('PEXPIRE', key(list), 60_000);
    const damaged = [noise, text, list].map((one) => one?.handle ?? '');
    const whole = seeded.map(({ handle }) => handle).filter((handle) => !damaged.includes(handle));
    expect((await administration.handles({ subject: 'damaged' })).sort()).toEqual(whole.sort());
    expect((await cli('sessions', 'list', '--user', 'damaged', '--json')).code).toBe(0);
    for (const handle of damaged) await administration.end({ handle });
    expect((await administration.end({ subject: 'damaged' })).ended).toBe(whole.length);
    expect(await administration.count({ subject: 'damaged' })).toBe(0);
    const answers = await answersOf(c, seeded.slice(0, 12).map(cookieOf));
    expect(answers.filter((answer) => answer !== OPERATOR && answer !== '401 session-required')).toEqual([]);
    // What is no session at all is not ours to delete.
    for (const handle of damaged) await cluster.command('DEL', sessionKey(handle));
  },
);

onCluster('A-108 one is ended, then all of that person: on every replica, and nobody else', async () => {
  const seeded = await seedEach(
    c,
    administration,
    Array.from({ length: 40 }, (_, i) => ({ subject: i < 30 ? 'person' : 'bystander' })),
  );
  const cookies = seeded.map(cookieOf);
  expect(await answersOf(c, cookies)).toEqual(['200']);
  const one = seeded[7];
  expect(await administration.show(one?.handle ?? '')).toMatchObject({ subject: 'person' });
  const ended = await administration.end({ handle: one?.handle ?? '' });
  expect(ended).toMatchObject({ ended: 1, durability: 'unreplicated' });
  expect(await answersOf(c, cookies.slice(7, 8))).toEqual([OPERATOR]);
  expect(await answersOf(c, [...cookies.slice(0, 7), ...cookies.slice(8)])).toEqual(['200']);
  const { code, stdout, stderr } = await cli(
    ...['sessions', 'end', '--user', 'person', '--reason', 'lost laptop', '--yes', '--json'],
  );
  expect([code, stderr.includes('store-unavailable')]).toEqual([0, false]);
  expect(stdout).toContain('"ended":29');
  expect(await answersOf(c, cookies.slice(0, 30))).toEqual([OPERATOR]);
  expect(await answersOf(c, cookies.slice(30))).toEqual(['200']);
  // Each refresh token is revoked by whichever replica finds it, though queue and records are on different nodes.
  const subjects = new Set(['person']);
  await eventually(() => liveTokensOf(c.provider, subjects) === 0, { timeout: 15_000 });
  expect(revocationsOf(c.provider, subjects)).toEqual(Array.from({ length: 30 }, () => 1));
  expect(revocationsOf(c.provider, new Set(['bystander'])).filter((times) => times > 0)).toEqual([]);
});

onCluster(
  'A-061 what belongs to a session shares its slot, and the sets are spread over the nodes',
  async () => {
    for (const kind of ['session', 'sessions', 'ended']) {
      expect([kind, (await spread(kind)).filter((count) => count > 0).length]).toEqual([kind, 3]);
    }
    const [handle = ''] = await administration.handles({ subject: 'bystander' });
    const slots = await Promise.all(
      ['session', 'revocation', 'ended'].map(
        async (kind) =>
          await cluster.node(0).command('CLUSTER', 'KEYSLOT', `${c.prefix}:{${handle}}:${kind}`),
      ),
    );
    expect(new Set(slots).size).toBe(1);
    expect([...(await cluster.lifetimes())].filter(([, left]) => left < 0 || left > 31 * DAY)).toEqual([]);
  },
);

onCluster('A-103 back-channel logout by sid ends that session, wherever it is kept', async () => {
  const people = [];
  for (let i = 0; i < 6; i += 1) people.push(await person(c));
  const [stays, ...go] = people;
  if (stays === undefined) throw new Error('nobody');
  const again = await person(c, go[0]?.sub);
  for (const [i, { sid }] of go.entries()) {
    const answer = await deliver(c, await logoutToken(c.provider, { sid }), { replica: i % 2 });
    expect(answer.status).toBe(200);
  }
  for (const one of go) expect(await statuses(c, one)).toEqual([401, 401]);
  for (const one of [stays, again]) expect(await statuses(c, one)).toEqual([200, 200]);
  const answer = await deliver(c, await logoutToken(c.provider, { sub: again.sub }));
  expect(answer.status).toBe(200);
  expect(await statuses(c, again)).toEqual([401, 401]);
});

onCluster(
  'A-094 streams on every replica are told of an end at any node, and every node passes it on',
  async () => {
    const seeded = await seedSessions(c, administration, 40, 'streams');
    const onNodes = await oneOnEachNode(seeded);
    const heard: string[][] = cluster.nodes.map(() => []);
    for (const [at, node] of cluster.nodes.entries()) {
      const listener = node.client.duplicate();
      closeLater(() => {
        listener.disconnect();
      });
      listener.on('message', (_channel: string, message: string) => heard[at]?.push(message));
      await listener.subscribe(`${c.prefix}:announcements`);
    }
    const client = c.client();
    const streams = await Promise.all(
      onNodes.flatMap((one) =>
        c.replicas.flatMap((_, replica) => [
          EventReader.open(client, '/auth/events', { replica, cookie: cookieOf(one) }),
          EventReader.open(client, '/api/sse/100000/300', {
            ...{ replica, cookie: cookieOf(one), headers: { 'x-csrf': '1' } },
          }),
        ]),
      ),
    );
    expect(new Set(streams.map(({ status }) => status))).toEqual(new Set([200]));
    for (const { handle } of onNodes) expect((await administration.end({ handle })).ended).toBe(1);
    for (const [i, stream] of streams.entries()) {
      await stream.end();
      if (i % 2 === 0) expect(stream.named('ended')).toEqual([{ reason: 'operator' }]);
    }
    const wanted = onNodes.map(({ handle }) => `ended ${handle} operator`);
    for (const messages of heard) {
      await eventually(() => wanted.every((message) => messages.includes(message)), {
        what: 'every node to pass on every end',
      });
    }
  },
);

onCluster(
  'B-34 whoever ends the sessions of a person is killed in the middle: a replica finishes',
  async () => {
    await killed;
  },
  60_000,
);

onCluster('A-108 everybody is ended, counted, and nothing is left in any index on any node', async () => {
  const seeded = await seedSessions(c, administration, 700, 'everybody');
  const there = await administration.count({ all: true });
  expect(there).toBeGreaterThanOrEqual(700);
  expect((await administration.end({ all: true })).ended).toBe(there);
  const sample = seeded.filter((_, i) => i % 20 === 0).map(cookieOf);
  expect(await answersOf(c, sample)).toEqual([OPERATOR]);
  expect(await spread('session')).toEqual([0, 0, 0]);
  expect(await administration.handles({ all: true })).toEqual([]);
});

onCluster('a new policy epoch ends what began before it, on all nodes and replicas', async () => {
  const before = (await seedSessions(c, administration, 30, 'before')).map(cookieOf);
  expect(await answersOf(c, before)).toEqual(['200']);
  await administration.bump('end');
  await eventually(async () => (await answersOf(c, before)).join() === '401 session-required epoch', {
    timeout: 5000,
    what: 'the epoch to be known',
  });
  const after = await c.signedIn({ user: 'after' });
  expect((await after.api('/api/x')).status).toBe(200);
});

onCluster(
  'nothing was refused by a node for its slot, and nothing else but the keys of another kind',
  async () => {
    const kinds = new Set<string>();
    const commands = new Set<string>();
    for (const node of cluster.nodes) {
      const errors = String(await node.command('INFO', 'errorstats'));
      const calls = String(await node.command('INFO', 'commandstats'));
      for (const [, kind = ''] of errors.matchAll(/errorstat_([^:]+):/g)) kinds.add(kind);
      for (const [, name = '', rejected, failed] of calls.matchAll(
        /cmdstat_([^:]+):.*rejected_calls=(\d+),failed_calls=(\d+)/g,
      )) {
        if (Number(rejected) + Number(failed) > 0) commands.add(name);
      }
    }
    // `ERR` is the client library's CLIENT SETINFO, which is younger than this Redis may be and counts for no command.
    expect([...kinds].filter((kind) => !['ERR', 'WRONGTYPE'].includes(kind))).toEqual([]);
    expect([...commands]).toEqual(['hmget']);
    expect(c.events('store_refused')).toEqual([]);
    expect(c.events('store_node_unavailable')).toEqual([]);
  },
);
