import { randomBytes } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Administration } from './support/administration.js';
import { inParallel, type BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import type { FaultProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { loginsLast, loginsNeedRefresh } from './support/over-at-once.js';
import { random } from './support/random.js';
import { startRedis, type RedisServer } from './support/redis.js';
import { foundIn } from './support/secret-search.js';
import { StoredSession } from './support/stored-session.js';

const REPLICAS = 4;
const IDLE = 30 * 60 * 1000;
const ABSOLUTE = 12 * 60 * 60 * 1000;

const env = { REVOCATION: randomBytes(32).toString('hex') };

let redis: RedisServer;
let c: Cloakroom;
let provider: FaultProvider;
/** Everything Redis was ever asked to do. */
const commands: string[] = [];
let closeMonitor = (): void => undefined;

beforeAll(async () => {
  redis = await startRedis({ appendonly: true, args: ['--rdbcompression', 'no'] });
  const monitor = await redis.client.monitor();
  monitor.on('monitor', (_time: string, args: string[]) => commands.push(args.join(' ')));
  c = await startCloakroom({
    replicas: REPLICAS,
    redis,
    env,
    config: {
      store: { redis: { commandTimeout: '2s' } },
      secrets: { revocation: [{ env: 'REVOCATION' }] },
    },
  });
  provider = c.provider;
  closeMonitor = () => {
    monitor.disconnect();
  };
});

beforeEach(() => {
  loginsLast(provider, 300);
});

afterAll(async () => {
  closeMonitor();
  await expectLeftClean(c, 31 * 24 * 60 * 60 * 1000);
});

async function signIn(
  count: number,
  name: string,
): Promise<{ client: BrowserClient; stored: StoredSession }[]> {
  return await inParallel(
    Array.from({ length: count }, (_, i) => async () => {
      const client = await c.signedIn({ user: `${name}-${String(i)}` });
      return { client, stored: new StoredSession(c, client) };
    }),
    8,
  );
}

describe('A-057 somebody who can write to Redis', () => {
  const COUNT = 100;
  const FIELDS = ['gen', 'kid', 'sealed'] as const;
  type Fields = Record<(typeof FIELDS)[number], Buffer>;

  async function read(stored: StoredSession): Promise<Fields> {
    const [gen, kid, sealed] = await redis.client.hmgetBuffer(stored.key, ...FIELDS);
    if (gen == null || kid == null || sealed == null) throw new Error('no record');
    return { gen, kid, sealed };
  }

  const flip = (bytes: Buffer, at: number): Buffer => {
    const copy = Buffer.from(bytes);
    copy[at] = (copy[at] ?? 0) ^ 1;
    return copy;
  };

  test.each<[string, (own: Fields, other: Fields, at: number) => Partial<Fields>]>([
    ['swaps records between sessions', (_own, other) => other],
    [
      'plants another record and keeps the generation',
      (own, other) => ({ sealed: other.sealed, gen: own.gen }),
    ],
    ['raises the generation', () => ({ gen: Buffer.from('2') })],
    ['truncates', (own, _other, at) => ({ sealed: own.sealed.subarray(0, (at * own.sealed.length) / 100) })],
    ['flips a bit', (own, _other, at) => ({ sealed: flip(own.sealed, at % own.sealed.length) })],
  ])(
    `and %s: 401 and a warning, never somebody else's data (${String(COUNT)} sessions)`,
    async (_name, change) => {
      const sessions = await signIn(COUNT, 'written');
      const before = await Promise.all(sessions.map(({ stored }) => read(stored)));
      await Promise.all(
        sessions.map(({ stored }, at) => {
          const [own, other] = [before[at], before[(at + 1) % COUNT]];
          if (own === undefined || other === undefined) throw new Error('no record');
          return redis.client.hset(stored.key, change(own, other, at) as Record<string, Buffer>);
        }),
      );
      const answers = await inParallel(
        sessions.map(({ client }) => {
          const cookie = `${client.cookieName('session')}=${client.sessionCookie?.value ?? ''}`;
          return () => client.me({ cookie });
        }),
        16,
      );
      expect(answers.map(({ status, problem }) => [status, problem])).toEqual(
        sessions.map(() => [401, 'session-required']),
      );
      expect(answers.filter(({ text }) => text.includes('written'))).toEqual([]);
      const unwarned = (): string[] => {
        const warned = new Set(c.events('seal_mismatch').map((line) => line['handle']));
        return sessions.map(({ stored }) => stored.handle).filter((handle) => !warned.has(handle));
      };
      await eventually(() => unwarned().length === 0, { what: 'the warnings' }).catch(() => undefined);
      expect(unwarned()).toEqual([]);
    },
  );
});

test('A-057 an envelope that was put into another session revokes nothing; its own revokes its own', async () => {
  const administration = await Administration.start(c, env);
  const sessions = await signIn(4, 'envelope');
  const [a, b, own] = sessions.map(({ stored }) => stored);
  if (a === undefined || b === undefined || own === undefined) throw new Error('no sessions');
  const [first, second] = await Promise.all(
    [a, b].map(async ({ key }) => await redis.client.hgetBuffer(key, 'revocation')),
  );
  expect(first?.length).toBeGreaterThan(50);
  await redis.client.hset(a.key, 'revocation', second ?? '');
  await redis.client.hset(b.key, 'revocation', first ?? '');
  for (const { handle } of [a, b, own]) expect((await administration.end({ handle })).ended).toBe(1);
  await eventually(() => provider.ledger.liveRefreshTokens({ sub: 'envelope-2' }).length === 0, {
    timeout: 10_000,
    what: 'the one that was left alone to be revoked',
  });
  const tokens = ['envelope-0', 'envelope-1'].flatMap((sub) => provider.ledger.liveRefreshTokens({ sub }));
  expect(tokens).toHaveLength(2);
  const revoked = provider.ledger.hitsOf('revocation').map(({ params }) => params.get('token'));
  expect(tokens.filter(({ token }) => revoked.includes(token))).toEqual([]);
  await administration.close();
});

describe('A-060 a record that is corrupt, foreign or of a newer version', () => {
  const junk: [string, (key: string) => Promise<unknown>][] = [
    ['a string', (key) => redis.client.set(key, 'junk', 'EX', 600)],
    ['a list', (key) => redis.client.multi().del(key).lpush(key, 'x').expire(key, 600).exec()],
    ['no sealed field', (key) => redis.client.hdel(key, 'sealed')],
    ['a generation that is no number', (key) => redis.client.hset(key, 'gen', 'many')],
    ['a touch time that is no number', (key) => redis.client.hset(key, 'touched', 'yesterday')],
    ['an empty record', (key) => redis.client.hset(key, 'sealed', '')],
    ['noise', (key) => redis.client.hset(key, 'sealed', Buffer.from(random('noise').bytes(400)))],
    ['a key id of a server that is newer', (key) => redis.client.hset(key, 'kid', 'newer-01', 'v', '2')],
  ];

  test.each(junk)('%s: no session, again and again, never a 5xx, nothing deleted', async (_name, write) => {
    const [session] = await signIn(1, 'junk');
    if (session === undefined) throw new Error('no session');
    const { client, stored } = session;
    const cookie = `${client.cookieName('session')}=${client.sessionCookie?.value ?? ''}`;
    if (_name === 'a string' || _name === 'a list') await stored.delete();
    await write(stored.key);
    for (let i = 0; i < 6; i += 1) {
      const answer = i % 2 === 0 ? await client.me({ cookie }) : await client.api('/api/x', { cookie });
      expect(answer.status).toBe(401);
    }
    expect(await stored.exists()).toBe(true);
    // Its owner is not kept out.
    expect((await client.login()).status).toBe(303);
    expect((await client.api('/api/x')).status).toBe(200);
    await stored.delete();
  });

  test.each(['claimed_until', 'retry_at', 'doubtful_since'])(
    'junk in %s does not keep the owner out when tokens must be renewed',
    async (field) => {
      loginsNeedRefresh(provider);
      const [session] = await signIn(1, 'claims');
      if (session === undefined) throw new Error('no session');
      await redis.client.hset(session.stored.key, 'claim', 'nobody', 'claimed_at', 'x', field, 'junk');
      await eventually(async () => (await session.client.api('/api/x')).status === 200, {
        timeout: 10_000,
        interval: 200,
      });
    },
  );
});

test('A-059 64 writers of one record over four replicas: every write counts once, none is lost', async () => {
  loginsNeedRefresh(provider);
  provider.always('refresh', { mutate: (answer) => ({ ...answer, expires_in: 0.001 }) });
  const [session] = await signIn(1, 'writers');
  if (session === undefined) throw new Error('no session');
  const { client, stored } = session;
  const statuses: number[] = [];
  await inParallel(
    Array.from({ length: 64 }, (_, i) => async () => {
      for (let n = 0; n < 5; n += 1) {
        const touching = redis.client.hset(stored.key, 'touched', '0');
        statuses.push((await client.api('/api/x', { replica: i % REPLICAS })).status);
        await touching;
      }
    }),
  );
  expect([...new Set(statuses)].filter((status) => status !== 200 && status !== 503)).toEqual([]);
  expect(statuses.filter((status) => status === 200).length).toBeGreaterThan(0);
  const refreshes = provider.ledger.hitsOf('refresh');
  expect(refreshes.length).toBeGreaterThan(3);
  // Each refresh is one step of the generation, and each refresh token was spent once, in one chain.
  expect(await stored.generation()).toBe(refreshes.length + 1);
  expect(new Set(refreshes.map((hit) => hit.params.get('refresh_token'))).size).toBe(refreshes.length);
  expect(provider.ledger.doubleSpends).toEqual([]);
  const { tokens } = await stored.contents();
  const live = provider.ledger.liveRefreshTokens({ sub: 'writers-0' });
  expect(live.map(({ token }) => token)).toEqual([tokens.refreshToken]);
});

test('A-063 a record moved to the prefix of another application with the same keys does not open there', async () => {
  const secrets = {
    cookie: [{ file: join(c.folder, 'cookie-0') }],
    seal: [{ file: join(c.folder, 'seal-0') }],
  };
  const other = await startCloakroom({
    replicas: 1,
    redis,
    provider,
    upstream: c.upstream,
    prefix: `${c.prefix}-other`,
    config: { secrets },
  });
  const sessions = await signIn(20, 'moved');
  for (const { client, stored } of sessions) {
    const key = stored.key.replace(c.prefix, other.prefix);
    await redis.command('COPY', stored.key, key);
    const there = other.client();
    const { name, value } = client.sessionCookie ?? { name: '', value: '' };
    const answer = await there.api('/api/x', { cookie: `${name}=${value}` });
    expect([answer.status, answer.problem]).toEqual([401, 'session-required']);
    expect((await client.api('/api/x')).status).toBe(200);
    expect(await redis.client.exists(key)).toBe(1);
  }
  await other.close();
});

test('A-061 every key has an end: sessions within their idle time, login attempts within ten minutes', async () => {
  const [session] = await signIn(1, 'ttl');
  if (session === undefined) throw new Error('no session');
  await session.client.beginLogin();
  await session.client.clone().logout();
  for (const key of await redis.keys(`${c.prefix}*`)) {
    const left = await redis.client.pttl(key);
    if (left === -2) continue;
    // What outlives a session: the index of sessions, the word why one ended, what waits to be revoked, journals and marks.
    const kept: Record<string, number> = {
      session: IDLE,
      sessions: ABSOLUTE,
      ended: 3_600_000,
      mark: 3_600_000,
      ending: 25 * 3_600_000,
      queue: 25 * 3_600_000,
      revocation: 25 * 3_600_000,
    };
    const longest = kept[key.slice(key.lastIndexOf(':') + 1)] ?? 600_000;
    expect([key, left > 0 && left <= longest]).toEqual([key, true]);
  }
});

test('A-056 a dump, the append-only file and everything Redis was told hold no token, cookie, subject, mail or address', async () => {
  const people = Array.from({ length: 300 }, (_, i) => `person-${String(i)}-of-the-dump`);
  provider.modes.claims = (sub) => ({ email: `${sub}@mail.example.test`, name: `Name ${sub}` });
  const clients = await inParallel(
    people.map((user) => async () => {
      const client = await c.signedIn({ user, headers: { 'x-forwarded-for': '203.0.113.77' } });
      expect((await client.api('/api/x')).status).toBe(200);
      return client;
    }),
    8,
  );
  loginsNeedRefresh(provider);
  for (let i = 0; i < 20; i += 1) {
    const client = await c.signedIn({ user: `person-${String(i)}-of-the-dump` });
    expect((await client.api('/api/x')).status).toBe(200);
    await client.beginLogin();
    if (i % 2 === 0) await client.logout({ navigate: false });
  }
  // And all that an operator does: lists by whatever names a person, ends, marks, journals, revocations that wait.
  provider.always('revocation', { status: 503, body: '' });
  const administration = await Administration.start(c, env);
  const [, one = '', two = '', three = ''] = people;
  const sid = (await administration.page({ user: one })).sessions[0]?.sid ?? 'none';
  for (const filter of [
    { sid },
    { user: `${two}@mail.example.test` },
    { issuer: provider.issuer, subject: three },
  ]) {
    expect(await administration.count(filter)).toBeGreaterThan(0);
    const cause = filter.user === undefined ? 'provider' : 'operator';
    expect((await administration.end(filter, { cause, reason: `${two} left us` })).ended).toBeGreaterThan(0);
  }
  await administration.bump('refresh');
  await administration.close();
  await redis.command('SAVE');
  const folder = String(((await redis.command('CONFIG', 'GET', 'dir')) as string[])[1]);
  const files = [folder, join(folder, 'appendonlydir')].flatMap((place) =>
    readdirSync(place, { withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(place, entry.name)),
  );
  expect(files.some((file) => file.endsWith('.rdb'))).toBe(true);
  expect(files.some((file) => file.includes('appendonly'))).toBe(true);
  const haystacks = [...files.map((file) => readFileSync(file).toString('latin1')), commands.join('\n')];
  expect(commands.length).toBeGreaterThan(1000);
  // What is looked for is there to be found: the handles are.
  const stored = new StoredSession(c, clients[0] as BrowserClient);
  const handle = [Buffer.from(stored.handle)];
  const holders = haystacks.filter((text) => foundIn(Buffer.from(text, 'latin1'), handle).length === 1);
  expect(holders.length).toBeGreaterThan(2);

  const words = new Set<string>(['of-the-dump', 'mail.example.test', '203.0.113', 'left us', 'Firefox', sid]);
  for (const record of provider.ledger.refreshTokens.values()) words.add(record.sid);
  for (const secret of provider.ledger.secrets()) {
    words.add(secret);
    words.add(Buffer.from(secret).toString('base64'));
  }
  for (const client of clients) {
    const { value } = client.sessionCookie ?? { value: '' };
    const id = /([A-Za-z0-9_-]{43})\./.exec(decodeURIComponent(value))?.[1] ?? 'none';
    words.add(value).add(id).add(Buffer.from(id, 'base64url').toString('latin1'));
  }
  const sought = [...words].map((word) => Buffer.from(word, 'latin1'));
  const found = haystacks.flatMap((text) => foundIn(Buffer.from(text, 'latin1'), sought));
  expect(found.map(String)).toEqual([]);
});
