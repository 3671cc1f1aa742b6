import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserClient, BrowserResponse, Me } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { EventReader } from './support/event-reader.js';
import { expectLeftClean } from './support/left-clean.js';
import { withRoutes } from './support/routes.js';
import { followLogin, refusal, signsIn } from './support/step-up.js';
import { StoredSession } from './support/stored-session.js';
import { startUpstream } from './support/upstream.js';
import { BrowserSocket } from './support/web-socket.js';

const MINUTE = 60_000;

let c: Cloakroom;

beforeAll(async () => {
  c = await startCloakroom({
    upstream: await startUpstream({}),
    config: withRoutes(
      (upstream) => [
        { path: '/api/', upstream, websocket: true },
        { path: '/api/read/', upstream, require: { scopes: ['email', 'profile'] } },
        { path: '/api/staff/', upstream, require: { claims: { roles: ['staff', 'admin'] } } },
        {
          path: '/api/realm/',
          upstream,
          require: { claims: { 'realm.roles': ['staff'], level: [3], 'https://id.example/ok': [true] } },
        },
        { path: '/api/mfa/', upstream, require: { acr: ['mfa', 'phr'] }, websocket: true },
        { path: '/api/phr/', upstream, require: { acr: ['phr'] } },
        { path: '/api/new/', upstream, require: { maxAuthAge: '15m' } },
        { path: '/api/all/', upstream, require: { acr: ['mfa'], maxAuthAge: '1m', scopes: ['openid'] } },
      ],
      {
        session: {
          idle: '30m',
          absolute: '12h',
          warnBefore: '6m',
          lifetimes: [
            { claims: { roles: ['admin'] }, idle: '5m', absolute: '1h' },
            { claims: { roles: ['staff', 'admin'] }, absolute: '2h' },
            { claims: { 'realm.roles': ['guest'] }, idle: '10m' },
          ],
        },
      },
    ),
  });
});

beforeEach(() => {
  c.provider.reset();
  c.upstream.clear();
  c.upstream.handler = undefined;
});

afterAll(async () => {
  await expectLeftClean(c);
});

/** Answers of a route, as a script of the page gets them. */
function ask(client: BrowserClient, path: string): Promise<BrowserResponse> {
  client.replica = 'rotate';
  return client.api(path);
}

function claims(of: Record<string, unknown>): void {
  c.provider.modes.claims = () => of;
}

describe('A-069 scopes and claims', () => {
  test('A-069 without a granted scope it is 403 insufficient-scope that names it, and nothing reaches the upstream', async () => {
    c.provider.next('token', { mutate: (answer) => ({ ...answer, scope: 'openid email' }) });
    const client = await c.signedIn();
    expect(refusal(await ask(client, '/api/read/x'))).toEqual([
      403,
      'insufficient-scope',
      { missing: ['profile'] },
    ]);
    expect(c.upstream.requests).toEqual([]);
    expect((await ask(client, '/api/x')).status).toBe(200);
  });

  test('A-069 an answer without a scope grants what was asked for (RFC 6749 section 5.1)', async () => {
    c.provider.next('token', { mutate: (answer) => ({ ...answer, scope: undefined }) });
    const client = await c.signedIn();
    expect((await ask(client, '/api/read/x')).status).toBe(200);
  });

  test('A-069 a refresh that grants less counts at once', async () => {
    c.provider.modes.accessTokenLifetime = 1;
    const client = await c.signedIn();
    c.provider.modes.accessTokenLifetime = 300;
    c.provider.next('refresh', { mutate: (answer) => ({ ...answer, scope: 'openid' }) });
    await new Promise((resolve) => setTimeout(resolve, 1000));
    expect((await ask(client, '/api/x')).status).toBe(200);
    expect(refusal(await ask(client, '/api/read/x'))[2].missing).toEqual(['email', 'profile']);
  });

  test.each<[string, unknown, number]>([
    ['the value itself', 'staff', 200],
    ['another of the values', 'admin', 200],
    ['a list with one of the values', ['guest', 'staff'], 200],
    ['another value', 'guest', 403],
    ['the value in other letters', 'STAFF', 403],
    ['a text that contains it', 'staff admin', 403],
    ['a list of lists', [['staff']], 403],
    ['an object', { staff: true }, 403],
    ['an empty list', [], 403],
    ['null', null, 403],
    ['nothing', undefined, 403],
  ])('A-069 a required claim: %s', async (_, roles, status) => {
    claims({ roles });
    const client = await c.signedIn();
    const answer = await ask(client, '/api/staff/x');
    expect(answer.status).toBe(status);
    if (status === 200) return;
    expect(refusal(answer)).toEqual([403, 'insufficient-claims', { missing: ['roles'] }]);
    expect(c.upstream.requests).toEqual([]);
  });

  test('A-069 claims are found by path or by their whole name, with numbers and truth values as they are', async () => {
    claims({ realm: { roles: ['staff'] }, level: 3, 'https://id.example/ok': true });
    expect((await ask(await c.signedIn(), '/api/realm/x')).status).toBe(200);
    claims({ realm: { roles: ['staff'] }, level: '3', 'https://id.example/ok': 'true' });
    expect(refusal(await ask(await c.signedIn(), '/api/realm/x'))[2].missing).toEqual([
      'level',
      'https://id.example/ok',
    ]);
    claims({ 'realm.roles': ['staff'], realm: { roles: [] }, level: [1, 3], 'https://id.example/ok': true });
    expect((await ask(await c.signedIn(), '/api/realm/x')).status).toBe(200);
  });

  test("A-069 only claims that routes or the page need are kept, and /auth/me shows the page's alone", async () => {
    claims({ roles: ['staff'], salary: 'secret-number', email: 'a@example.test' });
    const client = await c.signedIn();
    const contents = await new StoredSession(c, client).contents();
    expect(contents.claims).toEqual({ sub: 'alice', email: 'a@example.test' });
    expect(contents.required).toEqual({
      roles: ['staff'],
      'realm.roles': null,
      level: null,
      'https://id.example/ok': null,
    });
    expect(JSON.stringify({ ...contents, idToken: '' })).not.toContain('secret-number');
    expect((await client.me()).json<Me>().claims).toEqual({ sub: 'alice', email: 'a@example.test' });
  });
});

describe('A-069 step-up by a route', () => {
  test('A-069 the answer leads through one login that asks for it, and the session gets another id', async () => {
    signsIn(c.provider, (params) => ({ acr: params.get('acr_values')?.split(' ')[0] ?? 'password' }));
    const client = await c.signedIn();
    const before = client.sessionCookie?.value;
    const refused = await ask(client, '/api/mfa/x');
    expect(refusal(refused)).toEqual([
      403,
      'step-up',
      { reason: 'sign-in', loginUrl: '/auth/login?acr_values=mfa+phr&stepUp=1' },
    ]);
    expect(c.upstream.requests).toEqual([]);
    const old = client.clone();
    expect((await followLogin(client, refused)).location).toBe('/app');
    expect(client.sessionCookie?.value).not.toBe(before);
    expect((await ask(client, '/api/mfa/x')).status).toBe(200);
    expect((await ask(old, '/api/x')).status).toBe(401);
    expect(c.provider.ledger.count('authorize')).toBeGreaterThanOrEqual(2);
  });

  test('A-069 a login that does not bring it is not asked for again: 403 without a way on', async () => {
    signsIn(c.provider, () => ({ acr: 'password' }));
    const client = await c.signedIn();
    let logins = 0;
    let answer = await ask(client, '/api/mfa/x');
    while (answer.json<{ loginUrl?: string }>().loginUrl !== undefined && logins < 5) {
      logins += 1;
      expect((await followLogin(client, answer)).status).toBe(303);
      answer = await ask(client, '/api/mfa/x');
    }
    expect(logins).toBe(1);
    expect(refusal(answer)).toEqual([403, 'step-up', { reason: 'not-satisfied' }]);
    expect((await ask(client, '/api/x')).status).toBe(200);
    // Something else has not been asked for yet.
    const other = await ask(client, '/api/phr/x');
    expect(refusal(other)[2].loginUrl).toBe('/auth/login?acr_values=phr&stepUp=1');
    await followLogin(client, other);
    // Nor does a login for the one make the other be asked for again: no bouncing between two.
    expect(refusal(await ask(client, '/api/mfa/x'))[2]).toEqual({ reason: 'not-satisfied' });
    expect(refusal(await ask(client, '/api/phr/x'))[2]).toEqual({ reason: 'not-satisfied' });
    // An ordinary login begins anew.
    await client.login();
    expect(refusal(await ask(client, '/api/mfa/x'))[2].reason).toBe('sign-in');
  });

  test('A-069 what somebody else was asked for in this browser does not count for the next person', async () => {
    signsIn(c.provider, () => ({ acr: 'password' }));
    const client = await c.signedIn({ user: 'alice' });
    await followLogin(client, await ask(client, '/api/mfa/x'), { as: 'alice' });
    await followLogin(client, await ask(client, '/api/phr/x'), { as: 'bob' });
    expect(refusal(await ask(client, '/api/mfa/x'))[2].reason).toBe('sign-in');
    expect(refusal(await ask(client, '/api/phr/x'))[2].reason).toBe('not-satisfied');
  });

  test('A-069 an old sign-in: max_age is sent, and a newer one gets through', async () => {
    signsIn(c.provider, (params) => ({ age: params.has('max_age') ? 0 : 3600 }));
    const client = await c.signedIn();
    const refused = await ask(client, '/api/new/x');
    expect(refusal(refused)[2]).toEqual({ reason: 'sign-in', loginUrl: '/auth/login?max_age=900&stepUp=1' });
    await followLogin(client, refused);
    expect((await ask(client, '/api/new/x')).status).toBe(200);
  });

  test.each<[string, number | undefined]>([
    ['says no auth_time at all', undefined],
    ['hands out the old sign-in again', 3600],
  ])('A-069 a provider that %s: signed in, but not for this route, and asked once', async (_, age) => {
    signsIn(c.provider, () => ({ age }));
    const client = await c.signedIn();
    expect((await followLogin(client, await ask(client, '/api/new/x'))).status).toBe(303);
    expect(refusal(await ask(client, '/api/new/x'))).toEqual([403, 'step-up', { reason: 'not-satisfied' }]);
    expect((await ask(client, '/api/x')).status).toBe(200);
  });

  test("A-069 the age is that by the provider's own clock, however far apart the clocks are", async () => {
    c.provider.modes.clockOffset = -25;
    signsIn(c.provider, () => ({ age: 899 - 10 }));
    expect((await ask(await c.signedIn(), '/api/new/x')).status).toBe(200);
    signsIn(c.provider, () => ({ age: 901 }));
    expect((await ask(await c.signedIn(), '/api/new/x')).status).toBe(403);
  });

  test('A-069 a sign-in that has become too old may be asked for again', async () => {
    signsIn(c.provider, (params) => ({ acr: 'mfa', age: params.has('max_age') ? 58 : 3600 }));
    const client = await c.signedIn();
    await followLogin(client, await ask(client, '/api/all/x'));
    await new Promise((resolve) => setTimeout(resolve, 3000));
    expect(refusal(await ask(client, '/api/all/x'))[2].reason).toBe('sign-in');
  });

  test('A-069 all that a route wants of a sign-in is asked for at once', async () => {
    signsIn(c.provider, () => ({}));
    const refused = await ask(await c.signedIn(), '/api/all/x');
    expect(refusal(refused)[2].loginUrl).toBe('/auth/login?acr_values=mfa&max_age=60&stepUp=1');
  });

  test('A-069 a provider that cannot is a page, and the session stays as it was', async () => {
    signsIn(c.provider, () => ({ acr: 'password' }));
    const client = await c.signedIn();
    const refused = await ask(client, '/api/mfa/x');
    c.provider.next('authorize', { error: 'unmet_authentication_requirements' });
    const page = await followLogin(client, refused);
    expect([page.status, page.location]).toEqual([400, undefined]);
    expect((await ask(client, '/api/x')).status).toBe(200);
  });

  test('A-069 a WebSocket is held to the same, before any upstream byte', async () => {
    signsIn(c.provider, (params) => ({ acr: params.has('acr_values') ? 'mfa' : 'password' }));
    const client = await c.signedIn();
    const refused = await BrowserSocket.open(c, client, '/api/mfa/socket');
    expect([refused.status, refused.headers['content-type']]).toEqual([403, 'application/problem+json']);
    expect(c.upstream.requests).toEqual([]);
    c.upstream.handler = (_, response) => {
      const challenge = 'Bearer error="insufficient_user_authentication", max_age=5';
      response.writeHead(401, { 'www-authenticate': challenge }).end();
      return true;
    };
    expect((await BrowserSocket.open(c, client, '/api/socket')).status).toBe(403);
  });
});

describe('A-069 step-up by the upstream', () => {
  const asks = (...values: string[]): void => {
    c.upstream.handler = (_, response) => {
      response.writeHead(401, { 'WWW-Authenticate': values, 'content-type': 'text/plain' }).end('upstream');
      return true;
    };
  };
  const CHALLENGE = 'Bearer error="insufficient_user_authentication"';

  test('A-069 its challenge becomes 403 step-up with the login URL, once', async () => {
    signsIn(c.provider, (params) => ({ acr: params.get('acr_values')?.split(' ')[0] ?? 'password' }));
    asks(`${CHALLENGE}, error_description="no", acr_values="phr phrh", max_age="60"`);
    const client = await c.signedIn();
    const refused = await ask(client, '/api/x');
    expect(refusal(refused)).toEqual([
      403,
      'step-up',
      { reason: 'sign-in', loginUrl: '/auth/login?acr_values=phr+phrh&max_age=60&stepUp=1' },
    ]);
    expect(refused.text).not.toContain('upstream');
    expect(refused.headers['www-authenticate']).toBeUndefined();
    await followLogin(client, refused);
    // The login brought all of it; an upstream that still asks would ask for ever.
    expect(refusal(await ask(client, '/api/x'))).toEqual([403, 'step-up', { reason: 'not-satisfied' }]);
    asks(`${CHALLENGE}, acr_values="other"`);
    expect(refusal(await ask(client, '/api/x'))[2].reason).toBe('sign-in');
    c.upstream.handler = undefined;
    expect((await ask(client, '/api/x')).status).toBe(200);
  });

  test('A-069 with max_age=0 nobody is sent round for ever', async () => {
    asks(`${CHALLENGE}, max_age=0`);
    const client = await c.signedIn();
    await followLogin(client, await ask(client, '/api/x'));
    expect(refusal(await ask(client, '/api/x'))[2]).toEqual({ reason: 'not-satisfied' });
  });

  test('A-069 it is found among other challenges and lines', async () => {
    asks('Basic realm="x, Bearer"', `Digest a="b", ${CHALLENGE}, max_age=5`);
    const refused = await ask(await c.signedIn(), '/api/x');
    expect(refusal(refused)[2].loginUrl).toBe('/auth/login?max_age=5&stepUp=1');
  });

  test('A-069 a request whose body is still on its way is answered, too', async () => {
    asks(`${CHALLENGE}, max_age=5`);
    const client = await c.signedIn();
    const refused = await client.api('/api/x', { method: 'POST', body: Buffer.alloc(300_000, 'x') });
    expect(refusal(refused)[1]).toBe('step-up');
  });

  test.each([
    ['another error', 'Bearer error="invalid_request", acr_values="a"'],
    ['another scheme', 'DPoP error="insufficient_user_authentication", acr_values="a"'],
    ['nothing asked for', CHALLENGE],
    ['acr_values with a control character', `${CHALLENGE}, acr_values="a\tb"`],
    ['acr_values with two spaces', `${CHALLENGE}, acr_values="a  b"`],
    ['endless acr_values', `${CHALLENGE}, acr_values="${'a'.repeat(600)}"`],
    ['a max_age that is no number', `${CHALLENGE}, max_age="-1"`],
    ['a parameter given twice', `${CHALLENGE}, max_age=5, max_age=6`],
    ['an open quotation', `${CHALLENGE}, max_age="5`],
    [
      'a quotation that only looks like it',
      `Basic realm="Bearer error=\\"insufficient_user_authentication\\", max_age=5"`,
    ],
  ])('A-069 with %s it stays the 401 of the upstream', async (_, challenge) => {
    asks(challenge);
    const answer = await ask(await c.signedIn(), '/api/x');
    expect([answer.status, answer.text]).toEqual([401, 'upstream']);
  });

  test('A-069 only a 401 asks', async () => {
    c.upstream.handler = (_, response) => {
      response.writeHead(403, { 'www-authenticate': `${CHALLENGE}, max_age=5` }).end();
      return true;
    };
    const answer = await ask(await c.signedIn(), '/api/x');
    expect([answer.status, answer.problem]).toEqual([403, undefined]);
  });
});

describe('A-053 session times by claim', () => {
  async function times(client: BrowserClient): Promise<{ idle: number; absolute: number }> {
    const { session } = (await client.me({ slide: false })).json<Me>();
    const created = Date.parse(session.createdAt);
    const minutes = (time: string): number => Math.round((Date.parse(time) - created) / MINUTE);
    return { idle: minutes(session.idleExpiresAt), absolute: minutes(session.absoluteExpiresAt) };
  }

  test.each<[string, Record<string, unknown>, { idle: number; absolute: number }]>([
    ['nobody in particular', {}, { idle: 30, absolute: 720 }],
    ['staff', { roles: ['staff'] }, { idle: 30, absolute: 120 }],
    ['admin, to whom two apply', { roles: ['admin', 'staff'] }, { idle: 5, absolute: 60 }],
    ['a guest who is staff', { roles: ['staff'], realm: { roles: ['guest'] } }, { idle: 10, absolute: 120 }],
  ])('A-053 the shortest counts: %s', async (_, of, expected) => {
    claims(of);
    const client = await c.signedIn();
    expect(await times(client)).toEqual(expected);
    const left = Number(await c.redis?.client.pttl(new StoredSession(c, client).key));
    expect(left).toBeGreaterThan((expected.idle - 1) * MINUTE);
    expect(left).toBeLessThanOrEqual(expected.idle * MINUTE);
    const { sessions } = (await client.api('/auth/sessions')).json<{
      sessions: {
        current: boolean;
        usedAt: string;
        createdAt: string;
        idleExpiresAt: string;
        absoluteExpiresAt: string;
      }[];
    }>();
    const own = sessions.find(({ current }) => current);
    const span = (to = '', from = ''): number => Math.round((Date.parse(to) - Date.parse(from)) / MINUTE);
    expect(span(own?.idleExpiresAt, own?.usedAt)).toBe(expected.idle);
    expect(span(own?.absoluteExpiresAt, own?.createdAt)).toBe(expected.absolute);
  });

  test('A-053 use moves the expiry by the shorter time, and open pages are warned by it', async () => {
    claims({ roles: ['admin'] });
    const client = await c.signedIn();
    const stored = new StoredSession(c, client);
    const reader = await EventReader.open(client);
    expect(await reader.first('expiring')).toMatchObject({ kind: 'idle' });
    const before = Date.now() - 4 * MINUTE;
    await c.redis?.client.hset(stored.key, 'touched', String(before));
    await c.redis?.client.pexpire(stored.key, MINUTE);
    expect((await ask(client, '/api/x')).status).toBe(200);
    await c.redis?.client.pttl(stored.key);
    const touched = Number(await stored.field('touched'));
    expect(touched).toBeGreaterThan(before);
    const left = Number(await c.redis?.client.pttl(stored.key));
    expect(left).toBeGreaterThan(4 * MINUTE);
    expect(left).toBeLessThanOrEqual(5 * MINUTE);
    reader.leave();
  });

  test('A-053 a refresh keeps the shorter times', async () => {
    claims({ roles: ['admin'] });
    c.provider.modes.accessTokenLifetime = 1;
    const client = await c.signedIn();
    await new Promise((resolve) => setTimeout(resolve, 1000));
    expect((await ask(client, '/api/staff/x')).status).toBe(200);
    expect(await new StoredSession(c, client).generation()).toBeGreaterThan(1);
    expect(await times(client)).toEqual({ idle: 5, absolute: 60 });
  });
});
