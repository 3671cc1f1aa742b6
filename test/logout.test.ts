import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserClient, Me } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { faults, startProvider, type FaultProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';

let c: Cloakroom;

beforeAll(async () => {
  c = await startCloakroom({ replicas: 2 });
});

beforeEach(async () => {
  c.provider.reset();
  c.provider.revokeEverything();
  c.provider.ledger.resetCounts();
  c.upstream.clear();
  await c.redis?.clear();
});

afterAll(async () => {
  await expectLeftClean(c);
});

const sessions = (): Promise<string[]> => c.redis?.keys(`${c.prefix}:*:session`) ?? Promise.resolve([]);
const logoutUrl = async (client: BrowserClient): Promise<string> => (await client.me()).json<Me>().logoutUrl;

/** Signed out here: no record, no cookie in this browser, and the old cookie opens nothing on any replica. */
async function expectGone(client: BrowserClient, before: BrowserClient): Promise<void> {
  expect(await sessions()).toEqual([]);
  expect(client.sessionCookie).toBeUndefined();
  expect(client.cookie(client.cookieName('last'))).toBeUndefined();
  for (const replica of c.replicas.keys()) {
    expect((await before.me({ replica })).problem).toBe('session-required');
    expect((await before.api('/api/x', { replica })).status).toBe(401);
  }
  expect(c.upstream.requests).toEqual([]);
}

function expectEndSession(url: string, provider: FaultProvider = c.provider): URLSearchParams {
  expect(url.startsWith(`${provider.issuer}/logout?`)).toBe(true);
  const query = new URL(url).searchParams;
  expect([...query.keys()].sort()).toEqual([
    'client_id',
    'id_token_hint',
    'post_logout_redirect_uri',
    'state',
  ]);
  expect(provider.ledger.idTokens.has(query.get('id_token_hint') ?? '')).toBe(true);
  expect(query.get('client_id')).toBe(provider.clientId);
  expect(query.get('post_logout_redirect_uri')).toBe(`${c.publicUrl}/auth/logout`);
  expect(query.get('state')).toMatch(/^[\w-]{22}$/);
  return query;
}

/** The refresh token of the newest session is dead, and it was this client that said so. */
function expectRevoked(provider: FaultProvider = c.provider): void {
  const [hit] = provider.ledger.hitsOf('revocation');
  const token = hit?.params.get('token') ?? '';
  expect(provider.ledger.refreshTokens.get(token)?.revokedBy).toBe('endpoint');
  expect(hit?.params.get('token_type_hint')).toBe('refresh_token');
  expect(provider.ledger.count('revocation')).toBe(1);
  expect(provider.ledger.liveRefreshTokens()).toEqual([]);
}

describe('POST /auth/logout', () => {
  test('A-100 the session is gone before the answer, the token revoked, then the provider’s own logout, and back', async () => {
    const client = await c.signedIn();
    const before = client.clone();
    let left: string[] | undefined;
    c.provider.next('revocation', {
      onCommit: async () => {
        left = await sessions();
      },
    });
    const steps = await client.logout({ returnTo: '/bye' });
    expect(left).toEqual([]);
    expect(steps.post.status).toBe(200);
    expect(steps.post.headers['cache-control']).toBe('no-store');
    expect(steps.navigation?.status).toBe(303);
    expect(steps.navigation?.headers['cache-control']).toBe('no-store');
    expect(steps.navigation?.headers['referrer-policy']).toBe('no-referrer');
    expectEndSession(steps.navigation?.location ?? '');
    expectRevoked();
    expect([steps.back?.status, steps.back?.location]).toEqual([303, '/bye']);
    expect(client.cookies()).toEqual([]);
    await expectGone(client, before);
  });

  test('A-100 the JSON holds where to go and nothing else; the ID token is in no answer a script can read', async () => {
    const client = await c.signedIn();
    const { post } = await client.logout({ navigate: false });
    const answer = post.json<{ logoutUrl: string }>();
    expect(Object.keys(answer)).toEqual(['logoutUrl']);
    expect(answer.logoutUrl).toMatch(/^\/auth\/logout\?token=[\w-]{43}$/);
    for (const secret of c.provider.ledger.secrets()) expect(post.text).not.toContain(secret);
    // The ticket is good once.
    const first = await client.navigate(answer.logoutUrl, { site: 'same-origin' });
    expectEndSession(first.location ?? '');
    const second = await client.navigate(answer.logoutUrl, { site: 'same-origin' });
    expect([second.status, second.location]).toEqual([303, '/']);
  });

  test('A-064 whoever is handed the address without the cookie of that browser gets no ID token, and takes nothing away', async () => {
    const client = await c.signedIn();
    const { post } = await client.logout({ navigate: false });
    const { logoutUrl: address } = post.json<{ logoutUrl: string }>();
    const thief = await c.client().navigate(address, { site: 'none' });
    expect([thief.status, thief.location]).toEqual([303, '/']);
    // Nor does a script of the page itself, which has the cookie but no navigation.
    const script = await client.fetch(address, { headers: { 'sec-fetch-dest': 'empty' } });
    expect([script.status, script.location]).toEqual([403, undefined]);
    expectEndSession((await client.navigate(address, { site: 'same-origin' })).location ?? '');
  });

  test('A-100 what waits for the navigation is short-lived and unreadable', async () => {
    const client = await c.signedIn();
    await client.logout({ navigate: false });
    const [key = ''] = (await c.redis?.keys(`${c.prefix}:*:logout`)) ?? [];
    expect(Number(await c.redis?.command('PTTL', key))).toBeLessThanOrEqual(120_000);
    const value = (await c.redis?.client.getBuffer(key))?.toString('latin1') ?? '';
    expect(value.length).toBeGreaterThan(0);
    for (const token of c.provider.ledger.idTokens) expect(value).not.toContain(token.slice(0, 40));
  });

  test('A-100 a second logout, and one of somebody never signed in, answer 200 as well', async () => {
    const client = await c.signedIn();
    const before = client.clone();
    await client.logout();
    for (const browser of [client, before, c.client()]) {
      const { post } = await browser.logout({ navigate: false, returnTo: '/bye' });
      expect(post.status).toBe(200);
      expect(post.json()).toEqual({ logoutUrl: '/bye' });
    }
    expect(c.provider.ledger.count('revocation')).toBe(1);
  });

  test('A-100 fifty logouts at once: all answered, one revocation, one end', async () => {
    const client = await c.signedIn();
    const before = client.clone();
    const handle = /\{(.+)\}/.exec((await sessions())[0] ?? '')?.[1];
    const answers = await Promise.all(
      Array.from({ length: 50 }, (_, at) =>
        before.clone().api('/auth/logout', { method: 'POST', replica: at % 2 }),
      ),
    );
    expect(answers.map(({ status }) => status)).toEqual(answers.map(() => 200));
    client.clearCookies();
    await expectGone(client, before);
    await c.waitForEvent('session_ended', (line) => line['handle'] === handle);
    expect(c.events('session_ended').filter((line) => line['handle'] === handle)).toEqual([
      expect.objectContaining({ cause: 'user' }),
    ]);
    expect(c.provider.ledger.liveRefreshTokens()).toEqual([]);
  });

  const bad: Array<[string, Parameters<BrowserClient['fetch']>[1]]> = [
    ['without the header', { headers: { origin: 'https://app.example.test' } }],
    ['with another value of it', { headers: { origin: 'https://app.example.test', 'x-csrf': '0' } }],
    ['with a foreign Origin', { headers: { origin: 'https://evil.example', 'x-csrf': '1' } }],
    ['with Origin null', { headers: { origin: 'null', 'x-csrf': '1' } }],
    [
      'from a sister site',
      { site: 'same-site', headers: { origin: 'https://app.example.test', 'x-csrf': '1' } },
    ],
    ['from another site', { site: 'cross-site', headers: { 'x-csrf': '1' } }],
    ['without Origin and fetch metadata', { headers: { 'x-csrf': '1' }, without: ['sec-fetch-site'] }],
    [
      'as a form',
      {
        headers: { origin: 'https://app.example.test', 'content-type': 'application/x-www-form-urlencoded' },
        body: 'x-csrf=1&_method=POST',
      },
    ],
  ];

  test.each(bad)('A-100 %s: 403, and the session lives', async (_, init) => {
    const client = await c.signedIn();
    const cookie = client.cookieHeader('/auth/logout', 'same-origin', 'POST', false);
    const answer = await client.fetch('/auth/logout', { ...init, method: 'POST', cookie });
    expect([answer.status, answer.problem]).toEqual([403, 'csrf']);
    expect(answer.setCookies).toEqual([]);
    expect((await client.me()).status).toBe(200);
    expect(c.provider.ledger.count('revocation')).toBe(0);
  });
});

describe('GET /auth/logout', () => {
  test('A-100 with the token of /auth/me: the same, in one navigation', async () => {
    const client = await c.signedIn();
    const before = client.clone();
    const answer = await client.navigate(`${await logoutUrl(client)}&returnTo=%2Fbye`, {
      site: 'same-origin',
    });
    expect(answer.status).toBe(303);
    expectEndSession(answer.location ?? '');
    expectRevoked();
    const back = (await client.foreign(answer.location ?? '')).location ?? '';
    expect((await client.navigate(client.pathOf(back), { site: 'cross-site' })).location).toBe('/bye');
    expect(client.cookies()).toEqual([]);
    await expectGone(client, before);
  });

  test('A-100 twice is no error', async () => {
    const client = await c.signedIn();
    const url = await logoutUrl(client);
    await client.navigate(url, { site: 'same-origin' });
    const again = await client.navigate(url, { site: 'same-origin' });
    expect([again.status, again.location]).toEqual([303, '/']);
    const stale = await client.navigate(`${url}&returnTo=%2Fbye`, { site: 'same-origin' });
    expect([stale.status, stale.location]).toEqual([303, '/bye']);
  });

  test('A-100 without a token nobody is signed out: not by a link, an image or a frame', async () => {
    const client = await c.signedIn();
    for (const path of [
      '/auth/logout',
      '/auth/logout?state=x',
      '/auth/logout?returnTo=/x',
      '/auth/logout?Token=x',
    ]) {
      for (const site of ['same-origin', 'cross-site', 'none'] as const) {
        const answer = await client.navigate(path, { site });
        expect([answer.status, answer.location]).toEqual([303, '/']);
        expect(answer.setCookies.filter((line) => line.includes('-session='))).toEqual([]);
      }
    }
    expect((await client.me()).status).toBe(200);
  });

  test('A-100 a token of another session, a changed one, a ticket nobody gave: the session lives', async () => {
    const client = await c.signedIn();
    const other = await c.signedIn({ user: 'bob' });
    const own = await logoutUrl(client);
    const foreign = await logoutUrl(other);
    const changed = own.endsWith('A') ? `${own.slice(0, -1)}B` : `${own.slice(0, -1)}A`;
    const companion = client.cookie(client.cookieName('last'))?.value ?? '';
    const handle = decodeURIComponent(own).split('=')[1]?.split('.')[0] ?? '';
    for (const url of [
      foreign,
      changed,
      `${own}x`,
      `/auth/logout?token=${companion}`,
      `/auth/logout?token=${handle}.`,
      `/auth/logout?token=${handle}.${'A'.repeat(43)}`,
      '/auth/logout?token=',
      '/auth/logout?token=%00',
      `/auth/logout?token=${'x'.repeat(5000)}`,
    ]) {
      const answer = await client.navigate(url, { site: 'same-origin' });
      expect([url, answer.status]).toEqual([url, 403]);
      expect(answer.headers['content-type']).toMatch(/^text\/html/);
      expect(answer.setCookies).toEqual([]);
    }
    // 43 characters look like a ticket; nobody gave this one out.
    const guess = await client.navigate(`/auth/logout?token=${handle}`, { site: 'same-origin' });
    expect([guess.status, guess.location]).toEqual([303, '/']);
    expect((await client.me()).status).toBe(200);
    expect((await other.me()).status).toBe(200);
    expect(c.provider.ledger.count('revocation')).toBe(0);
  });

  test('A-100 a token is bound to the session: after the next login it is worth nothing', async () => {
    const client = await c.signedIn();
    const old = await logoutUrl(client);
    await client.login();
    expect((await client.navigate(old, { site: 'same-origin' })).status).toBe(403);
    expect((await client.me()).status).toBe(200);
  });

  test.each(['PUT', 'DELETE', 'PATCH', 'OPTIONS'])('A-100 %s ends nothing', async (method) => {
    const client = await c.signedIn();
    const answer = await client.api(await logoutUrl(client), { method });
    expect([400, 404, 405]).toContain(answer.status);
    expect((await client.me()).status).toBe(200);
  });
});

describe('A-102 the way back from the provider', () => {
  test('A-102 oidcc-client-test-rp-init-logout: with the state of this logout, to where the person wanted', async () => {
    const client = await c.signedIn();
    const steps = await client.logout({ returnTo: '/bye' });
    const { state } = Object.fromEntries(new URL(steps.navigation?.location ?? '').searchParams);
    expect(new URL(steps.provider?.location ?? '').searchParams.get('state')).toBe(state);
    expect([steps.back?.status, steps.back?.location]).toEqual([303, '/bye']);
    // Used up: the same address once more leads nowhere in particular.
    const again = await client.navigate(`/auth/logout?state=${state ?? ''}`, { site: 'cross-site' });
    expect([again.status, again.location]).toEqual([303, '/']);
  });

  test.each([
    ['oidcc-client-test-rp-init-logout-no-state', 'omit'],
    ['oidcc-client-test-rp-init-logout-other-state', 'other'],
  ] as const)('A-102 %s: to the start page, and whoever is signed in stays so', async (_, state) => {
    c.provider.modes.endSession = { ...c.provider.modes.endSession, state };
    try {
      const client = await c.signedIn();
      const steps = await client.logout({ returnTo: '/bye' });
      expect([steps.back?.status, steps.back?.location]).toEqual([303, '/']);
      const other = await c.signedIn({ user: 'bob' });
      const back = new URL(steps.provider?.location ?? '');
      const answer = await other.navigate(back.pathname + back.search, { site: 'cross-site' });
      expect([answer.status, answer.location]).toEqual([303, '/']);
      expect((await other.me()).status).toBe(200);
    } finally {
      c.provider.modes.endSession = { ...c.provider.modes.endSession, state: 'echo' };
    }
  });

  test('A-102 the state of another browser’s logout is no state of this one', async () => {
    const [alice, mallory] = [await c.signedIn(), await c.signedIn({ user: 'mallory' })];
    const theirs = await mallory.logout({ navigate: false, returnTo: '/theirs' });
    const navigation = await mallory.navigate(theirs.post.json<{ logoutUrl: string }>().logoutUrl, {
      site: 'same-origin',
    });
    const state = new URL(navigation.location ?? '').searchParams.get('state') ?? '';
    const answer = await alice.navigate(`/auth/logout?state=${state}`, { site: 'cross-site' });
    expect([answer.status, answer.location]).toEqual([303, '/']);
    expect((await alice.me()).status).toBe(200);
  });
});

describe('a provider that does not play along', () => {
  test('A-100 without an end-session endpoint the logout ends here, and the person where they wanted', async () => {
    const provider = await startProvider({
      modes: { endSession: { available: false, status: 302, state: 'echo' } },
    });
    const other = await startCloakroom({ provider, redis: 'memory' });
    const client = await other.signedIn();
    const steps = await client.logout({ returnTo: '/bye' });
    expect(steps.post.status).toBe(200);
    expect([steps.navigation?.status, steps.navigation?.location]).toEqual([303, '/bye']);
    expectRevoked(provider);
    expect((await client.me()).status).toBe(401);
    const again = await other.signedIn();
    const link = await again.navigate(`${await logoutUrl(again)}&returnTo=%2Fbye`, { site: 'same-origin' });
    expect([link.status, link.location]).toEqual([303, '/bye']);
    expect((await again.me()).status).toBe(401);
    await other.close();
  });

  test('A-100 without a revocation endpoint, and with revokeOnLogout and idTokenHint off', async () => {
    const provider = await startProvider({
      modes: { metadata: (metadata) => ({ ...metadata, revocation_endpoint: undefined }) },
    });
    const other = await startCloakroom({
      provider,
      redis: 'memory',
      config: { providers: { main: { idTokenHint: false } } },
    });
    const client = await other.signedIn();
    const steps = await client.logout({ returnTo: '/bye' });
    const query = new URL(steps.navigation?.location ?? '').searchParams;
    expect(query.has('id_token_hint')).toBe(false);
    expect(query.get('client_id')).toBe(provider.clientId);
    expect(steps.back?.location).toBe('/bye');
    expect((await client.me()).status).toBe(401);
    expect(provider.ledger.count('revocation')).toBe(0);
    await other.close();
  });

  test.each([
    ['503', faults.unavailable],
    ['500', faults.serverError],
    ['invalid_client', faults.invalidClient],
    ['unsupported_token_type', { error: 'unsupported_token_type' }],
    ['HTML', faults.html],
    ['a reset', faults.reset],
    ['no answer at all', faults.hang],
  ] as const)('A-100 revocation is answered with %s: the logout is answered and done', async (_, fault) => {
    const client = await c.signedIn();
    const before = client.clone();
    c.provider.next('revocation', fault);
    const steps = await client.logout({ returnTo: '/bye' });
    expect(steps.post.status).toBe(200);
    expect(steps.back?.location).toBe('/bye');
    await expectGone(client, before);
    c.provider.release();
  });

  test('A-100 the provider is down during the logout: answered, done, and worth a log line', async () => {
    const client = await c.signedIn();
    const viaLink = await c.signedIn({ user: 'bob' });
    const url = await logoutUrl(viaLink);
    const before = client.clone();
    await c.provider.stop();
    try {
      const { post } = await client.logout({ navigate: false, returnTo: '/bye' });
      expect(post.status).toBe(200);
      // Where to go on is known without asking the provider.
      const { logoutUrl: next } = post.json<{ logoutUrl: string }>();
      const navigation = await client.navigate(next, { site: 'same-origin' });
      expect(navigation.status).toBe(303);
      expectEndSession(navigation.location ?? '');
      expect((await viaLink.navigate(url, { site: 'same-origin' })).status).toBe(303);
      await expectGone(client, before);
      expect((await viaLink.me()).status).toBe(401);
      await c.waitForEvent('revocation_failed');
    } finally {
      await c.provider.start();
    }
  });

  test('A-100 a provider that was never there: a session of another start is still ended', async () => {
    const client = await c.signedIn();
    const before = client.clone();
    await c.provider.stop();
    try {
      for (const replica of c.replicas) await replica.stop();
      await Promise.all(c.replicas.map((replica) => replica.start()));
      const { post } = await client.logout({ navigate: false });
      expect(post.status).toBe(200);
      const next = post.json<{ logoutUrl: string }>().logoutUrl;
      const navigation = await client.navigate(next, { site: 'same-origin' });
      expect([navigation.status, navigation.location]).toEqual([303, '/']);
      await expectGone(client, before);
    } finally {
      await c.provider.start();
    }
  });
});
