import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserClient, BrowserResponse, LoginAttempt } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { startProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';

let c: Cloakroom;

beforeAll(async () => {
  c = await startCloakroom({ replicas: 2 });
});

beforeEach(async () => {
  c.provider.reset();
  c.provider.ledger.resetCounts();
  await c.redis?.clear();
});

afterAll(async () => {
  await expectLeftClean(c);
});

const keys = (): Promise<string[]> => c.redis?.keys() ?? Promise.resolve([]);
const exchanges = (): number => c.provider.ledger.count('token');
const without =
  (...names: string[]) =>
  (url: URL): URL => {
    for (const name of names) url.searchParams.delete(name);
    return url;
  };
const having =
  (changes: Record<string, string>) =>
  (url: URL): URL => {
    for (const [name, value] of Object.entries(changes)) url.searchParams.set(name, value);
    return url;
  };

/** A page with a reference that the log knows, nothing stored, nobody signed in. */
function expectRefusedPage(answer: BrowserResponse, client: BrowserClient): string {
  expect(answer.status).toBe(400);
  expect(answer.headers['content-type']).toMatch(/^text\/html/);
  expect(answer.headers['cache-control']).toBe('no-store');
  expect(answer.location).toBeUndefined();
  expect(client.sessionCookie).toBeUndefined();
  expect(answer.setCookies).toEqual([]);
  const reference = /Reference: ([\w-]+)</.exec(answer.text)?.[1] ?? '';
  expect(reference).toBe(answer.headers['x-request-id']);
  expect(answer.text).toContain('<a href="/auth/login">');
  return reference;
}

async function expectLogged(event: string, reference: string, reason?: string): Promise<void> {
  const line = await c.waitForEvent(event, (entry) => entry['reference'] === reference);
  if (reason !== undefined) expect(line['reason']).toBe(reason);
}

const wrongStates: Array<[string, (right: string) => string | undefined]> = [
  ['missing', () => undefined],
  ['empty', () => ''],
  ['unknown', () => randomBytes(32).toString('base64url')],
  ['one character short', (right) => right.slice(1)],
  ['one character long', (right) => `${right}A`],
  ['with one character changed', (right) => `${right.slice(0, -1)}${right.endsWith('A') ? 'B' : 'A'}`],
  ['in lower case', (right) => right.toLowerCase()],
  ['with a space before it', (right) => ` ${right}`],
  ['with a NUL behind it', (right) => `${right}\0`],
  ['with a line end', (right) => `${right}\r\n`],
  ['percent-encoded twice', (right) => right.replace(/./g, (char) => `%${char.charCodeAt(0).toString(16)}`)],
  ['in Base64 with padding', (right) => `${right}=`],
  ['of letters outside ASCII', () => 'ä'.repeat(43)],
  ['a wildcard', () => '*'.repeat(43)],
  ['a path', () => '../'.repeat(14) + 'x'],
  ['7 KB long', () => 'A'.repeat(7000)],
];

test.each(wrongStates)(
  'A-012 a state that is %s: a page, no token request, nothing stored or used up',
  async (_, wrong) => {
    const client = c.client();
    const attempt = await client.beginLogin({ returnTo: '/in' });
    const state = wrong(attempt.state ?? '');
    const before = await keys();
    const answer = await attempt.finish({
      callback: state === undefined ? without('state') : having({ state }),
    });
    const reason = /^[\w-]{43}$/.test(state ?? '') ? 'attempt-unknown' : 'state-malformed';
    await expectLogged('callback_refused', expectRefusedPage(answer, client), reason);
    expect(exchanges()).toBe(0);
    expect(await keys()).toEqual(before);
    expect((await attempt.finish()).location).toBe('/in');
  },
);

test('A-012 a state of 10 KB: 400 or 414 without a trace', async () => {
  const client = c.client();
  const attempt = await client.beginLogin();
  const before = await keys();
  const answer = await attempt.finish({ callback: having({ state: 'A'.repeat(10_240) }) });
  expect(answer.status).toBe(414);
  expect(answer.setCookies).toEqual([]);
  expect(exchanges()).toBe(0);
  expect(await keys()).toEqual(before);
});

describe('an attempt that is over', () => {
  /** As after ten minutes: Redis has dropped the record, the browser still has its half. */
  async function expired(client: BrowserClient): Promise<LoginAttempt> {
    const attempt = await client.beginLogin({ returnTo: '/late' });
    await attempt.authorize();
    for (const key of (await c.redis?.keys(`${c.prefix}:*:login`)) ?? []) await c.redis?.command('DEL', key);
    return attempt;
  }

  test('A-012 an expired state is no dead end: the browser that began it is sent round once', async () => {
    const client = c.client();
    const late = await expired(client);
    const answer = await late.finish();
    await expectLogged('callback_refused', expectRefusedPage(answer, client), 'attempt-unknown');
    expect(exchanges()).toBe(0);
    const [, onward = ''] = /http-equiv="refresh" content="0;url=([^"]+)"/.exec(answer.text) ?? [];
    expect(onward).toBe('/auth/login?restart=1');
    const again = await client.navigate(onward, { site: 'same-origin' });
    const chain = await client.follow(again);
    expect(chain.find((step) => step.setCookies.length > 0)?.location).toBe('/');
    expect((await client.me()).status).toBe(200);
  });

  test('A-012 within a minute there is no second round, only a page', async () => {
    const client = c.client();
    await (await expired(client)).finish();
    const restarted = await client.navigate('/auth/login?restart=1', { site: 'same-origin' });
    expect(restarted.setCookies).toContain(
      `${client.cookieName('restart')}=1; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=60`,
    );
    const answer = await (await expired(client)).finish();
    expectRefusedPage(answer, client);
    expect(answer.text).not.toContain('http-equiv');
  });

  test('A-012 a login that succeeds takes the mark of the restart away', async () => {
    const client = c.client();
    await (await expired(client)).finish();
    await client.follow(await client.navigate('/auth/login?restart=1', { site: 'same-origin' }));
    expect(client.sessionCookie).toBeDefined();
    expect(client.cookie(client.cookieName('restart'))).toBeUndefined();
  });

  test('A-012 whoever is signed in is sent to the application, by a late callback and by a restart', async () => {
    const client = await c.signedIn();
    const late = await expired(client);
    const answer = await late.finish();
    expect([answer.status, answer.location, answer.setCookies]).toEqual([303, '/', []]);
    const restart = await client.navigate('/auth/login?restart=1', { site: 'same-origin' });
    expect([restart.status, restart.location]).toEqual([303, '/']);
    expect((await client.me()).status).toBe(200);
  });

  test('A-013 a callback that is opened again: to the application while signed in, a page afterwards', async () => {
    const client = c.client();
    const attempt = await client.beginLogin({ returnTo: '/in' });
    expect((await attempt.finish()).location).toBe('/in');
    for (let i = 0; i < 3; i += 1) {
      const again = await attempt.finish();
      expect([again.status, again.location, again.setCookies]).toEqual([303, '/', []]);
    }
    await client.logout({ navigate: false });
    const page = await attempt.finish();
    expectRefusedPage(page, client);
    expect(page.text).not.toContain('http-equiv');
    expect(exchanges()).toBe(1);
  });
});

test('A-014 a callback opened in another browser is refused, and the browser that began can still finish', async () => {
  const mine = c.client();
  const other = c.client();
  const attempt = await mine.beginLogin({ returnTo: '/mine' });
  const answer = await attempt.finish({ by: other });
  await expectLogged('callback_refused', expectRefusedPage(answer, other), 'attempt-unknown');
  expect(answer.text).not.toContain('http-equiv');
  expect(exchanges()).toBe(0);
  expect((await attempt.finish()).location).toBe('/mine');
  expect((await other.me()).status).toBe(401);
});

test('A-014 neither a login of its own nor a guessed cookie makes another browser’s callback its own', async () => {
  const attacker = c.client();
  const victim = c.client();
  const trap = await attacker.beginLogin();
  await trap.authorize('mallory');
  await victim.beginLogin();
  const [theirs] = attacker.loginCookies;
  const [own] = victim.loginCookies;
  victim.setCookie(theirs?.name ?? '', own?.value ?? '', { sameSite: 'lax' });
  expectRefusedPage(await trap.finish({ by: victim }), victim);
  victim.setCookie(theirs?.name ?? '', `${Date.now().toString(36)}.${'A'.repeat(43)}`, { sameSite: 'lax' });
  expectRefusedPage(await trap.finish({ by: victim }), victim);
  expect(exchanges()).toBe(0);
});

test('A-014 two values of the attempt’s cookie are none', async () => {
  const client = c.client();
  const attempt = await client.beginLogin();
  const sent = await attempt.authorize();
  const [own] = client.loginCookies;
  const path = client.pathOf(sent?.callback.href ?? '');
  const cookie = `${own?.name ?? ''}=${'x'.repeat(52)}; ${own?.name ?? ''}=${own?.value ?? ''}`;
  expect((await client.navigate(path, { site: 'cross-site', cookie })).status).toBe(400);
  expect(exchanges()).toBe(0);
});

test('A-014 somebody signed in who is given a foreign callback stays who they are', async () => {
  const attacker = c.client();
  const victim = await c.signedIn({ user: 'alice' });
  const trap = await attacker.beginLogin();
  await trap.authorize('mallory');
  const before = victim.sessionCookie?.value;
  const answer = await trap.finish({ by: victim });
  expect([answer.status, answer.location]).toEqual([303, '/']);
  expect(victim.sessionCookie?.value).toBe(before);
  expect(exchanges()).toBe(1);
});

describe('code injection', () => {
  async function injected(): Promise<{ victim: BrowserClient; answer: BrowserResponse }> {
    const attacker = c.client();
    const stolen = await (await attacker.beginLogin()).authorize('mallory');
    const victim = c.client();
    const code = stolen?.callback.searchParams.get('code') ?? '';
    const answer = await victim.login({ as: 'alice', callback: having({ code }) });
    return { victim, answer };
  }

  test('A-015 another login’s code is refused by the provider’s PKCE check', async () => {
    const { victim, answer } = await injected();
    await expectLogged('code_exchange_refused', expectLeftOut(answer, victim));
    expect(exchanges()).toBe(1);
    expect(await c.redis?.keys(`${c.prefix}:*:session`)).toEqual([]);
  });

  test('A-015 and by the nonce where the provider does not check PKCE', async () => {
    c.provider.modes.pkce = 'ignore';
    const { victim, answer } = await injected();
    await expectLogged('id_token_rejected', expectLeftOut(answer, victim), 'nonce');
    expect(await c.redis?.keys(`${c.prefix}:*:session`)).toEqual([]);
  });

  test('A-015 the attempt is used up by it', async () => {
    const attacker = await (await c.client().beginLogin()).authorize('mallory');
    const victim = c.client();
    const attempt = await victim.beginLogin();
    const code = attacker?.callback.searchParams.get('code') ?? '';
    expect((await attempt.finish({ callback: having({ code }) })).status).toBe(400);
    expect((await attempt.finish()).status).toBe(400);
    expect(exchanges()).toBe(1);
  });

  test.each([
    ['unknown', (code: string) => `${code}x`],
    ['empty', () => ''],
    [
      '10 KB with other parameters inside',
      () => `x&grant_type=client_credentials&scope=admin${'y'.repeat(3000)}`,
    ],
  ])('A-015 a code that is %s', async (_, code) => {
    const client = c.client();
    const answer = await client.login({
      callback: (url) => having({ code: code(url.searchParams.get('code') ?? '') })(url),
    });
    expectLeftOut(answer, client);
    for (const { params } of c.provider.ledger.hitsOf('token')) {
      expect(params.get('grant_type')).toBe('authorization_code');
      expect(params.getAll('scope')).toEqual([]);
    }
  });

  function expectLeftOut(answer: BrowserResponse, client: BrowserClient): string {
    expect(answer.setCookies.filter((line) => line.includes('-session='))).toEqual([]);
    return expectRefusedPage(answer, client);
  }
});

describe('mix-up', () => {
  test.each([
    ['wrong', () => having({ iss: 'https://id.evil.example' })],
    ['right but for a slash', () => (url: URL) => having({ iss: `${c.provider.issuer}/` })(url)],
    ['right but for its case', () => (url: URL) => having({ iss: c.provider.issuer.toUpperCase() })(url)],
    ['empty', () => having({ iss: '' })],
    ['missing although the provider advertises it', () => without('iss')],
  ])('A-016 an iss that is %s: refused before any token request', async (_, change) => {
    const client = c.client();
    const answer = await client.login({ callback: change() });
    await expectLogged('callback_refused', expectRefusedPage(answer, client));
    expect(exchanges()).toBe(0);
  });

  test('A-016 an error response with a wrong iss is refused too', async () => {
    c.provider.next('authorize', { error: 'access_denied' });
    const client = c.client();
    const answer = await client.login({ callback: having({ iss: 'https://id.evil.example' }) });
    expectRefusedPage(answer, client);
  });

  test('A-016 without advertisement: absent and right are accepted, wrong is refused', async () => {
    const provider = await startProvider({ modes: { advertiseIss: false } });
    const other = await startCloakroom({ provider, redis: 'memory' });
    const client = other.client();
    const wrong = await client.login({ callback: having({ iss: 'https://id.evil.example' }) });
    expectRefusedPage(wrong, client);
    expect(provider.ledger.count('token')).toBe(0);
    expect((await client.login()).status).toBe(303);
    expect((await client.login({ callback: without('iss') })).status).toBe(303);
    await other.close();
  });
});

test('A-023 the answer is 303 to a clean path, not kept, with no referrer and the attempt’s cookie gone', async () => {
  const client = c.client();
  const answer = await client.login({ returnTo: '/orders?page=2#top' });
  expect(answer.status).toBe(303);
  expect(answer.location).toBe('/orders?page=2#top');
  expect(answer.headers['cache-control']).toBe('no-store');
  expect(answer.headers['referrer-policy']).toBe('no-referrer');
  expect(answer.headers['clear-site-data']).toBeUndefined();
  expect(answer.headers['strict-transport-security']).toMatch(/^max-age=\d{8}/);
  expect(answer.body).toHaveLength(0);
  const set = new Map(answer.setCookies.map((line) => [line.split('=')[0], line]));
  expect(set.size).toBe(3);
  expect(set.get('__Host-cloakroom-session')).toMatch(/; Path=\/; .*HttpOnly; Secure; SameSite=Strict$/);
  expect(set.get('__Host-cloakroom-last')).toMatch(/; Path=\/; HttpOnly; SameSite=Lax; Secure$/);
  expect(client.loginCookies).toEqual([]);
  expect(client.refusedCookies).toEqual([]);
});

test('A-023 a provider that redirects with 307 or 303 changes nothing about it', async () => {
  for (const redirectStatus of [303, 307] as const) {
    c.provider.modes.redirectStatus = redirectStatus;
    const answer = await c.client().login({ returnTo: '/x' });
    expect([answer.status, answer.location]).toEqual([303, '/x']);
  }
});
