import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { parse, stringify } from 'yaml';
import { Administration } from './support/administration.js';
import { inParallel, type BrowserClient, type Me } from './support/browser-client.js';
import { startCloakroom, type Cloakroom, type ConfigFile } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { sleep } from './support/lifetime.js';
import { loginsNeedRefresh } from './support/over-at-once.js';
import { random } from './support/random.js';
import { startRedis, startRedisProxy, type RedisProxy, type RedisServer } from './support/redis.js';
import { answersOf, cookieOf, seedEach } from './support/seeded.js';
import { StoredSession } from './support/stored-session.js';

const DAY = 24 * 60 * 60 * 1000;
const REPLICAS = 2;
/** Races of a login with an ending. */
const ROUNDS = 300;

let redis: RedisServer;
let proxy: RedisProxy;
let c: Cloakroom;
/** Past the proxy in front of the replicas' Redis. */
let administration: Administration;

async function newAdministration(): Promise<Administration> {
  return await Administration.start(c, { CLOAKROOM_STORE__REDIS__URL: redis.url });
}

beforeAll(async () => {
  redis = await startRedis();
  proxy = await startRedisProxy(redis);
  c = await startCloakroom({
    replicas: REPLICAS,
    redis: proxy,
    config: { store: { redis: { commandTimeout: '5s' } } },
  });
  c.writeSecret('seal-1', randomBytes(32).toString('hex'));
  administration = await newAdministration();
});

beforeEach(() => {
  c.provider.reset();
});

afterAll(async () => {
  await expectLeftClean(c, 31 * DAY);
});

function cookieHeader(client: BrowserClient): string {
  return `${client.cookieName('session')}=${client.sessionCookie?.value ?? ''}`;
}

/** Sets that name this handle. */
async function naming(handle: string): Promise<number> {
  const sets = await redis.keys(`${c.prefix}:*:sessions`);
  const scores = await Promise.all(sets.map((key) => redis.client.zscore(key, handle)));
  return scores.filter((score) => score !== null).length;
}

describe('the index heals itself', () => {
  test('entries of sessions that were deleted by hand vanish when somebody looks, those of the living stay', async () => {
    const subject = 'healed';
    const createdAt = Date.now() - 120_000;
    const [dead, alive] = await seedEach(c, administration, [
      { subject, sid: 'healed-sid', createdAt },
      { subject, sid: 'healed-sid', createdAt },
    ]);
    if (dead === undefined || alive === undefined) throw new Error('not seeded');
    expect([await naming(dead.handle), await naming(alive.handle)]).toEqual([3, 3]);
    await redis.command('DEL', `${c.prefix}:{${dead.handle}}:session`);
    expect(await administration.handles({ subject })).toEqual([alive.handle]);
    expect(await naming(dead.handle)).toBe(2);
    expect(await administration.handles({ sid: 'healed-sid' })).toEqual([alive.handle]);
    await administration.sweep();
    expect([await naming(dead.handle), await naming(alive.handle)]).toEqual([0, 3]);
  });

  test('an entry without a session is left alone while its session may be on the way', async () => {
    const [young] = await seedEach(c, administration, [{ subject: 'young' }]);
    if (young === undefined) throw new Error('not seeded');
    await redis.command('DEL', `${c.prefix}:{${young.handle}}:session`);
    await administration.sweep();
    expect(await administration.handles({ subject: 'young' })).toEqual([]);
    expect(await naming(young.handle)).toBe(2);
  });

  test('a key that is no session, or a damaged one, disturbs no list, and an end takes it away', async () => {
    const wishes = ['string', 'list', 'no-times', 'noise', 'whole'].map((kind) => ({
      subject: `junk-${kind}`,
    }));
    const seeded = await seedEach(c, administration, wishes);
    const keys = seeded.map(({ handle }) => `${c.prefix}:{${handle}}:session`);
    const [text = '', list = '', times = '', noise = ''] = keys;
    await redis.client.set(text, 'junk', 'PX', 60_000);
    await redis.client.multi().del(list).lpush(list, 'x').pexpire(list, 60_000).exec();
    await redis.client.hset(times, 'created', 'yesterday', 'touched', 'never');
    await redis.client.hset(noise, 'about', randomBytes(200));
    expect(await administration.handles({ subject: 'junk-whole' })).toHaveLength(1);
    expect(await administration.handles({ subject: 'junk-noise' })).toEqual([]);
    const everybody = await administration.handles({ all: true }, 2);
    expect(everybody).toContain(seeded[4]?.handle);
    expect(everybody).not.toContain(seeded[3]?.handle);
    await administration.end({ all: true });
    expect(await redis.client.exists(noise, keys[4] ?? '')).toBe(0);
    expect(await answersOf(c, seeded.slice(2).map(cookieOf))).toEqual([...['401 session-required operator']]);
    await redis.client.del(...keys);
  });
});

test(`no living session is missing from its lists while others end and the index is swept (${String(ROUNDS)} logins)`, async () => {
  const dice = random('sweeps');
  const sweeper = await newAdministration();
  const over = new AbortController();
  const busy = (async () => {
    while (!over.signal.aborted) {
      await sweeper.sweep();
      await sweeper.count({ user: 'nobody@example.test' });
    }
  })();
  const missing: string[] = [];
  await inParallel(
    Array.from({ length: ROUNDS }, (_, at) => async () => {
      const user = `listed-${String(at)}`;
      const client = await c.signedIn({ user });
      const { handle } = new StoredSession(c, client);
      const { issuer } = c.provider;
      for (const filter of [{ issuer, subject: user }, { user }]) {
        if (!(await administration.handles(filter)).includes(handle)) missing.push(handle);
      }
      const then = dice.pick(['end', 'leave', 'stay', 'stay']);
      if (then === 'end') await administration.end({ handle });
      else if (then === 'leave') await client.logout({ navigate: false });
      else if (!(await administration.handles({ sid: await sidOf(handle) })).includes(handle))
        missing.push(handle);
    }),
    8,
  );
  over.abort();
  await busy;
  expect(missing).toEqual([]);
  await sweeper.close();

  async function sidOf(handle: string): Promise<string> {
    return (await administration.show(handle))?.sid ?? '';
  }
});

test(`a login that races with an end of everybody or of its person: no session from before the end survives it (${String(ROUNDS)} rounds)`, async () => {
  const dice = random('login against end');
  const survivors: string[] = [];
  /** Logins that the end caught. */
  let caught = 0;
  try {
    for (let done = 0; done < ROUNDS; done += 10) {
      // Slow writes: there is time between the entry in the index and the session.
      proxy.delay(dice.int(0, 12));
      const users = Array.from({ length: 10 }, (_, i) => `racer-${String(done + i)}`);
      const clients = users.map(() => c.client());
      const attempts = await Promise.all(clients.map((client) => client.beginLogin()));
      const logins = attempts.map(async (attempt, i) => {
        await sleep(dice.int(0, 60));
        return await attempt.finish({ as: users[i] ?? '' });
      });
      // At any moment, and as often when one of them is through and the others are under way, however slow the machine is.
      await (dice.chance(0.5) ? Promise.any(logins) : sleep(dice.int(0, 100)));
      // By e-mail everybody has to be looked at, as for everybody.
      const user = dice.pick(users);
      const one = dice.chance(0.3);
      const asked = Date.now();
      await administration.end(one ? { user: `${user}@example.test` } : { all: true });
      const answers = await Promise.all(logins);
      proxy.delay(0);
      for (const [i, client] of clients.entries()) {
        expect(answers[i]?.status).toBe(303);
        if (one && users[i] !== user) continue;
        if (client.sessionCookie === undefined) {
          // Stored a moment too late to be found: taken back, and the person is sent round again.
          expect(answers[i]?.location).toContain('prompt=login');
          caught += 1;
          continue;
        }
        const me = await client.me();
        if (me.status !== 200) {
          caught += 1;
          continue;
        }
        const began = Date.parse(me.json<Me>().session.createdAt);
        if (began < asked) survivors.push(`${users[i] ?? ''} began ${String(asked - began)} ms before`);
      }
    }
  } finally {
    proxy.delay(0);
  }
  expect(survivors).toEqual([]);
  expect(caught).toBeGreaterThan(ROUNDS / 20);
});

describe('what is sealed for one session does not open for another', () => {
  test('descriptions that were swapped in Redis are believed for neither, and both sessions can be ended', async () => {
    const [a, b] = await seedEach(c, administration, [{ subject: 'swap-a' }, { subject: 'swap-b' }]);
    if (a === undefined || b === undefined) throw new Error('not seeded');
    const keys = [a, b].map(({ handle }) => `${c.prefix}:{${handle}}:session`);
    const [keyA = '', keyB = ''] = keys;
    const about = await Promise.all(keys.map((key) => redis.client.hgetBuffer(key, 'about')));
    await redis.client.hset(keyA, 'about', about[1] ?? '');
    await redis.client.hset(keyB, 'about', about[0] ?? '');
    for (const { subject, handle } of [a, b]) {
      expect(await administration.handles({ subject })).toEqual([]);
      expect(await administration.show(handle)).toBeUndefined();
      expect((await administration.end({ handle })).ended).toBe(1);
    }
    expect(await answersOf(c, [cookieOf(a), cookieOf(b)])).toEqual(['401 session-required operator']);
  });

  test('an entry moved into the set of somebody else ends nobody of his', async () => {
    const [a, b] = await seedEach(c, administration, [{ subject: 'moved-a' }, { subject: 'moved-b' }]);
    if (a === undefined || b === undefined) throw new Error('not seeded');
    for (const key of await redis.keys(`${c.prefix}:*:sessions`)) {
      if (!key.includes('{all}') && (await redis.client.zscore(key, a.handle)) !== null) {
        await redis.client.zadd(key, Date.now(), b.handle);
      }
    }
    expect(await administration.handles({ subject: 'moved-a' })).toEqual([a.handle]);
    expect((await administration.end({ subject: 'moved-a' })).ended).toBe(1);
    expect(await answersOf(c, [cookieOf(b)])).toEqual(['200']);
  });
});

describe('the server key of the index is changed', () => {
  async function sealUnder(...names: string[]): Promise<void> {
    for (const { configFile } of c.replicas) {
      const file = parse(readFileSync(configFile, 'utf8')) as ConfigFile & { secrets: ConfigFile };
      file.secrets['seal'] = names.map((name) => ({ file: join(c.folder, name) }));
      writeFileSync(configFile, stringify(file));
    }
    await Promise.all(c.replicas.map((replica) => replica.restart()));
    await administration.close();
    administration = await newAdministration();
  }

  test('sessions of both keys are listed once each; one that was refreshed under the new key is found when the old is gone', async () => {
    await administration.end({ all: true });
    loginsNeedRefresh(c.provider, { accessTokenLifetime: 3600 });
    const old = await c.signedIn({ user: 'rotated' });
    const unused = await c.signedIn({ user: 'rotated' });
    await sealUnder('seal-1', 'seal-0');
    const young = await c.signedIn({ user: 'rotated' });
    const [oldHandle, unusedHandle, youngHandle] = [old, unused, young].map(
      (client) => new StoredSession(c, client).handle,
    );
    const filter = { issuer: c.provider.issuer, subject: 'rotated' };
    const sid = (await administration.show(oldHandle ?? ''))?.sid ?? 'none';
    expect((await administration.handles(filter, 1)).sort()).toEqual(
      [oldHandle, unusedHandle, youngHandle].sort(),
    );
    // The refresh writes it anew, under the new key.
    expect((await old.api('/api/x')).status).toBe(200);
    expect(await new StoredSession(c, old).generation()).toBe(2);
    expect(await administration.count(filter)).toBe(3);
    await sealUnder('seal-1');
    expect((await administration.handles(filter)).sort()).toEqual([oldHandle, youngHandle].sort());
    expect(await administration.handles({ sid })).toEqual([oldHandle]);
    expect(await administration.handles({ user: 'rotated@example.test' })).toHaveLength(2);
    expect((await administration.end(filter)).ended).toBe(2);
    expect(await answersOf(c, [cookieHeader(old), cookieHeader(young)])).toEqual([
      '401 session-required operator',
    ]);
    // Nobody can read whose the third one is, and nobody can use it; everybody includes it.
    expect(await answersOf(c, [cookieHeader(unused)])).toEqual(['401 session-required']);
    expect((await administration.end({ all: true })).ended).toBe(1);
    expect(await redis.keys(`${c.prefix}:*:session`)).toEqual([]);
  });
});
