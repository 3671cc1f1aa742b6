import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserClient, Me } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';

let c: Cloakroom;

beforeAll(async () => {
  c = await startCloakroom({ replicas: 2 });
});

beforeEach(() => {
  c.provider.reset();
});

afterAll(async () => {
  await expectLeftClean(c);
});

test('A-066 who is signed in, until when, and how to sign out', async () => {
  const before = Date.now();
  const client = await c.signedIn();
  const after = Date.now();
  const answer = await client.me();
  expect(answer.status).toBe(200);
  expect(answer.headers['content-type']).toMatch(/^application\/json/);
  expect(answer.headers['cache-control']).toBe('no-store');
  expect(answer.headers['x-content-type-options']).toBe('nosniff');
  expect(answer.headers['access-control-allow-origin']).toBeUndefined();
  expect(answer.setCookies).toEqual([]);
  const me = answer.json<Me>();
  expect(Object.keys(me).sort()).toEqual(['authenticated', 'claims', 'logoutUrl', 'session']);
  expect(me.authenticated).toBe(true);
  expect(me.claims).toEqual({
    sub: 'alice',
    name: 'Alice Example',
    preferred_username: 'alice',
    email: 'alice@example.test',
    email_verified: true,
  });
  expect(me.logoutUrl).toMatch(/^\/auth\/logout\?token=[\w%.-]+$/);
  const { createdAt, idleExpiresAt, absoluteExpiresAt } = me.session;
  for (const time of [createdAt, idleExpiresAt, absoluteExpiresAt]) {
    expect(new Date(time).toISOString()).toBe(time);
  }
  const created = Date.parse(createdAt);
  expect(created).toBeGreaterThanOrEqual(before);
  expect(created).toBeLessThanOrEqual(after);
  expect(Date.parse(absoluteExpiresAt) - created).toBe(12 * 3600 * 1000);
  expect(Date.parse(idleExpiresAt)).toBeGreaterThanOrEqual(before + 30 * 60 * 1000);
  expect(Date.parse(idleExpiresAt)).toBeLessThanOrEqual(after + 30 * 60 * 1000);
});

test('A-066 only claims of the list leave the server, whatever else the provider says', async () => {
  c.provider.modes.claims = () => ({
    name: 'Mallory',
    picture: 'https://pictures.example/m.png',
    phone_number: '+41 secret',
    address: { formatted: 'secret' },
    groups: ['secret-admins'],
    'https://claims.example/roles': ['secret'],
    at_hash_extra: 'secret',
    ['__proto__x']: 'secret',
    constructor: 'secret',
    toString: 'secret',
  });
  const client = await c.signedIn();
  const answer = await client.me();
  expect(answer.json<Me>().claims).toEqual({
    sub: 'alice',
    name: 'Mallory',
    picture: 'https://pictures.example/m.png',
  });
  expect(answer.text).not.toContain('secret');
  for (const name of ['iss', 'aud', 'nonce', 'sid', 'at_hash', 'jti', 'exp']) {
    expect(answer.text).not.toContain(`"${name}"`);
  }
  for (const token of c.provider.ledger.secrets()) expect(answer.text).not.toContain(token);
});

test('A-066 anonymous: 401 problem with a private challenge and the way to sign in', async () => {
  const answer = await c.client().me();
  expect(answer.status).toBe(401);
  expect(answer.problem).toBe('session-required');
  expect(answer.headers['cache-control']).toBe('no-store');
  expect(answer.headers['www-authenticate']).toMatch(/^Cloakroom /);
  expect(answer.location).toBeUndefined();
  expect(answer.setCookies).toEqual([]);
  expect(answer.json()).toEqual({
    type: expect.stringContaining('session-required'),
    title: expect.any(String),
    status: 401,
    instance: answer.headers['x-request-id'],
    loginUrl: '/auth/login',
  });
});

test('A-066 a dead cookie is taken away with the 401', async () => {
  const client = await c.signedIn();
  const cookie = client.cookieName('session');
  await c.redis?.clear();
  const answer = await client.me();
  expect(answer.problem).toBe('session-required');
  expect(answer.setCookies.join()).toContain(`${cookie}=;`);
  expect(client.sessionCookie).toBeUndefined();
});

const bad: Array<[string, Parameters<BrowserClient['fetch']>[1]]> = [
  ['without the header', {}],
  ['with an empty one', { headers: { 'x-csrf': '' } }],
  ['with another value', { headers: { 'x-csrf': 'true' } }],
  ['with two values', { headers: { 'x-csrf': ['1', '1'] } }],
  ['from a foreign Origin', { headers: { 'x-csrf': '1', origin: 'https://evil.example' } }],
  ['from Origin null', { headers: { 'x-csrf': '1', origin: 'null' } }],
  ['from another port of this host', { headers: { 'x-csrf': '1', origin: 'https://app.example.test:444' } }],
  ['from the same host over http', { headers: { 'x-csrf': '1', origin: 'http://app.example.test' } }],
  ['from a sister site', { site: 'same-site', headers: { 'x-csrf': '1' } }],
  ['from another site', { site: 'cross-site', headers: { 'x-csrf': '1' } }],
];

test.each(bad)('A-066 GET /auth/me %s: 403, and nothing about anybody', async (_, init) => {
  const client = await c.signedIn();
  const cookie = client.cookieHeader('/auth/me', 'same-origin', 'GET', false);
  const answer = await client.fetch('/auth/me', { ...init, cookie });
  expect([answer.status, answer.problem]).toEqual([403, 'csrf']);
  expect(answer.text).not.toContain('alice');
  expect(answer.setCookies).toEqual([]);
  expect(answer.headers['cache-control']).toBe('no-store');
});

test.each(['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'])(
  'A-066 %s /auth/me tells nothing',
  async (method) => {
    const client = await c.signedIn();
    const answer = await client.api('/auth/me', { method });
    expect([400, 404, 405]).toContain(answer.status);
    expect(answer.text).not.toContain('alice');
  },
);

test('A-066 every replica says the same, byte for byte', async () => {
  const client = await c.signedIn();
  const [one, two] = await Promise.all([
    client.me({ slide: false, replica: 0 }),
    client.me({ slide: false, replica: 1 }),
  ]);
  expect(one.text).toBe(two.text);
});

test('A-066 the store is away: 503 with Retry-After, never anonymous, and the cookie stays', async () => {
  const other = await startCloakroom({ replicas: 1 });
  const client = await other.signedIn();
  await other.redis?.kill();
  const answer = await client.me();
  expect([answer.status, answer.problem]).toEqual([503, 'store-unavailable']);
  expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0);
  expect(answer.setCookies).toEqual([]);
  await other.close();
});

describe('with settings of its own', () => {
  let own: Cloakroom;

  beforeAll(async () => {
    own = await startCloakroom({
      replicas: 2,
      config: {
        me: { anonymous: 'ok', claims: ['sub', 'roles', 'absent', 'toString', 'constructor'] },
        session: { idle: '2s', absolute: '1h' },
      },
    });
  });

  afterAll(async () => {
    await expectLeftClean(own);
  });

  test('A-066 anonymous is 200 {"authenticated":false} where the setting says so; the header is still needed', async () => {
    const answer = await own.client().me();
    expect([answer.status, answer.text]).toEqual([200, '{"authenticated":false}']);
    expect(answer.headers['cache-control']).toBe('no-store');
    expect(answer.setCookies).toEqual([]);
    expect((await own.client().fetch('/auth/me')).status).toBe(403);
  });

  test('A-066 and the dead cookie is taken away there, too', async () => {
    const client = await own.signedIn();
    for (const key of (await own.redis?.keys(`${own.prefix}:*:session`)) ?? [])
      await own.redis?.command('DEL', key);
    const answer = await client.me();
    expect([answer.status, answer.text]).toEqual([200, '{"authenticated":false}']);
    expect(client.sessionCookie).toBeUndefined();
  });

  test('A-066 the configured claims and no others, and none that the provider never said', async () => {
    own.provider.modes.claims = () => ({ roles: ['a', 'b'], name: 'Alice' });
    const client = await own.signedIn();
    expect((await client.me()).json<Me>().claims).toEqual({ sub: 'alice', roles: ['a', 'b'] });
  });

  const idleAt = async (client: BrowserClient, slide?: false): Promise<number> =>
    Date.parse((await client.me(slide === false ? { slide } : {})).json<Me>().session.idleExpiresAt);

  test('A-066 ?slide=false looks without extending: idle expiry stays where it was and then comes', async () => {
    const client = await own.signedIn();
    const first = await idleAt(client, false);
    await sleep(600);
    expect(await idleAt(client, false)).toBe(first);
    await eventually(async () => (await client.me({ slide: false })).text === '{"authenticated":false}', {
      timeout: 10_000,
      interval: 100,
      what: 'the idle end although somebody was looking all the time',
    });
    expect(Date.now()).toBeGreaterThanOrEqual(first - 50);
  });

  test('A-066 an ordinary look extends: idle expiry moves, and the session outlives it', async () => {
    const client = await own.signedIn();
    const first = await idleAt(client, false);
    while (Date.now() < first + 500) {
      await sleep(200);
      expect((await client.me()).json<Me>().authenticated).toBe(true);
    }
    expect(await idleAt(client, false)).toBeGreaterThan(first);
  });
});
