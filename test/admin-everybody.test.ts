import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { AdminClient, adminConfig, adminPort, adminToken, type SessionPage } from './support/admin-client.js';
import { inParallel, type BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { startRedis } from './support/redis.js';
import { StoredSession } from './support/stored-session.js';

const REPLICAS = 4;
const DAY = 24 * 3_600_000;

const [reader, ender, second] = [
  adminToken('reader', 'read'),
  adminToken('ender', 'end'),
  adminToken('second', 'end'),
];
/** Everything Redis was asked to do. */
const commands: string[][] = [];
let c: Cloakroom;
let looking: AdminClient;
let ending: AdminClient;
let other: AdminClient;
let closeMonitor = (): void => undefined;

beforeAll(async () => {
  const redis = await startRedis();
  // Before anybody sends commands: the client cannot tell the first of them from the answer to its own.
  const monitor = await redis.client.monitor();
  monitor.on('monitor', (_time: string, args: string[]) => commands.push(args));
  closeMonitor = () => monitor.disconnect();
  c = await startCloakroom({
    redis,
    replicas: REPLICAS,
    env: { REVOCATION_KEY: randomBytes(32).toString('hex') },
    config: {
      admin: adminConfig([reader, ender, second]),
      secrets: { revocation: [{ env: 'REVOCATION_KEY' }] },
      session: { freshLoginFor: '0s' },
      store: { redis: { commandTimeout: '2s' } },
    },
  });
  looking = new AdminClient(c, reader);
  ending = new AdminClient(c, ender);
  other = new AdminClient(c, second);
});

afterAll(async () => {
  closeMonitor();
  await expectLeftClean(c, 32 * DAY);
});

async function signIn(count: number): Promise<BrowserClient[]> {
  return await inParallel(
    Array.from({ length: count }, (_, i) => async () => await c.signedIn({ user: `user-${String(i)}` })),
    4,
  );
}

async function statuses(client: BrowserClient): Promise<number[]> {
  return await Promise.all(
    Array.from({ length: REPLICAS }, async (_, replica) => (await client.clone().me({ replica })).status),
  );
}

const everywhere = (status: number): number[] => Array.from({ length: REPLICAS }, () => status);
const ALL = { filter: { all: true }, reason: 'the provider was breached' };

describe('A-111 guessed handles', () => {
  /** What a request for a handle makes Redis do with it: the same steps take the same time. */
  async function steps(text: string, method: 'get' | 'delete'): Promise<string[]> {
    const [begin, end] = [randomBytes(8).toString('hex'), randomBytes(8).toString('hex')];
    const mark = c.first.mark();
    await c.redis?.command('ECHO', begin);
    const answer = await ending[method](`/v1/sessions/${text}`);
    expect([answer.status, answer.body['type']]).toEqual([404, 'not-found']);
    await c.redis?.command('ECHO', end);
    const at = (marker: string): number => commands.findIndex((args) => args[1] === marker);
    await eventually(() => at(end) >= 0, { timeout: 5000, what: 'the monitor' });
    const event = method === 'get' ? 'session_shown' : 'session_not_found';
    const { handle } = await c.first.waitForEvent(event, { from: mark });
    expect(handle).toMatch(/^[A-Za-z0-9_-]{43}$/);
    return commands
      .slice(at(begin) + 1, at(end))
      .filter((args) => args.some((arg) => arg.includes(String(handle))))
      .map(([name = '']) => name.toUpperCase())
      .filter((name) => BEFORE_THE_ANSWER.has(name));
  }
  /** What tidies up afterwards comes when it comes. */
  const BEFORE_THE_ANSWER = new Set(['EVALSHA', 'HMGET', 'HGETALL', 'ZADD', 'TYPE', 'DEL']);

  test.each(['get', 'delete'] as const)(
    'A-111 %s: 404 for a wrong and for an unknown handle, after the same steps',
    async (method) => {
      const unknown = (): string => randomBytes(32).toString('base64url');
      // The first call of a script sends its text.
      await steps(unknown(), method);
      const usual = await steps(unknown(), method);
      expect(usual.length).toBeGreaterThan(0);
      for (const wrong of ['x', '%20', 'a'.repeat(500), randomBytes(32).toString('hex'), "'%20or%201=1"]) {
        expect([wrong, await steps(wrong, method)]).toEqual([wrong, usual]);
      }
    },
  );

  test('A-111 a missed guess is in the audit log', async () => {
    const handle = randomBytes(32).toString('base64url');
    await ending.delete(`/v1/sessions/${handle}?reason=a%20guess`);
    const line = await c.waitForEvent('session_not_found', (one) => one['handle'] === handle);
    expect(line).toMatchObject({ log: 'audit', name: 'ender', from: '127.0.0.1', reason: 'a guess' });
  });
});

describe('A-111 everybody needs a second step', () => {
  test.each<[string, Record<string, unknown>]>([
    ['all', { all: true }],
    ['a provider', { issuer: 'https://id.example.com' }],
    ['a time', { createdBefore: '2999-01-01T00:00:00Z' }],
    ['an idle time', { idleFor: '0s' }],
    ['every address', { address: '0.0.0.0/0' }],
    ['all of a provider', { all: true, issuer: 'https://id.example.com' }],
  ])('A-111 %s: without the confirmation nothing ends', async (_what, filter) => {
    const [client] = (await signIn(1)) as [BrowserClient];
    const mark = c.first.mark();
    for (const confirm of [undefined, '', 'AAAAAAAAAAAA', 'yes']) {
      const answer = await ending.post('/v1/endings', { filter, reason: 'in a hurry', confirm });
      expect([answer.status, answer.body['type'], answer.body['reason']]).toEqual([
        403,
        'forbidden',
        'confirmation',
      ]);
    }
    expect(await statuses(client)).toEqual(everywhere(200));
    expect(c.first.events('mass_ending', mark)).toEqual([]);
  });

  test('A-111 a confirmation is for one operator, one filter and one time', async () => {
    const [client] = (await signIn(1)) as [BrowserClient];
    const code = async (filter: unknown): Promise<string> => {
      const { body } = await ending.post('/v1/endings', { filter, reason: 'rehearsal', dryRun: true });
      return String(body['confirm']);
    };
    const filter = { all: true, createdBefore: '2020-01-01T00:00:00Z' };
    const refused = async (who: AdminClient, body: Record<string, unknown>): Promise<void> => {
      expect((await who.post('/v1/endings', body)).status).toBe(403);
    };
    await refused(other, { ...ALL, filter, confirm: await code(filter) });
    await refused(ending, { ...ALL, confirm: await code(filter) });
    const used = await code(filter);
    // Asked at one replica, sent to another.
    const once = await ending.at(2).post('/v1/endings', { ...ALL, filter, confirm: used });
    expect([once.status, once.body['ended']]).toEqual([200, 0]);
    await refused(ending, { ...ALL, filter, confirm: used });
    await refused(ending, { ...ALL, confirm: used });
    const epoch = await ending.post('/v1/epoch', { kind: 'end', reason: 'rehearsal', dryRun: true });
    await refused(ending, { ...ALL, confirm: epoch.body['confirm'] });
    expect(await statuses(client)).toEqual(everywhere(200));
  });

  test('A-111 a token that may only look gets no confirmation and ends nothing', async () => {
    const [client] = (await signIn(1)) as [BrowserClient];
    const handle = new StoredSession(c, client).handle;
    const answers = [
      await looking.post('/v1/endings', { ...ALL, dryRun: true }),
      await looking.post('/v1/endings', { filter: { handle }, reason: 'not allowed' }),
      await looking.delete(`/v1/sessions/${handle}`),
      await looking.post('/v1/epoch', { kind: 'refresh', reason: 'not allowed' }),
    ];
    for (const { status, body } of answers) {
      expect([status, body['type'], body['reason']]).toEqual([403, 'forbidden', 'role']);
    }
    expect(await statuses(client)).toEqual(everywhere(200));
    const line = await c.waitForEvent('admin_refused', ({ name }) => name === 'reader');
    expect(line).toMatchObject({ log: 'audit', problem: 'forbidden', reason: 'role', from: '127.0.0.1' });
  });

  test('A-111 everybody, confirmed: all are out everywhere, an alarm is raised, the repetition ends nobody else', async () => {
    const clients = await signIn(20);
    const listed = await looking.get<SessionPage>('/v1/sessions?limit=500');
    const mark = c.first.mark();
    const headers = { 'idempotency-key': 'breach-1' };
    const { status, body } = await ending.confirmed('/v1/endings', ALL, headers);
    expect([status, body['state'], body['ended']]).toEqual([200, 'done', listed.body.sessions.length]);
    for (const client of clients.slice(0, 5)) expect(await statuses(client)).toEqual(everywhere(401));
    expect((await looking.get<SessionPage>('/v1/sessions')).body.sessions).toEqual([]);
    const alarm = await c.first.waitForEvent('mass_ending', { from: mark });
    expect(alarm).toMatchObject({ level: 'error', name: 'ender', from: '127.0.0.1', reason: ALL.reason });
    const [later] = (await signIn(1)) as [BrowserClient];
    // Without a confirmation: it is the same request, already done.
    expect((await ending.at(3).post('/v1/endings', ALL, headers)).body).toEqual(body);
    expect(await statuses(later)).toEqual(everywhere(200));
  });
});

describe('the policy epoch over HTTP', () => {
  test('end: needs the second step, raises the alarm, and nobody from before is let in anywhere', async () => {
    const clients = await signIn(5);
    const mark = c.first.mark();
    expect((await ending.post('/v1/epoch', { kind: 'end', reason: 'leaked key' })).status).toBe(403);
    expect(await statuses(clients[0] as BrowserClient)).toEqual(everywhere(200));
    const { status, body } = await ending.confirmed('/v1/epoch', { kind: 'end', reason: 'leaked key' });
    expect([status, body]).toEqual([
      200,
      { kind: 'end', at: expect.stringMatching(/Z$/), durability: 'unreplicated' },
    ]);
    for (const client of clients) {
      await eventually(async () => (await statuses(client)).every((one) => one === 401), {
        timeout: 5000,
        what: 'every replica to know',
      });
    }
    await c.first.waitForEvent('mass_ending', { from: mark });
    expect(await c.first.waitForEvent('epoch_raised', { from: mark })).toMatchObject({
      log: 'audit',
      name: 'ender',
      kind: 'end',
      reason: 'leaked key',
    });
    const [later] = (await signIn(1)) as [BrowserClient];
    expect(await statuses(later)).toEqual(everywhere(200));
  });

  test('refresh: nobody is logged out, and needs no second step', async () => {
    const [client] = (await signIn(1)) as [BrowserClient];
    const answer = await ending.post('/v1/epoch', { kind: 'refresh', reason: 'new roles' });
    expect([answer.status, answer.body['kind']]).toEqual([200, 'refresh']);
    expect(await statuses(client)).toEqual(everywhere(200));
  });

  test.each([{ kind: 'all', reason: 'because' }, { reason: 'because' }, { kind: 'refresh' }])(
    'a request that is not understood changes nothing: %j',
    async (body) => {
      expect((await ending.post('/v1/epoch', body)).status).toBe(400);
    },
  );
});

describe('A-111 the admin listener is limited', () => {
  const start = async (requestsPerMinute: number): Promise<Cloakroom> =>
    await startCloakroom({
      replicas: 1,
      redis: 'memory',
      config: { admin: adminConfig([reader, ender], { requestsPerMinute }) },
    });

  test('A-111 guessing tokens: after ten in a minute the address is not listened to, whatever it brings', async () => {
    const room = await start(1000);
    const [stranger, known] = [new AdminClient(room, adminToken('x', 'end')), new AdminClient(room, ender)];
    expect((await known.get('/v1/sessions')).status).toBe(200);
    const statuses: number[] = [];
    for (let i = 0; i < 12; i += 1) statuses.push((await stranger.get('/v1/sessions')).status);
    expect(statuses.slice(0, 10)).toEqual(Array.from({ length: 10 }, () => 401));
    expect(statuses.at(-1)).toBe(429);
    const refused = await known.get('/v1/sessions');
    expect([refused.status, refused.body['type']]).toEqual([429, 'too-many-requests']);
    expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0);
    // One line for all of it: the log is not for the attacker to fill.
    await room.waitForEvent('admin_refused', ({ problem }) => problem === 'too-many-requests');
    await room.logged('admin_refused', 2);
    expect(room.events('admin_refused')).toHaveLength(2);
    await room.close();
  });

  test('A-111 a stolen token ends so many in a minute and no more', async () => {
    const room = await start(20);
    const thief = new AdminClient(room, ender);
    const statuses: number[] = [];
    for (let i = 0; i < 30; i += 1) {
      statuses.push((await thief.delete(`/v1/sessions/${randomBytes(32).toString('base64url')}`)).status);
    }
    expect(statuses.slice(0, 20)).toEqual(Array.from({ length: 20 }, () => 404));
    expect(statuses.slice(-5)).toEqual(Array.from({ length: 5 }, () => 429));
    expect((await fetch(`http://127.0.0.1:${String(adminPort(room.first))}/livez`)).status).toBe(200);
    await room.close();
  });
});
