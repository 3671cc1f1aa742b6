import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { AdminClient, adminConfig, adminToken, type SessionPage } from './support/admin-client.js';
import { inParallel, type BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { startRedis } from './support/redis.js';
import { StoredSession } from './support/stored-session.js';

const REPLICAS = 4;
const DAY = 24 * 3_600_000;
const HANDLE = /^[A-Za-z0-9_-]{43}$/;

const [reader, ender] = [adminToken('reader', 'read'), adminToken('ender', 'end')];
/** Everything Redis was asked to do. */
const commands: string[] = [];
let c: Cloakroom;
let looking: AdminClient;
let ending: AdminClient;
let closeMonitor = (): void => undefined;

beforeAll(async () => {
  const redis = await startRedis();
  // Before anybody sends commands: the client cannot tell the first of them from the answer to its own.
  const monitor = await redis.client.monitor();
  monitor.on('monitor', (_time: string, args: string[]) => commands.push(args[0]?.toUpperCase() ?? ''));
  closeMonitor = () => monitor.disconnect();
  c = await startCloakroom({
    redis,
    replicas: REPLICAS,
    env: { REVOCATION_KEY: randomBytes(32).toString('hex') },
    config: {
      admin: adminConfig([reader, ender]),
      secrets: { revocation: [{ env: 'REVOCATION_KEY' }] },
      session: { freshLoginFor: '0s' },
      store: { redis: { commandTimeout: '2s' } },
    },
  });
  looking = new AdminClient(c, reader);
  ending = new AdminClient(c, ender);
});

afterAll(async () => {
  closeMonitor();
  await expectLeftClean(c, 32 * DAY);
});

async function signIn(user: string, count = 1): Promise<BrowserClient[]> {
  return await inParallel(
    Array.from({ length: count }, () => async () => await c.signedIn({ user })),
    4,
  );
}

const handleOf = (client: BrowserClient): string => new StoredSession(c, client).handle;

async function list(query: string): Promise<SessionPage> {
  const answer = await looking.get<SessionPage>(`/v1/sessions?${query}`);
  expect([answer.status, answer.text]).toEqual([200, expect.anything()]);
  return answer.body;
}

/** What every replica says to this browser, asked past the one that ended it as well. */
async function statuses(client: BrowserClient): Promise<number[]> {
  return await Promise.all(
    Array.from({ length: REPLICAS }, async (_, replica) => (await client.clone().me({ replica })).status),
  );
}

const everywhere = (status: number): number[] => Array.from({ length: REPLICAS }, () => status);

describe('A-110 the list of sessions', () => {
  test('A-110 shows what is needed to recognise a session, and nothing that opens one', async () => {
    const [client] = (await signIn('ada')) as [BrowserClient];
    const { sessions, next } = await list('subject=ada');
    expect(next).toBeUndefined();
    expect(sessions).toHaveLength(1);
    expect(sessions[0]).toMatchObject({
      handle: handleOf(client),
      provider: 'main',
      issuer: c.provider.issuer,
      subject: 'ada',
      bound: 'cookie',
      createdAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      usedAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      absoluteExpiresAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
    });
    expect(sessions[0]?.handle).toMatch(HANDLE);
    const known = new Set(
      [
        'handle provider issuer subject email sid acr createdAt usedAt absoluteExpiresAt browser platform address bound',
      ].flatMap((names) => names.split(' ')),
    );
    expect(Object.keys(sessions[0] ?? {}).filter((name) => !known.has(name))).toEqual([]);
    const { text } = await looking.get(`/v1/sessions/${handleOf(client)}`);
    const all = `${text}${(await looking.get('/v1/sessions?limit=500')).text}`;
    const stored = new StoredSession(c, client);
    const { tokens } = await stored.contents();
    const cookie = client.sessionCookie?.value ?? '';
    for (const secret of [cookie, stored.secret.toString('base64url'), tokens.accessToken]) {
      expect(secret.length).toBeGreaterThan(15);
      expect(all).not.toContain(secret);
    }
    for (const secret of c.provider.ledger.secrets()) expect(all).not.toContain(secret);
  });

  test('A-110 finds by user, provider session, issuer, handle, age, idle time and address', async () => {
    const [one, two] = (await signIn('grace', 2)) as [BrowserClient, BrowserClient];
    await signIn('hopper');
    const both = [handleOf(one), handleOf(two)].toSorted();
    const found = async (query: string): Promise<string[]> =>
      (await list(query)).sessions.map(({ handle }) => handle).toSorted();
    expect(await found('subject=grace')).toEqual(both);
    expect(await found('user=grace')).toEqual(both);
    const { sessions } = await list(`handle=${handleOf(one)}`);
    const [{ email, sid, createdAt } = { createdAt: '' }] = sessions;
    expect(sessions).toHaveLength(1);
    if (email !== undefined) expect(await found(`user=${encodeURIComponent(email)}`)).toEqual(both);
    if (sid !== undefined) expect(await found(`sid=${encodeURIComponent(sid)}`)).toEqual([handleOf(one)]);
    expect(await found(`subject=grace&issuer=${encodeURIComponent(c.provider.issuer)}`)).toEqual(both);
    expect(await found('subject=grace&issuer=https%3A%2F%2Fother.example')).toEqual([]);
    expect(await found('subject=nobody')).toEqual([]);
    expect(await found('subject=grace&idleFor=1h')).toEqual([]);
    expect(await found('subject=grace&idleFor=0s')).toEqual(both);
    expect(await found(`subject=grace&createdBefore=${encodeURIComponent(createdAt)}`)).not.toContain(
      handleOf(one),
    );
    expect(await found('subject=grace&createdBefore=2999-01-01T00%3A00%3A00%2B02%3A00')).toEqual(both);
    expect(await found('subject=grace&address=192.0.2.0%2F24')).toEqual([]);
  });

  test.each([
    ['an unknown criterion', 'name=grace'],
    ['a criterion twice', 'user=a&user=b'],
    ['a criterion as a list', 'user[]=a'],
    ['a time that is none', 'createdBefore=yesterday'],
    ['an idle time without a unit', 'idleFor=30'],
    ['an address that is none', 'address=localhost'],
    ['a handle that is none', 'handle=x'],
    ['a page of nothing', 'limit=0'],
    ['a page of everything', 'limit=100000'],
    ['a cursor of its own making', 'cursor=0'],
    ['an empty name', 'user='],
  ])('A-110 %s is told, and nothing is listed', async (_what, query) => {
    const { status, body, headers } = await looking.get(`/v1/sessions?${query}`);
    expect([status, body['type']]).toEqual([400, 'bad-request']);
    expect(headers.get('content-type')).toBe('application/problem+json');
    expect(body).not.toHaveProperty('sessions');
  });

  test('A-110 pages show each session once, without KEYS or SCAN', async () => {
    const clients = await signIn('pages', 23);
    const before = commands.length;
    const handles: string[] = [];
    let cursor: string | undefined;
    let pages = 0;
    do {
      const page: SessionPage = await list(
        `subject=pages&limit=5${cursor === undefined ? '' : `&cursor=${encodeURIComponent(cursor)}`}`,
      );
      expect(page.sessions.length).toBeLessThanOrEqual(5);
      handles.push(...page.sessions.map(({ handle }) => handle));
      cursor = page.next;
      pages += 1;
    } while (cursor !== undefined && pages < 20);
    expect(handles.toSorted()).toEqual(clients.map(handleOf).toSorted());
    const used = new Set(commands.slice(before));
    expect(used.size).toBeGreaterThan(1);
    expect([...used].filter((name) => ['KEYS', 'SCAN', 'SMEMBERS', 'RANDOMKEY'].includes(name))).toEqual([]);
  });

  test('A-110 one damaged record is skipped, the others are shown', async () => {
    const [broken, whole] = (await signIn('damaged', 2)) as [BrowserClient, BrowserClient];
    await c.redis?.client.hset(new StoredSession(c, broken).key, 'about', randomBytes(40));
    const { sessions } = await list('subject=damaged');
    expect(sessions.map(({ handle }) => handle)).toEqual([handleOf(whole)]);
    expect((await looking.get(`/v1/sessions/${handleOf(broken)}`)).status).toBe(404);
    // Still nobody escapes: it can be ended by its handle.
    expect((await ending.delete(`/v1/sessions/${handleOf(broken)}`)).status).toBe(204);
    expect(await statuses(broken)).toEqual(everywhere(401));
  });
});

describe('A-108 ending sessions over HTTP', () => {
  test('A-108 one session by its handle: over on every replica, the others live, its refresh token is revoked', async () => {
    const [gone, stays] = (await signIn('one', 2)) as [BrowserClient, BrowserClient];
    const { tokens } = await new StoredSession(c, gone).contents();
    expect((await ending.delete(`/v1/sessions/${handleOf(gone)}?reason=stolen%20laptop`)).status).toBe(204);
    expect(await statuses(gone)).toEqual(everywhere(401));
    expect(await statuses(stays)).toEqual(everywhere(200));
    expect((await ending.delete(`/v1/sessions/${handleOf(gone)}`)).status).toBe(404);
    expect((await looking.get(`/v1/sessions/${handleOf(gone)}`)).status).toBe(404);
    const refreshToken = tokens.refreshToken ?? '';
    await eventually(
      () => !c.provider.ledger.liveRefreshTokens({}).some(({ token }) => token === refreshToken),
      {
        timeout: 30_000,
        what: 'the refresh token to be revoked',
      },
    );
    const line = await c.waitForEvent(
      'session_ended',
      ({ handle, log }) => handle === handleOf(gone) && log === 'audit',
    );
    expect(line).toMatchObject({
      name: 'ender',
      from: '127.0.0.1',
      reason: 'stolen laptop',
      cause: 'operator',
    });
  });

  test('A-108 all sessions of a user: the dry run counts, the ending says how many and how durable', async () => {
    const clients = await signIn('many', 6);
    const others = await signIn('others', 2);
    const filter = { subject: 'many' };
    const planned = await ending.post('/v1/endings', { filter, reason: 'left us', dryRun: true });
    expect([planned.status, planned.body]).toEqual([200, { dryRun: true, sessions: 6 }]);
    expect(await statuses(clients[0] as BrowserClient)).toEqual(everywhere(200));
    const { status, body } = await ending.at(1).post('/v1/endings', { filter, reason: 'left us' });
    expect([status, body]).toEqual([
      200,
      { id: expect.stringMatching(HANDLE), state: 'done', ended: 6, durability: 'unreplicated' },
    ]);
    for (const client of clients) expect(await statuses(client)).toEqual(everywhere(401));
    for (const client of others) expect(await statuses(client)).toEqual(everywhere(200));
    expect((await looking.at(2).get(`/v1/endings/${String(body['id'])}`)).body).toEqual(body);
    const line = await c.waitForEvent('sessions_ended', ({ ending: id }) => id === body['id']);
    expect(line).toMatchObject({
      log: 'audit',
      actor: 'operator',
      name: 'ender',
      from: '127.0.0.1',
      ended: 6,
    });
    expect(line).toMatchObject({ reason: 'left us', cause: 'operator', durability: 'unreplicated' });
  });

  test('A-108 all but one session of a user', async () => {
    const [first, second, kept] = (await signIn('spared', 3)) as [
      BrowserClient,
      BrowserClient,
      BrowserClient,
    ];
    const filter = { subject: 'spared', except: handleOf(kept) };
    expect((await ending.post('/v1/endings', { filter, reason: 'all others' })).body).toMatchObject({
      ended: 2,
    });
    expect(await statuses(kept)).toEqual(everywhere(200));
    for (const client of [first, second]) expect(await statuses(client)).toEqual(everywhere(401));
  });

  test('A-108 deleting the key by hand has the same effect', async () => {
    const [client] = (await signIn('byhand')) as [BrowserClient];
    await new StoredSession(c, client).delete();
    expect(await statuses(client)).toEqual(everywhere(401));
    expect((await list('subject=byhand')).sessions).toEqual([]);
  });

  test('A-108 the same Idempotency-Key is the same ending, on any replica and at the same time', async () => {
    await signIn('again', 2);
    const request = { filter: { subject: 'again' }, reason: 'sent twice' };
    const headers = { 'idempotency-key': 'incident-7/step-2' };
    const answers = await Promise.all(
      [0, 1, 2, 3].map(async (replica) => await ending.at(replica).post('/v1/endings', request, headers)),
    );
    expect(new Set(answers.map(({ body }) => body['id'])).size).toBe(1);
    await eventually(
      async () => (await ending.post('/v1/endings', request, headers)).body['state'] === 'done',
      { timeout: 5000, what: 'the ending to be done' },
    );
    // Who signs in afterwards is not hit by the repetition.
    const [later] = (await signIn('again')) as [BrowserClient];
    expect((await ending.post('/v1/endings', request, headers)).body).toMatchObject({
      ended: 2,
      state: 'done',
    });
    expect(await statuses(later)).toEqual(everywhere(200));
    const other = await ending.post('/v1/endings', { ...request, filter: { subject: 'x' } }, headers);
    expect([other.status, other.body['reason']]).toEqual([400, 'idempotency-key']);
  });

  test('A-108 the ends are counted by cause', async () => {
    const count = async (): Promise<number> => {
      const { text, headers } = await looking.get('/metrics');
      expect(headers.get('content-type')).toMatch(/^text\/plain; version=0\.0\.4/);
      return Number(/^cloakroom_sessions_ended_total\{cause="operator"\} (\d+)$/m.exec(text)?.[1]);
    };
    const before = await count();
    await signIn('counted', 3);
    await ending.post('/v1/endings', { filter: { subject: 'counted' }, reason: 'to be counted' });
    expect(await count()).toBe(before + 3);
  });

  test.each([
    ['no reason', { filter: { subject: 'safe' } }],
    ['a reason of blanks', { filter: { subject: 'safe' }, reason: '     ' }],
    ['no filter', { reason: 'because' }],
    ['an empty filter', { filter: {}, reason: 'because' }],
    ['a filter that only spares', { filter: { except: 'a'.repeat(43) }, reason: 'because' }],
    ['a misspelt criterion, which must not mean everybody', { filter: { usr: 'safe' }, reason: 'because' }],
    ['all: false', { filter: { all: false }, reason: 'because' }],
    ['an unknown member', { filter: { subject: 'safe' }, reason: 'because', force: true }],
    ['a list', [{ filter: { subject: 'safe' }, reason: 'because' }]],
    ['a polluted prototype', JSON.parse('{"filter":{"__proto__":{"subject":"safe"}},"reason":"because"}')],
    ['a user of numbers', { filter: { user: 7 }, reason: 'because' }],
  ])('A-108 %s ends nothing', async (_what, body) => {
    const [client] = (await signIn('safe')) as [BrowserClient];
    const answer = await ending.post('/v1/endings', body);
    expect([answer.status, answer.body['type']]).toEqual([400, 'bad-request']);
    expect(await statuses(client)).toEqual(everywhere(200));
  });

  test('A-115 nothing in a reason can forge a line of the log', async () => {
    const reason = 'x\r\n{"event":"sessions_ended","ended":0,"log":"audit"}\u001b[2J\u2028"';
    await signIn('forged');
    const { body } = await ending.post('/v1/endings', { filter: { subject: 'forged' }, reason });
    await c.waitForEvent('sessions_ended', ({ ending: id }) => id === body['id']);
    const lines = c.events('sessions_ended').filter(({ ending: id }) => id === body['id']);
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatchObject({ reason, ended: 1 });
    expect(c.replicas.map(({ stdout }) => stdout).join('')).not.toContain('\u001b');
  });
});
