import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { inParallel, type BrowserResponse } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { sendRaw } from './support/raw.js';
import { random } from './support/random.js';

const TOKEN = /^[A-Za-z0-9_-]{43}$/;
const STARTS = 10_000;

let c: Cloakroom;

beforeAll(async () => {
  c = await startCloakroom({ replicas: 2 });
});

afterAll(async () => {
  await expectLeftClean(c);
});

const attempts = (): Promise<string[]> => c.redis?.keys(`${c.prefix}:*:login`) ?? Promise.resolve([]);
const sessions = (): Promise<string[]> => c.redis?.keys(`${c.prefix}:*:session`) ?? Promise.resolve([]);

function authorization(response: BrowserResponse): URLSearchParams {
  expect(response.status).toBe(303);
  return new URL(response.location ?? '').searchParams;
}

test('A-001 a login is a code flow with PKCE S256, fresh state and nonce, and nothing secret in the URL', async () => {
  await c.redis?.clear();
  const client = c.client();
  const attempt = await client.beginLogin({ returnTo: '/orders?page=2' });
  const url = attempt.authorizationUrl;
  expect(url?.origin).toBe(c.provider.origin);
  expect(url?.pathname).toBe('/authorize');
  const query = authorization(attempt.response);
  expect(Object.fromEntries(query)).toEqual({
    response_type: 'code',
    client_id: c.provider.clientId,
    redirect_uri: 'https://app.example.test/auth/callback',
    scope: expect.stringContaining('openid'),
    code_challenge_method: 'S256',
    code_challenge: expect.stringMatching(TOKEN),
    state: expect.stringMatching(TOKEN),
    nonce: expect.stringMatching(TOKEN),
  });
  expect([...query.keys()]).toHaveLength(8);
  expect(attempt.response.headers['cache-control']).toBe('no-store');
  expect(attempt.response.headers['referrer-policy']).toBe('no-referrer');
  expect(attempt.response.body).toHaveLength(0);

  const [cookie] = client.loginCookies;
  expect(cookie).toMatchObject({ path: '/', secure: true, httpOnly: true, sameSite: 'lax' });
  expect(client.refusedCookies).toEqual([]);
  expect(client.sessionCookie).toBeUndefined();
  const keys = await attempts();
  expect(keys).toHaveLength(1);
  expect(await sessions()).toEqual([]);
  const ttl = (await c.redis?.client.pttl(keys[0] ?? '')) ?? 0;
  expect(ttl).toBeGreaterThan(0);
  expect(ttl).toBeLessThanOrEqual(600_000);

  await attempt.finish();
  const [exchange] = c.provider.ledger.hitsOf('token');
  const verifier = exchange?.params.get('code_verifier') ?? '';
  expect(verifier).toMatch(TOKEN);
  for (const secret of [verifier, c.provider.clientSecret]) expect(url?.href).not.toContain(secret);
});

test('A-001 what is stored of an attempt gives away neither state, nonce, verifier nor returnTo', async () => {
  await c.redis?.clear();
  const client = c.client();
  const attempt = await client.beginLogin({ returnTo: '/a-very-recognisable-place' });
  const query = authorization(attempt.response);
  const [key = ''] = await attempts();
  const value = (await c.redis?.client.getBuffer(key))?.toString('latin1') ?? '';
  const [cookie] = client.loginCookies;
  const binding = cookie?.value.split('.').at(-1) ?? '';
  expect(value.length).toBeGreaterThan(0);
  for (const secret of [query.get('state'), query.get('nonce'), binding, '/a-very-recognisable-place']) {
    expect(`${key} ${value}`).not.toContain(secret);
  }
});

test(`A-001 ${String(STARTS)} starts give as many distinct states, nonces and challenges`, async () => {
  const seen = { state: new Set(), nonce: new Set(), code_challenge: new Set() };
  const request =
    `GET /auth/login HTTP/1.1\r\nHost: app.example.test\r\nX-Forwarded-Proto: https\r\n` +
    `Sec-Fetch-Dest: document\r\n\r\n`;
  const connection = async (replica: number): Promise<void> => {
    const batch = 50;
    const { responses } = await sendRaw(c.replica(replica).clientPort, request.repeat(batch), {
      answers: batch,
      timeout: 60_000,
    });
    expect(responses).toHaveLength(batch);
    for (const response of responses) {
      const query = new URL(response.header('location') ?? '').searchParams;
      for (const [name, values] of Object.entries(seen)) values.add(query.get(name));
    }
  };
  await inParallel(
    Array.from({ length: STARTS / 50 }, (_, at) => () => connection(at % 2)),
    8,
  );
  for (const values of Object.values(seen)) {
    expect(values.size).toBe(STARTS);
    expect([...values].every((value) => TOKEN.test(String(value)))).toBe(true);
  }
  await c.redis?.clear();
});

const unwished: Array<[string, Record<string, string>]> = [
  ...[
    'iframe',
    'frame',
    'image',
    'empty',
    'script',
    'style',
    'embed',
    'object',
    'video',
    'worker',
    'manifest',
    'font',
    'fencedframe',
  ].map((dest): [string, Record<string, string>] => [`Sec-Fetch-Dest: ${dest}`, { 'sec-fetch-dest': dest }]),
  ['Sec-Purpose: prefetch', { 'sec-purpose': 'prefetch' }],
  ['Sec-Purpose: prefetch;prerender', { 'sec-purpose': 'prefetch;prerender' }],
  ['Purpose: prefetch', { purpose: 'prefetch' }],
  ['X-Moz: prefetch', { 'x-moz': 'prefetch' }],
];

test.each(unwished)('A-003 a login is not started by %s', async (_, headers) => {
  await c.redis?.clear();
  const client = c.client();
  const answer = await client.navigate('/auth/login', { headers });
  expect(answer.status).toBe(403);
  expect(answer.location).toBeUndefined();
  expect(answer.setCookies).toEqual([]);
  expect(await attempts()).toEqual([]);
  expect(answer.headers['x-frame-options']).toBe('DENY');
  expect(answer.headers['content-security-policy']).toContain("frame-ancestors 'none'");
});

test('A-003 a top-level navigation starts one, from here, from another site, and without fetch metadata', async () => {
  for (const site of ['same-origin', 'same-site', 'cross-site', 'none'] as const) {
    const answer = await c.client().navigate('/auth/login', { site });
    expect(answer.status).toBe(303);
  }
  const without = ['sec-fetch-site', 'sec-fetch-mode', 'sec-fetch-dest'];
  expect((await c.client().navigate('/auth/login', { without })).status).toBe(303);
});

test.each(['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'])(
  'A-003 %s /auth/login starts nothing',
  async (method) => {
    await c.redis?.clear();
    const answer = await c.client().navigate('/auth/login', { method, headers: { origin: c.publicUrl } });
    expect(answer.status).toBeGreaterThanOrEqual(400);
    expect(answer.status).toBeLessThan(500);
    expect(answer.location).toBeUndefined();
    expect(await attempts()).toEqual([]);
  },
);

test('A-006 two hundred abandoned starts leave five attempts in the browser, the newest, and small cookies', async () => {
  const client = c.client();
  const names: string[] = [];
  for (let i = 0; i < 200; i += 1) {
    const before = new Set(client.loginCookies.map(({ name }) => name));
    const { response } = await client.beginLogin({ returnTo: `/${'x'.repeat(50)}/${String(i)}` });
    expect(response.status).toBe(303);
    expect(client.loginCookies.length).toBeLessThanOrEqual(5);
    expect(client.cookieHeader('/auth/callback', 'same-origin', 'GET', true).length).toBeLessThan(4096);
    names.push(...client.loginCookies.map(({ name }) => name).filter((name) => !before.has(name)));
  }
  expect(names).toHaveLength(200);
  // Two starts within one millisecond count as equally old.
  const newest = new Set(names.slice(-6));
  expect(client.loginCookies).toHaveLength(5);
  expect(client.loginCookies.filter(({ name }) => newest.has(name))).toHaveLength(5);
  const answer = await client.login({ returnTo: '/in' });
  expect([answer.status, answer.location]).toEqual([303, '/in']);
  expect((await client.me()).status).toBe(200);
});

test('A-006 the dropped attempt is the oldest: it cannot be finished, the five others can', async () => {
  const client = c.client();
  const begun = [];
  for (let i = 0; i < 6; i += 1) begun.push(await client.beginLogin({ returnTo: `/tab/${String(i)}` }));
  const [oldest, ...open] = begun;
  expect((await oldest?.finish())?.status).toBe(400);
  for (const [at, attempt] of random('A-006').shuffle([...open.entries()])) {
    const answer = await attempt.finish();
    expect([answer.status, answer.location]).toEqual([303, `/tab/${String(at + 1)}`]);
  }
  expect(client.loginCookies).toEqual([]);
});

test('A-006 starts at the same moment from one browser are brought back to five by the next one', async () => {
  const client = c.client();
  await inParallel(Array.from({ length: 30 }, () => () => client.beginLogin()));
  const { response } = await client.beginLogin();
  expect(response.status).toBe(303);
  expect(client.loginCookies.length).toBeLessThanOrEqual(5);
  expect((await client.login()).status).toBe(303);
});

test('A-006 foreign and malformed attempt cookies are dropped before real ones', async () => {
  const client = c.client();
  const real = await client.beginLogin({ returnTo: '/real' });
  for (let i = 0; i < 8; i += 1) {
    client.setCookie(client.cookieName(`login-junk${String(i)}`), i % 2 === 0 ? 'x'.repeat(300) : '', {
      sameSite: 'lax',
    });
  }
  await client.beginLogin();
  expect(client.loginCookies.length).toBeLessThanOrEqual(5);
  expect((await real.finish()).location).toBe('/real');
});
