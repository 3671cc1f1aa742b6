import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Administration } from './support/administration.js';
import type { BrowserClient, BrowserResponse, Me } from './support/browser-client.js';
import { merge, startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';
import { deliver, logoutToken } from './support/logout-tokens.js';
import { random, seed } from './support/random.js';
import { startRedis, startRedisProxy, type RedisProxy } from './support/redis.js';
import { withRoutes } from './support/routes.js';
import { followLogin, refusal } from './support/step-up.js';
import { scriptCall, StoredSession } from './support/stored-session.js';

const PAY = 'payments:approve';
const LOGIN = '/auth/login?elevate=payments%3Aapprove';
const OFFERED = [403, 'step-up', { reason: 'elevation', loginUrl: LOGIN }];
const ROUNDS = 200;
const DAY = 24 * 60 * 60 * 1000;

let c: Cloakroom;
let wire: RedisProxy;

beforeAll(async () => {
  wire = await startRedisProxy(await startRedis());
  const routes = withRoutes((upstream) => [
    { path: '/api/', upstream },
    { path: '/api/pay/', upstream, elevate: { scope: PAY, for: '30s' } },
    { path: '/api/pay-too/', upstream, elevate: { scope: PAY, for: '30s' } },
    { path: '/api/delete/', upstream, elevate: { scope: 'account:delete' } },
    { path: '/api/asked/', upstream, elevate: { scope: PAY, for: '30s' }, introspect: '1s' },
    { path: '/api/strict/', upstream, elevate: { scope: PAY, for: '30s' }, require: { acr: ['mfa'] } },
  ]);
  c = await startCloakroom({
    redis: wire,
    config: (file) => merge(routes(file), { store: { redis: { commandTimeout: '1s' } } }),
  });
});

beforeEach(() => {
  c.provider.reset();
  c.upstream.clear();
});

afterAll(async () => {
  await expectLeftClean(c, 31 * DAY);
});

async function elevated(client: BrowserClient, path = '/api/pay/x'): Promise<BrowserResponse> {
  return followLogin(client, await client.api(path));
}

/** The scopes of the token that the upstream got last. */
function scopesSeen(): string[] {
  const token = c.provider.ledger.validAccessToken(c.upstream.last?.bearer ?? '');
  return token?.scope.split(' ') ?? [];
}

describe('A-069 elevated access', () => {
  test('A-089 an elevated token that the upstream refuses is not exchanged for the main one', async () => {
    const client = await c.signedIn();
    await elevated(client);
    c.upstream.clear();
    c.provider.ledger.resetCounts();
    const handler = c.upstream.handler;
    c.upstream.handler = (_request, response) => {
      response.writeHead(401, { 'www-authenticate': 'Bearer error="invalid_token"' }).end();
      return true;
    };
    const answer = await client.api('/api/pay/x');
    c.upstream.handler = handler;
    expect([answer.status, answer.headers['cloakroom-answer']]).toEqual([401, 'upstream']);
    expect(c.upstream.requests).toHaveLength(1);
    expect(scopesSeen()).toContain(PAY);
    expect(c.provider.ledger.count('refresh')).toBe(0);
  });

  test('A-069 a route that needs it leads through one login with that scope, and only such routes get the token', async () => {
    const client = await c.signedIn();
    const refused = await client.api('/api/pay/x');
    expect(refusal(refused)).toEqual(OFFERED);
    expect(c.upstream.requests).toEqual([]);
    const before = client.clone();
    const main = (await new StoredSession(c, client).contents()).tokens;

    const attempt = await client.beginLogin({ params: { elevate: PAY }, returnTo: '/app' });
    const scopes = attempt.authorizationUrl?.searchParams.get('scope')?.split(' ');
    expect(scopes).toEqual(['openid', 'profile', 'email', PAY]);
    expect((await attempt.finish()).location).toBe('/app');

    expect(client.sessionCookie?.value).not.toBe(before.sessionCookie?.value);
    expect((await before.api('/api/x')).json()).toMatchObject({
      type: 'session-required',
      reason: 'replaced',
    });
    const contents = await new StoredSession(c, client).contents();
    expect(contents.tokens).toEqual(main);

    for (const path of ['/api/pay/x', '/api/pay-too/x']) {
      expect((await client.api(path)).status).toBe(200);
      expect(scopesSeen()).toContain(PAY);
      expect(c.upstream.last?.bearer).toBe(contents.elevated?.[PAY]?.accessToken);
    }
    expect((await client.api('/api/x')).status).toBe(200);
    expect(c.upstream.last?.bearer).toBe(main.accessToken);
    expect(scopesSeen()).not.toContain(PAY);
    expect(refusal(await client.api('/api/delete/x'))[2].reason).toBe('elevation');
  });

  test('A-069 one that the provider does not call active any more leads through that login again', async () => {
    const client = await c.signedIn();
    expect((await elevated(client, '/api/asked/x')).status).toBe(303);
    // Each replica asks for itself.
    const ask = (): Promise<BrowserResponse> => client.api('/api/asked/x', { replica: 0 });
    expect((await ask()).status).toBe(200);
    for (const record of c.provider.ledger.accessTokens.values()) {
      if (record.scope.includes(PAY)) record.revokedAt ??= Date.now();
    }
    await eventually(async () => (await ask()).status === 403);
    expect(refusal(await ask())).toEqual(OFFERED);
    expect((await client.api('/api/x')).status).toBe(200);
  });

  test('A-069 /auth/me says what is held and until when, and the session lasts no longer for it', async () => {
    const client = await c.signedIn();
    const before = (await client.me()).json<Me & { elevated?: unknown }>();
    expect(before.elevated).toBeUndefined();
    await elevated(client);
    await elevated(client, '/api/delete/x');
    const after = (await client.me()).json<Me & { elevated: { scope: string; expiresAt: string }[] }>();
    expect(after.elevated.map(({ scope }) => scope).sort()).toEqual(['account:delete', PAY]);
    for (const { scope, expiresAt } of after.elevated) {
      const left = Date.parse(expiresAt) - Date.now();
      expect(left).toBeLessThanOrEqual(scope === PAY ? 30_000 : 300_000);
      expect(left).toBeGreaterThan(15_000);
    }
    expect(after.session.absoluteExpiresAt).toBe(before.session.absoluteExpiresAt);
    const left = Number(await c.redis?.client.pttl(new StoredSession(c, client).key));
    expect(left).toBeGreaterThan(0);
    expect(left).toBeLessThanOrEqual(30 * 60_000);
  });

  test('A-069 it ends with its token where that ends earlier, is not refreshed, and can be had again', async () => {
    const client = await c.signedIn();
    c.provider.modes.accessTokenLifetime = 1;
    await elevated(client);
    c.provider.modes.accessTokenLifetime = 300;
    await sleep(1000);
    const refreshes = c.provider.ledger.count('refresh');
    expect(refusal(await client.api('/api/pay/x'))).toEqual(OFFERED);
    expect((await client.me()).json<Me & { elevated?: unknown }>().elevated).toBeUndefined();
    expect((await client.api('/api/x')).status).toBe(200);
    expect(c.provider.ledger.count('refresh')).toBe(refreshes);
    await elevated(client);
    expect((await client.api('/api/pay/x')).status).toBe(200);
  });

  test("A-069 it outlives a refresh of the session's own tokens", async () => {
    c.provider.modes.accessTokenLifetime = 1;
    const client = await c.signedIn();
    c.provider.modes.accessTokenLifetime = 300;
    await elevated(client);
    await sleep(1000);
    expect((await client.api('/api/x')).status).toBe(200);
    expect(await new StoredSession(c, client).generation()).toBe(2);
    expect((await client.api('/api/pay/x')).status).toBe(200);
    expect(c.provider.ledger.doubleSpends.length).toBe(0);
  });

  test('A-069 a provider that does not grant the scope is asked once, and its token is not used', async () => {
    const client = await c.signedIn();
    c.provider.next('token', { mutate: (answer) => ({ ...answer, scope: 'openid profile email' }) });
    expect((await elevated(client)).location).toBe('/app');
    expect(refusal(await client.api('/api/pay/x'))).toEqual([403, 'step-up', { reason: 'not-satisfied' }]);
    expect((await client.api('/api/x')).status).toBe(200);
    expect(refusal(await client.api('/api/delete/x'))[2].reason).toBe('elevation');
  });

  test('A-069 an answer without a scope grants it (RFC 6749 section 5.1)', async () => {
    const client = await c.signedIn();
    c.provider.next('token', { mutate: (answer) => ({ ...answer, scope: undefined }) });
    await elevated(client);
    expect((await client.api('/api/pay/x')).status).toBe(200);
  });

  test('A-069 the sign-in of somebody else elevates nobody', async () => {
    const client = await c.signedIn({ user: 'alice' });
    const cookie = client.sessionCookie?.value;
    const page = await followLogin(client, await client.api('/api/pay/x'), { as: 'bob' });
    expect([page.status, page.location]).toEqual([400, undefined]);
    expect(client.sessionCookie?.value).toBe(cookie);
    expect(refusal(await client.api('/api/pay/x'))).toEqual(OFFERED);
    expect((await client.me()).json<Me>().claims['sub']).toBe('alice');
  });

  test('A-069 a session that ended meanwhile is not brought back', async () => {
    const client = await c.signedIn();
    const attempt = await client.beginLogin({ params: { elevate: PAY } });
    await client.clone().logout();
    const page = await attempt.finish();
    expect([page.status, page.location]).toEqual([400, undefined]);
    expect((await client.api('/api/x')).status).toBe(401);
  });

  test('A-069 without a session it becomes an ordinary login', async () => {
    const client = c.client();
    const attempt = await client.beginLogin({ params: { elevate: PAY } });
    expect(attempt.authorizationUrl?.searchParams.get('scope')).not.toContain(PAY);
    await attempt.finish();
    expect(refusal(await client.api('/api/pay/x'))).toEqual(OFFERED);
  });

  test('A-069 a link on another site brings no elevated access about', async () => {
    const client = await c.signedIn();
    const answer = await client.navigate(LOGIN, {
      site: 'cross-site',
      cookie: `${client.cookieName('session')}=${client.sessionCookie?.value ?? ''}`,
    });
    expect(new URL(answer.location ?? '').searchParams.get('scope')).not.toContain(PAY);
  });

  test.each(['openid', 'admin', 'payments:approve account:delete', '', 'payments:approve '])(
    'A-069 %j is no scope that a route names: 400, and nothing is begun',
    async (elevate) => {
      const client = await c.signedIn();
      const attempt = await client.beginLogin({ params: { elevate } });
      expect([attempt.response.status, attempt.response.setCookies]).toEqual([400, []]);
    },
  );

  test('A-069 what a route requires is asked for first', async () => {
    const client = await c.signedIn();
    await elevated(client);
    expect(refusal(await client.api('/api/strict/x'))[2].loginUrl).toBe(
      '/auth/login?acr_values=mfa&stepUp=1',
    );
  });

  test('A-069 the refresh token of that login is kept nowhere and used by nobody', async () => {
    const client = await c.signedIn();
    const before = new Set(c.provider.ledger.refreshTokens.keys());
    const revoked = c.provider.ledger.count('revocation');
    await elevated(client);
    const [brought] = [...c.provider.ledger.refreshTokens.keys()].filter((token) => !before.has(token));
    expect(brought).toBeDefined();
    expect(JSON.stringify(await new StoredSession(c, client).contents())).not.toContain(brought);
    expect(c.provider.ledger.count('revocation')).toBe(revoked);
  });
});

describe('A-069 elevation and what happens at the same time', () => {
  test(`A-069 ${String(ROUNDS)} times a refresh at any moment: no token is spent twice, and nobody is signed out (SEED=${String(seed)})`, async () => {
    const r = random('elevation and refresh');
    let refreshedFirst = 0;
    for (let round = 0; round < ROUNDS; round += 1) {
      // Over at once: the next request must refresh.
      c.provider.modes.accessTokenLifetime = 0.01;
      const client = await c.signedIn();
      c.provider.modes.accessTokenLifetime = 300;
      const attempt = await client.beginLogin({ params: { elevate: PAY } });
      await attempt.authorize();
      const stored = new StoredSession(c, client);
      c.provider.always('refresh', { delay: r.int(0, 10) });
      const other = client.clone();
      const when = [r.next() * 15, r.next() * 15, r.next() * 30] as const;
      const [landed, ...calls] = await Promise.all([
        sleep(when[0]).then(() => attempt.finish({ replica: round % 2 })),
        sleep(when[1]).then(() => other.api('/api/x', { replica: 0 })),
        sleep(when[2]).then(() => other.api('/api/x', { replica: 1 })),
      ]);
      expect(landed.status).toBe(303);
      // With the old cookie: served, or told that the session was replaced.
      for (const { status } of calls) expect([200, 401]).toContain(status);
      if (calls.some(({ status }) => status === 200)) refreshedFirst += 1;
      expect((await client.api('/api/x')).status).toBe(200);
      expect((await client.api('/api/pay/x')).status).toBe(200);
      expect(await stored.exists()).toBe(false);
    }
    expect(c.provider.ledger.doubleSpends).toEqual([]);
    expect(refreshedFirst).toBeGreaterThan(ROUNDS / 20);
    expect(refreshedFirst).toBeLessThan(ROUNDS);
  });

  test(`A-069 a logout or a logout token at any moment leaves nobody signed in (SEED=${String(seed)})`, async () => {
    const r = random('elevation and logout');
    const left: number[] = [];
    let together = 0;
    for (let round = 0; round < ROUNDS; round += 1) {
      const client = await c.signedIn();
      const attempt = await client.beginLogin({ params: { elevate: PAY } });
      await attempt.authorize();
      const stored = new StoredSession(c, client);
      const { sid = '' } = await stored.contents();
      const other = client.clone();
      const byProvider = r.chance(0.5);
      const token = byProvider ? await logoutToken(c.provider, { sid }) : '';
      const when = [r.next() * 8, r.next() * 16] as const;
      const [landed] = await Promise.all([
        sleep(when[0]).then(() => attempt.finish({ replica: round % 2 })),
        sleep(when[1]).then<unknown>(() =>
          byProvider ? deliver(c, token) : other.logout({ navigate: false }),
        ),
      ]);
      const ended = String(await c.redis?.client.get(stored.key.replace(/session$/, 'ended')));
      // A logout that came after the session was replaced ended nothing; a logout token knows the new one as well.
      if (!byProvider && ended !== 'user') continue;
      if (landed.status !== 303) together += 1;
      if ((await client.api('/api/x')).status === 200) left.push(round);
    }
    expect(left).toEqual([]);
    expect(together).toBeGreaterThan(0);
  });

  test('A-069 when an operator has all tokens fetched anew, it is over, and the session goes on', async () => {
    const client = await c.signedIn();
    await elevated(client);
    await (await Administration.start(c)).bump('refresh');
    await eventually(async () => (await client.api('/api/pay/x')).status === 403, { what: 'the new epoch' });
    expect(refusal(await client.api('/api/pay/x'))).toEqual(OFFERED);
    expect((await client.api('/api/x')).status).toBe(200);
    await elevated(client);
    expect((await client.api('/api/pay/x')).status).toBe(200);
  });

  test('A-069 when the store loses the word that the old session ended, nobody is signed out', async () => {
    const client = await c.signedIn();
    const attempt = await client.beginLogin({ params: { elevate: PAY } });
    const lost = wire.dropNextReply(scriptCall('end'));
    expect((await attempt.finish()).status).toBe(303);
    await lost;
    for (const path of ['/api/pay/x', '/api/x']) {
      await eventually(async () => (await client.api(path)).status === 200, { what: 'the store again' });
    }
  });
});
