import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { startProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';

let c: Cloakroom;

beforeAll(async () => {
  c = await startCloakroom({
    replicas: 2,
    config: { providers: { main: { authorizationParameters: { audience: 'orders api&x=1' } } } },
  });
});

beforeEach(async () => {
  c.provider.reset();
  c.provider.ledger.resetCounts();
  await c.redis?.clear();
});

afterAll(async () => {
  await expectLeftClean(c);
});

const stored = (): Promise<string[]> => c.redis?.keys() ?? Promise.resolve([]);

/** Starts a login and goes to the provider; what the provider then reads in its query, in order. */
async function seenByProvider(query: string, client = c.client()): Promise<Array<[string, string]>> {
  const before = c.provider.ledger.count('authorize');
  const answer = await client.navigate(`/auth/login?${query}`);
  expect(answer.status).toBe(303);
  await client.foreign(answer.location ?? '');
  const hit = c.provider.ledger.hitsOf('authorize')[before];
  return [...(hit?.params ?? [])];
}

const OURS = [
  'audience',
  'client_id',
  'code_challenge',
  'code_challenge_method',
  'nonce',
  'redirect_uri',
  'response_type',
  'scope',
  'state',
];

const passedOn: Array<[string, string]> = [
  ['prompt', 'login'],
  ['prompt', 'consent'],
  ['prompt', 'select_account'],
  ['prompt', 'login consent'],
  ['login_hint', 'alice@example.test'],
  ['login_hint', 'a&scope=admin&redirect_uri=https://evil.example/'],
  ['login_hint', 'ä €😀 "quoted" <b>'],
  ['login_hint', '%26scope=admin'],
  ['login_hint', 'a#state=other'],
  ['login_hint', '__proto__'],
  ['acr_values', 'urn:mace:incommon:iap:silver phr'],
  ['acr_values', '1&prompt=none'],
  ['max_age', '0'],
  ['max_age', '3600'],
  ['ui_locales', 'de-CH fr en'],
];

test.each(passedOn)(
  'A-007 %s=%s reaches the provider as this one value and adds nothing',
  async (name, value) => {
    const seen = await seenByProvider(new URLSearchParams({ [name]: value }).toString());
    expect(seen.filter(([key]) => key === name)).toEqual([[name, value]]);
    expect(seen.map(([key]) => key).sort()).toEqual([...OURS, name].sort());
    expect(Object.fromEntries(seen)).toMatchObject({
      client_id: c.provider.clientId,
      redirect_uri: `${c.publicUrl}/auth/callback`,
      audience: 'orders api&x=1',
    });
  },
);

test('A-007 all allowed parameters together', async () => {
  const wanted = {
    prompt: 'login',
    login_hint: 'bob',
    acr_values: 'high',
    max_age: '60',
    ui_locales: 'en',
  };
  const seen = Object.fromEntries(await seenByProvider(new URLSearchParams(wanted).toString()));
  expect(seen).toMatchObject(wanted);
});

test('A-007 parameters outside the allow-list are neither passed on nor able to change ours', async () => {
  const foreign = new URLSearchParams({
    scope: 'admin',
    redirect_uri: 'https://evil.example/',
    client_id: 'other',
    response_type: 'token',
    response_mode: 'fragment',
    state: 'fixed',
    nonce: 'fixed',
    code_challenge: 'fixed',
    code_challenge_method: 'plain',
    request: 'eyJhbGciOiJub25lIn0..',
    request_uri: 'https://evil.example/request',
    audience: 'other',
    resource: 'https://other.example',
    claims: '{"userinfo":{}}',
    id_token_hint: 'x',
    display: 'popup',
    registration: '{}',
    dpop_jkt: 'x',
    authorization_details: '[]',
    test_user: 'mallory',
    'prompt[]': 'none',
    Prompt: 'none',
    __proto__x: '1',
    constructor: '1',
  });
  const seen = await seenByProvider(`${foreign.toString()}&__proto__=x&toString=y`);
  expect(seen.map(([key]) => key).sort()).toEqual(OURS);
  expect(Object.fromEntries(seen)).toMatchObject({
    response_type: 'code',
    code_challenge_method: 'S256',
    scope: expect.stringMatching(/^openid/),
    audience: 'orders api&x=1',
  });
});

const refused = [
  'prompt=create',
  'prompt=unknown',
  'prompt=',
  'prompt=NONE',
  'prompt=none%20login',
  'prompt=login%20none',
  'prompt=login%20%20consent',
  'prompt=login%0d%0aX:%201',
  'prompt=login%26scope%3Dadmin',
  'prompt=login&prompt=login',
  'prompt=none&prompt=login',
  'login_hint=',
  'login_hint=%00',
  'login_hint=a%0d%0aLocation:%20https://evil.example/',
  'login_hint=%7f',
  'login_hint=%c2%85',
  `login_hint=${'x'.repeat(257)}`,
  'login_hint=a&login_hint=b',
  'acr_values=',
  'acr_values=%20x',
  'acr_values=a%20%20b',
  'acr_values=%e2%82%ac',
  'acr_values=a%0ab',
  `acr_values=${'x'.repeat(513)}`,
  'max_age=',
  'max_age=-1',
  'max_age=1.5',
  'max_age=1e3',
  'max_age=0x10',
  'max_age=%201',
  'max_age=9999999999',
  'max_age=NaN',
  'max_age=1&max_age=2',
  'ui_locales=',
  'ui_locales=de_CH',
  'ui_locales=de;q=1',
  'ui_locales=%3Cscript%3E',
  'ui_locales=en&ui_locales=de',
  'provider=other',
  'provider=',
  'provider=__proto__',
  'provider=constructor',
  'provider=main&provider=main',
  'returnTo=/a&returnTo=/b',
];

test.each(refused)('A-007 %s is refused with 400 before any redirect', async (query) => {
  const answer = await c.client().navigate(`/auth/login?${query}`);
  expect(answer.status).toBe(400);
  expect(answer.location).toBeUndefined();
  expect(answer.setCookies).toEqual([]);
  expect(await stored()).toEqual([]);
  expect(c.provider.ledger.count('authorize')).toBe(0);
  expect(answer.headers['content-type']).toMatch(/^text\/html/);
});

test('A-007 max_age is held against auth_time when the provider answers', async () => {
  const client = c.client();
  c.provider.next('token', {
    claims: (claims) => ({ ...claims, auth_time: Math.floor(Date.now() / 1000) - 3600 }),
  });
  expect((await client.login({ params: { max_age: '60' } })).status).toBe(400);
  expect(client.sessionCookie).toBeUndefined();
  c.provider.next('token', { claims: (claims) => ({ ...claims, auth_time: undefined }) });
  expect((await client.login({ params: { max_age: '60' } })).status).toBe(400);
  expect((await client.login({ params: { max_age: '60' } })).status).toBe(303);
});

describe('silent login', () => {
  const silently = (client: BrowserClient, returnTo = '/app'): ReturnType<BrowserClient['login']> =>
    client.login({ returnTo, params: { prompt: 'none' } });

  test.each(['login_required', 'interaction_required', 'consent_required', 'account_selection_required'])(
    'A-008 %s leads back to the application as anonymous, and the provider is asked once, not again and again',
    async (error) => {
      c.provider.always('authorize', { error });
      const client = c.client();
      for (let round = 0; round < 10; round += 1) {
        const answer = await silently(client, `/app?round=${String(round)}`);
        expect([answer.status, answer.location]).toEqual([303, `/app?round=${String(round)}`]);
        expect(client.sessionCookie).toBeUndefined();
        expect((await client.me()).problem).toBe('session-required');
      }
      expect(c.provider.ledger.count('authorize')).toBe(1);
      expect(c.provider.ledger.count('token')).toBe(0);
      expect(client.loginCookies).toEqual([]);
      expect(await stored()).toEqual([]);
    },
  );

  test('A-008 the mark of a failed attempt lasts 60 s, holds nothing and blocks no ordinary login', async () => {
    c.provider.next('authorize', { error: 'login_required' });
    const client = c.client();
    const failed = await silently(client);
    const mark = failed.setCookies.find((line) => line.startsWith(`${client.cookieName('silent')}=`));
    expect(mark).toBe(`${client.cookieName('silent')}=1; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=60`);
    expect((await client.login({ returnTo: '/in' })).location).toBe('/in');
    expect((await client.me()).status).toBe(200);
    expect(client.cookie(client.cookieName('silent'))).toBeUndefined();
  });

  test('A-008 once the mark is over the provider is asked again, and may say yes', async () => {
    c.provider.next('authorize', { error: 'login_required' });
    const client = c.client();
    await silently(client);
    client.deleteCookie(client.cookieName('silent'));
    expect((await silently(client, '/in')).location).toBe('/in');
    expect((await client.me()).status).toBe(200);
    expect(c.provider.ledger.count('authorize')).toBe(2);
  });

  test('A-008 a failed silent login leaves the session that was there alone', async () => {
    const client = await c.signedIn();
    c.provider.next('authorize', { error: 'login_required' });
    expect((await silently(client)).status).toBe(303);
    expect((await client.me()).status).toBe(200);
  });

  test('A-008 another error of a silent login, and the same error of an ordinary one, are refusals', async () => {
    const client = c.client();
    c.provider.next('authorize', { error: 'access_denied' });
    expect((await silently(client)).status).toBe(400);
    c.provider.next('authorize', { error: 'login_required' });
    expect((await client.login()).status).toBe(400);
    expect(client.sessionCookie).toBeUndefined();
  });

  test('A-008 the error counts only from the provider that was asked', async () => {
    c.provider.next('authorize', { error: 'login_required' });
    const client = c.client();
    const wrong = await client.login({
      params: { prompt: 'none' },
      callback: (url) => {
        url.searchParams.set('state', 'A'.repeat(43));
        return url;
      },
    });
    expect(wrong.status).toBe(400);
    expect(client.cookie(client.cookieName('silent'))).toBeUndefined();
  });
});

describe('transport', () => {
  test('A-011 without X-Forwarded-Proto from the TLS proxy neither login nor callback go on, and the log says why', async () => {
    const client = c.client();
    const without = ['x-forwarded-proto'];
    for (const path of ['/auth/login', `/auth/callback?code=x&state=${'A'.repeat(43)}`]) {
      for (const headers of [{}, { 'x-forwarded-proto': 'http' }, { 'x-forwarded-proto': 'https, http' }]) {
        const plain = 'x-forwarded-proto' in headers ? { headers } : { without };
        const from = c.first.mark();
        const answer = await client.navigate(path, { replica: 0, ...plain });
        expect(answer.status).toBe(421);
        expect(answer.location).toBeUndefined();
        expect(answer.setCookies).toEqual([]);
        const line = await c.first.waitForEvent('insecure_transport', { from });
        expect(line['remedy']).toContain('X-Forwarded-Proto: https');
      }
    }
    expect(await stored()).toEqual([]);
  });

  test('A-011 X-Forwarded-Proto of a peer that is no trusted proxy counts for nothing', async () => {
    const provider = await startProvider();
    const other = await startCloakroom({ replicas: 1, provider, redis: 'memory', trustForwarded: false });
    const client = other.client();
    for (const value of ['https', 'https, https', 'HTTPS', 'wss']) {
      const answer = await client.navigate('/auth/login', { headers: { 'x-forwarded-proto': value } });
      expect(answer.status).toBe(421);
      expect([answer.location, answer.setCookies]).toEqual([undefined, []]);
    }
    const forwarded = { forwarded: 'proto=https', 'x-forwarded-ssl': 'on', 'front-end-https': 'on' };
    expect((await client.navigate('/auth/login', { headers: forwarded })).status).toBe(421);
    const line = await other.waitForEvent('insecure_transport');
    expect(line['remedy']).toContain('trustedProxies');
    expect(provider.ledger.count('authorize')).toBe(0);
    await other.close();
  });

  test('A-011 on a loopback origin over plain http a login works and its cookies are kept', async () => {
    const other = await startCloakroom({ local: true, provider: c.provider, redis: 'memory' });
    const client = await other.signedIn();
    expect(client.refusedCookies).toEqual([]);
    expect((await client.me()).status).toBe(200);
    await other.close();
  });
});
