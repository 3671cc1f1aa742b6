import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserClient, BrowserResponse, Me } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { startProvider, type FaultProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';

const sessions = (c: Cloakroom): Promise<string[]> =>
  c.redis?.keys(`${c.prefix}:*:session`) ?? Promise.resolve([]);

describe('two providers', () => {
  let c: Cloakroom;
  let first: FaultProvider;
  let second: FaultProvider;

  beforeAll(async () => {
    // Neither promises `iss`, so that what tells them apart is the address alone.
    const modes = { advertiseIss: false };
    [first, second] = await Promise.all([
      startProvider({ clientId: 'first-client', modes }),
      startProvider({ clientId: 'second-client', path: '/realms/partner', modes }),
    ]);
    c = await startCloakroom({ replicas: 2, providers: { main: first, partner: second } });
  });

  beforeEach(async () => {
    for (const provider of [first, second]) {
      provider.reset({ advertiseIss: false });
      provider.ledger.resetCounts();
    }
    await c.redis?.clear();
  });

  afterAll(async () => {
    await expectLeftClean(c);
  });

  const exchanges = (): number[] => [first, second].map((provider) => provider.ledger.count('token'));

  test('A-017 each has a redirect URI of its own, and the default is the first', async () => {
    const begun = async (params?: Record<string, string>): Promise<URL | undefined> =>
      (await c.client().beginLogin(params === undefined ? {} : { params })).authorizationUrl;
    for (const url of [await begun(), await begun({ provider: 'main' })]) {
      expect(url?.origin).toBe(first.origin);
      expect(url?.searchParams.get('redirect_uri')).toBe(`${c.publicUrl}/auth/callback`);
      expect(url?.searchParams.get('client_id')).toBe('first-client');
    }
    const partner = await begun({ provider: 'partner' });
    expect(partner?.href).toContain(`${second.issuer}/authorize?`);
    expect(partner?.searchParams.get('redirect_uri')).toBe(`${c.publicUrl}/auth/callback/partner`);
    expect(partner?.searchParams.get('client_id')).toBe('second-client');
  });

  test('A-017 both lead to a session, with tokens and logout of the provider that was chosen', async () => {
    for (const [name, provider, other] of [
      ['main', first, second],
      ['partner', second, first],
    ] as const) {
      const client = c.client();
      const answer = await client.login({ params: { provider: name }, as: `user-of-${name}` });
      expect(answer.status).toBe(303);
      expect((await client.me()).json<Me>().claims['sub']).toBe(`user-of-${name}`);
      await client.api('/api/x');
      const bearer = c.upstream.last?.bearer ?? '';
      expect(JSON.stringify([provider.ledger.validAccessToken(bearer)])).toContain(`user-of-${name}`);
      const steps = await client.logout();
      expect(new URL(steps.navigation?.location ?? '').origin).toBe(provider.origin);
      expect(provider.ledger.count('revocation')).toBe(1);
      expect(other.ledger.count('revocation')).toBe(0);
      for (const one of [first, second]) one.ledger.resetCounts();
    }
  });

  test.each([
    ['main', '/auth/callback/partner'],
    ['partner', '/auth/callback'],
    ['partner', '/auth/callback/main'],
    ['partner', '/auth/callback/other'],
    ['partner', '/auth/callback/Partner'],
    ['partner', '/auth/callback/__proto__'],
    ['partner', '/auth/callback/partner/x'],
  ])('A-017 a response of %s on %s is no login, and no token endpoint hears of it', async (name, path) => {
    const client = c.client();
    const answer = await client.login({
      params: { provider: name },
      callback: (url) => new URL(`${path}${url.search}`, c.publicUrl),
    });
    expect(answer.status).toBe(path === '/auth/callback' || path.endsWith('/partner') ? 400 : 404);
    expect(exchanges()).toEqual([0, 0]);
    expect(client.sessionCookie).toBeUndefined();
    expect(await sessions(c)).toEqual([]);
  });

  test('A-017 a code of one in an attempt at the other: refused, at either address', async () => {
    const attacker = c.client();
    const stolen = await (
      await attacker.beginLogin({ params: { provider: 'partner' } })
    ).authorize('mallory');
    const code = stolen?.callback.searchParams.get('code') ?? '';
    for (const iss of [first.issuer, second.issuer]) {
      const victim = c.client();
      const answer = await victim.login({
        params: { provider: 'main' },
        callback: (url) => {
          url.searchParams.set('code', code);
          url.searchParams.set('iss', iss);
          return url;
        },
      });
      expect(answer.status).toBe(400);
      expect(victim.sessionCookie).toBeUndefined();
    }
    expect(await sessions(c)).toEqual([]);
    expect(exchanges()).toEqual([1, 0]);
  });

  test.each([
    ['with iss', true],
    ['without iss', false],
  ])(
    'A-017 the whole answer of one, state included and %s, on the other’s address: refused',
    async (_, iss) => {
      const client = c.client();
      const [one, two] = [
        await client.beginLogin({ params: { provider: 'main' } }),
        await client.beginLogin({ params: { provider: 'partner' } }),
      ];
      const cross = (path: string) => (url: URL) => {
        if (!iss) url.searchParams.delete('iss');
        return new URL(`${path}${url.search}`, c.publicUrl);
      };
      expect((await one.finish({ callback: cross('/auth/callback/partner') })).status).toBe(400);
      expect((await two.finish({ callback: cross('/auth/callback') })).status).toBe(400);
      expect(exchanges()).toEqual([0, 0]);
      expect(client.sessionCookie).toBeUndefined();
    },
  );

  test('A-017 a login at the second replaces a session of the first', async () => {
    const client = await c.signedIn({ user: 'alice' });
    expect((await client.login({ params: { provider: 'partner' }, as: 'bob' })).status).toBe(303);
    expect((await client.me()).json<Me>().claims['sub']).toBe('bob');
    expect(await sessions(c)).toHaveLength(1);
  });

  test('A-017 one provider down does not keep the other’s users out', async () => {
    await second.stop();
    try {
      expect((await c.client().login()).status).toBe(303);
      expect((await c.client().beginLogin({ params: { provider: 'partner' } })).response.status).toBe(303);
    } finally {
      await second.start();
    }
  });
});

describe('form_post', () => {
  let c: Cloakroom;

  beforeAll(async () => {
    c = await startCloakroom({
      replicas: 2,
      config: { providers: { main: { responseMode: 'form_post' } } },
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

  async function begun(client: BrowserClient): Promise<{
    form: URLSearchParams;
    post: (body: string | Buffer, type?: string) => Promise<BrowserResponse>;
  }> {
    const attempt = await client.beginLogin({ returnTo: '/in' });
    const sent = await attempt.authorize();
    return {
      form: sent?.form ?? new URLSearchParams(),
      post: (body, type = 'application/x-www-form-urlencoded') =>
        client.navigate('/auth/callback', {
          method: 'POST',
          site: 'cross-site',
          body,
          headers: { origin: c.provider.origin, 'content-type': type },
        }),
    };
  }

  test('A-020 where form_post is configured a login works with nothing of it in the URL', async () => {
    const client = c.client();
    const attempt = await client.beginLogin({ returnTo: '/in' });
    expect(attempt.authorizationUrl?.searchParams.get('response_mode')).toBe('form_post');
    const [cookie] = client.loginCookies;
    expect(cookie).toMatchObject({ sameSite: 'none', secure: true, httpOnly: true });
    const answer = await attempt.finish();
    expect([answer.status, answer.location]).toEqual([303, '/in']);
    expect(client.sessionCookie?.sameSite).toBe('strict');
    expect((await client.me()).status).toBe(200);
    expect(client.loginCookies).toEqual([]);
  });

  test('A-004 a second login by form_post replaces the session although no Lax cookie comes along', async () => {
    const client = await c.signedIn({ user: 'alice' });
    const before = client.clone();
    expect((await client.login({ as: 'bob' })).status).toBe(303);
    expect((await before.me()).status).toBe(401);
    expect(await sessions(c)).toHaveLength(1);
  });

  test('A-020 the same answer in the query is refused', async () => {
    const client = c.client();
    const { form } = await begun(client);
    const answer = await client.navigate(`/auth/callback?${form.toString()}`, { site: 'cross-site' });
    expect(answer.status).toBe(400);
    expect(client.sessionCookie).toBeUndefined();
    expect(c.provider.ledger.count('token')).toBe(0);
  });

  test('A-014 a form posted by another browser is refused', async () => {
    const { form } = await begun(c.client());
    const other = await begun(c.client());
    expect((await other.post(form.toString())).status).toBe(400);
    expect(c.provider.ledger.count('token')).toBe(0);
  });

  test.each([
    ['JSON', 'application/json', 400],
    ['multipart', 'multipart/form-data; boundary=x', 400],
    ['text', 'text/plain', 400],
  ])('A-018 a body that is %s is refused', async (_, type, status) => {
    const client = c.client();
    const { form, post } = await begun(client);
    const answer = await post(form.toString(), type);
    expect(answer.status).toBe(status);
    expect(c.provider.ledger.count('token')).toBe(0);
    expect((await post(form.toString())).status).toBe(303);
  });

  test('A-018 doubled fields, fields in the query, and a body of more than 64 KiB are refused', async () => {
    const client = c.client();
    const { form, post } = await begun(client);
    const text = form.toString();
    expect((await post(`${text}&${text}`)).status).toBe(400);
    expect((await post(`${text}&state=x`)).status).toBe(400);
    expect((await post('')).status).toBe(400);
    expect((await post(Buffer.alloc(1000, 0xff))).status).toBe(400);
    expect((await post(`${text}&x=${'y'.repeat(64 * 1024)}`)).status).toBe(413);
    const inQuery = await client.navigate(`/auth/callback?${text}`, {
      method: 'POST',
      site: 'cross-site',
      body: '',
      headers: { origin: c.provider.origin, 'content-type': 'application/x-www-form-urlencoded' },
    });
    expect(inQuery.status).toBe(400);
    expect(c.provider.ledger.count('token')).toBe(0);
    expect((await post(text)).location).toBe('/in');
  });

  test('A-013 a form posted twice: one session', async () => {
    const client = c.client();
    const { form, post } = await begun(client);
    const answers = await Promise.all([post(form.toString()), post(form.toString()), post(form.toString())]);
    expect(answers.filter(({ location }) => location === '/in')).toHaveLength(1);
    expect(c.provider.ledger.count('token')).toBe(1);
    expect(await sessions(c)).toHaveLength(1);
  });

  test('A-019 an error by form_post gets the same plain page', async () => {
    c.provider.next('authorize', { error: 'access_denied', errorDescription: '<script>zqxjkv</script>' });
    const answer = await c.client().login();
    expect(answer.status).toBe(400);
    expect(answer.text).not.toContain('zqxjkv');
  });
});

describe('a provider that does not advertise PKCE', () => {
  test('A-021 is refused: no login begins, and the log names the remedy', async () => {
    const provider = await startProvider({ modes: { advertisePkce: false } });
    const c = await startCloakroom({ replicas: 1, provider, redis: 'memory', ready: false });
    const client = c.client();
    const answer = await client.navigate('/auth/login');
    expect(answer.status).toBe(503);
    expect(answer.location).toBeUndefined();
    const line = await c.waitForEvent('provider_unavailable');
    expect(JSON.stringify(line)).toContain('pkceUnadvertised');
    expect(provider.ledger.count('authorize')).toBe(0);
    await c.close();
  });

  test.each([
    ['plain alone', ['plain']],
    ['an empty list', []],
    ['S256 in lower case', ['s256']],
  ])('A-021 %s in the metadata is no S256', async (_, methods) => {
    const provider = await startProvider({
      modes: { metadata: (metadata) => ({ ...metadata, code_challenge_methods_supported: methods }) },
    });
    const c = await startCloakroom({ replicas: 1, provider, redis: 'memory', ready: false });
    expect((await c.client().navigate('/auth/login')).status).toBe(503);
    await c.close();
  });

  test('A-021 with the explicit override a login works, and the challenge is sent and used all the same', async () => {
    const provider = await startProvider({ modes: { advertisePkce: false } });
    const c = await startCloakroom({
      replicas: 1,
      provider,
      redis: 'memory',
      config: { providers: { main: { pkceUnadvertised: 'allow' } } },
    });
    const client = c.client();
    const attempt = await client.beginLogin();
    expect(attempt.authorizationUrl?.searchParams.get('code_challenge_method')).toBe('S256');
    expect((await attempt.finish()).status).toBe(303);
    expect(provider.ledger.hitsOf('token')[0]?.params.get('code_verifier')).toMatch(/^[\w-]{43}$/);
    await c.close();
  });
});
