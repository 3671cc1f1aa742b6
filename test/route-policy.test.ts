import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { runCloakroom, startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { startRedis, startRedisProxy, type RedisProxy } from './support/redis.js';
import { sendRaw, type RawResponse } from './support/raw.js';
import { withRoutes } from './support/routes.js';
import { sessionPair } from './support/script-request.js';
import { StoredSession } from './support/stored-session.js';
import { startUpstream } from './support/upstream.js';

const OWN = 'https://app.example.test';
const ALL = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'];
const SCRIPT = ['X-CSRF: 1', `Origin: ${OWN}`];

let c: Cloakroom;
let wire: RedisProxy;
let client: BrowserClient;

beforeAll(async () => {
  wire = await startRedisProxy(await startRedis());
  c = await startCloakroom({
    replicas: 1,
    redis: wire,
    // One that answers everybody: which token came is for the tests to see.
    upstream: await startUpstream({}),
    config: withRoutes((upstream) => [
      { path: '/api/', upstream },
      { path: '/api/few/', upstream, methods: ['POST', 'GET'] },
      { path: '/api/few/still-fewer/', upstream, methods: ['DELETE'] },
      { path: '/public/', upstream, token: 'none', cookies: ['locale'] },
      { path: '/either/', upstream, token: 'user-or-none' },
      { path: '/files/', upstream, csrf: 'origin' },
      { path: '/open-files/', upstream, csrf: 'origin', token: 'none', methods: ['GET'] },
    ]),
  });
  client = await c.signedIn();
});

afterAll(async () => {
  await expectLeftClean(c);
});

beforeEach(() => {
  c.upstream.clear();
});

/** A request of exactly these header lines, beside `Host`. */
async function send(method: string, target: string, lines: string[]): Promise<RawResponse> {
  const head = ['Host: app.example.test', ...lines].map((line) => `${line}\r\n`).join('');
  const { responses } = await sendRaw(c.first.clientPort, `${method} ${target} HTTP/1.1\r\n${head}\r\n`, {
    answers: 1,
    head: method === 'HEAD',
  });
  const [answer] = responses;
  if (answer === undefined) throw new Error(`no answer to ${method} ${target}`);
  return answer;
}

/** Once the store is back. */
async function healed(): Promise<void> {
  await wire.heal();
  await eventually(async () => (await send('GET', '/api/x', [signedIn(), ...SCRIPT])).status === 200);
}

const signedIn = (): string => `Cookie: ${sessionPair(client)}`;
const type = (answer: RawResponse): unknown => (JSON.parse(answer.body.toString()) as { type: unknown }).type;

describe('methods', () => {
  test.each([
    ['/api/x', ALL],
    ['/api/few/x', ['POST', 'GET']],
    ['/api/few/still-fewer/x', ['DELETE']],
  ])('A-088 %s forwards exactly the methods of its route', async (target, methods) => {
    for (const method of [...ALL, 'TRACE', 'PROPFIND', 'QUERY', 'PURGE']) {
      c.upstream.clear();
      const answer = await send(method, target, [signedIn(), ...SCRIPT]);
      const served = methods.includes(method);
      expect([method, answer.status]).toEqual([method, served ? 200 : 405]);
      expect(answer.header('allow')).toBe(served ? undefined : methods.join(', '));
      expect(c.upstream.requests.map((seen) => seen.method)).toEqual(served ? [method] : []);
    }
  });

  test.each(['get', 'Post', 'GETT', 'FOO'])('A-088 %s is no method', async (method) => {
    const { responses } = await sendRaw(
      c.first.clientPort,
      `${method} /api/few/x HTTP/1.1\r\nHost: app.example.test\r\n${signedIn()}\r\nX-CSRF: 1\r\n\r\n`,
      { answers: 1 },
    );
    expect(responses[0]?.status).toBeGreaterThanOrEqual(400);
    expect(c.upstream.requests).toEqual([]);
  });

  test('A-088 a method is not changed by a header', async () => {
    const override = ['X-HTTP-Method-Override: DELETE', 'X-HTTP-Method: DELETE', 'X-Method-Override: DELETE'];
    await send('POST', '/api/few/x', [signedIn(), ...SCRIPT, ...override]);
    const [seen] = c.upstream.requests;
    expect(seen?.method).toBe('POST');
    expect(Object.keys(seen?.headers ?? {}).filter((name) => /method/i.test(name))).toEqual([]);
  });
});

describe('token: none', () => {
  test('A-067 no token goes along and no cookie of ours, whoever is signed in', async () => {
    for (const cookie of [[], [`${signedIn()}; locale=de`]]) {
      c.upstream.clear();
      const answer = await send('GET', '/public/x', [...cookie, ...SCRIPT, 'Authorization: Bearer mine']);
      expect([answer.status, answer.header('set-cookie')]).toEqual([200, undefined]);
      const [seen] = c.upstream.requests;
      expect(seen?.headers['authorization']).toBeUndefined();
      expect(seen?.headers['cookie']).toBe(cookie.length > 0 ? 'locale=de' : undefined);
    }
  });

  test('A-095 the header is asked for all the same', async () => {
    for (const lines of [[], [`Origin: ${OWN}`], ['X-CSRF: 1', 'Origin: https://evil.example']]) {
      expect((await send('GET', '/public/x', lines)).status).toBe(403);
    }
    expect(c.upstream.requests).toEqual([]);
  });

  test('A-067 served while the store is away, and with a dead or doubled cookie: nobody looks', async () => {
    wire.blackhole();
    try {
      for (const cookie of [signedIn(), 'Cookie: __Host-cloakroom-session=s%3Agarbage', 'Cookie: a=b']) {
        expect((await send('GET', '/public/x', [cookie, ...SCRIPT])).status).toBe(200);
      }
    } finally {
      await healed();
    }
  });
});

describe('token: user-or-none', () => {
  test('A-067 with a session its token goes along, without a cookie none', async () => {
    expect((await send('GET', '/either/x', [signedIn(), ...SCRIPT])).status).toBe(200);
    const token = c.upstream.last?.bearer;
    expect(c.provider.ledger.validAccessToken(token ?? '')).toBeTruthy();
    expect((await send('GET', '/either/x', ['Cookie: other=1', ...SCRIPT])).status).toBe(200);
    expect(c.upstream.last?.headers['authorization']).toBeUndefined();
  });

  test('A-067 a caller’s own Authorization never takes the place of the missing one', async () => {
    await send('GET', '/either/x', [
      ...SCRIPT,
      'Authorization: Bearer mine',
      'Proxy-Authorization: Basic eDp5',
    ]);
    expect(c.upstream.requests).toHaveLength(1);
    expect(Object.keys(c.upstream.last?.headers ?? {}).filter((name) => /auth/i.test(name))).toEqual([]);
  });

  test.each([
    ['that we never signed', async () => Promise.resolve('__Host-cloakroom-session=s%3Agarbage.x')],
    [
      'whose session was ended',
      async () => {
        const gone = await c.signedIn();
        const pair = sessionPair(gone);
        await new StoredSession(c, gone).delete();
        return pair;
      },
    ],
  ])('A-067 a cookie %s is 401 and taken away, then one is a stranger', async (_what, cookie) => {
    const pair = await cookie();
    const answer = await send('GET', '/either/x', [`Cookie: ${pair}`, ...SCRIPT]);
    expect([answer.status, type(answer)]).toEqual([401, 'session-required']);
    expect(answer.header('set-cookie')).toMatch(/^__Host-cloakroom-session=;.*Max-Age=0/);
    expect(c.upstream.requests).toEqual([]);
    expect((await send('GET', '/either/x', SCRIPT)).status).toBe(200);
  });

  test('A-067 a session that the store cannot confirm is 503, never a stranger', async () => {
    wire.blackhole();
    try {
      const answer = await send('GET', '/either/x', [signedIn(), ...SCRIPT]);
      expect([answer.status, type(answer)]).toEqual([503, 'store-unavailable']);
      expect(answer.header('set-cookie')).toBeUndefined();
      expect(c.upstream.requests).toEqual([]);
      expect((await send('GET', '/either/x', SCRIPT)).status).toBe(200);
    } finally {
      await healed();
    }
  });

  test('A-067 token: user lets nobody else through', async () => {
    expect((await send('GET', '/api/x', SCRIPT)).status).toBe(401);
    expect((await send('GET', '/files/x', ['Sec-Fetch-Site: same-origin'])).status).toBe(401);
    expect(c.upstream.requests).toEqual([]);
  });
});

describe('csrf: origin', () => {
  test.each<[string, string, string[], number]>([
    ['an image of our page', 'GET', ['Sec-Fetch-Site: same-origin', 'Sec-Fetch-Mode: no-cors'], 200],
    ['a download in our page', 'GET', ['Sec-Fetch-Site: same-origin', 'Sec-Fetch-Mode: navigate'], 200],
    ['a request that names our origin', 'GET', [`Origin: ${OWN}`], 200],
    ['HEAD of our page', 'HEAD', ['Sec-Fetch-Site: same-origin'], 200],
    ['a script with the header', 'DELETE', [...SCRIPT, 'Sec-Fetch-Site: same-origin'], 200],
    ['a form of our page', 'POST', [`Origin: ${OWN}`, 'Sec-Fetch-Site: same-origin'], 200],
    ['nothing said', 'GET', [], 403],
    ['an address typed in', 'GET', ['Sec-Fetch-Site: none'], 403],
    ['a sibling', 'GET', ['Sec-Fetch-Site: same-site'], 403],
    ['another site', 'GET', ['Sec-Fetch-Site: cross-site'], 403],
    ['another origin', 'GET', ['Origin: https://evil.example'], 403],
    ['no origin at all', 'GET', ['Origin: null', 'Sec-Fetch-Site: same-origin'], 403],
    ['our origin from another site', 'GET', [`Origin: ${OWN}`, 'Sec-Fetch-Site: cross-site'], 403],
    ['a change without an origin', 'POST', ['Sec-Fetch-Site: same-origin'], 403],
    ['a change from another origin', 'POST', ['Origin: https://evil.example'], 403],
    ['a change by a sandboxed frame', 'PUT', ['Origin: null'], 403],
    ['a header that says something else', 'POST', ['X-CSRF: 0', 'Sec-Fetch-Site: same-origin'], 403],
    ['the header from a sibling', 'GET', ['X-CSRF: 1', 'Sec-Fetch-Site: same-site'], 403],
    ['a lookalike', 'GET', [`Origin: ${OWN}.evil.example`], 403],
  ])('A-096 %s: %s %j is %d', async (_what, method, lines, status) => {
    expect((await send(method, '/files/x', [signedIn(), ...lines])).status).toBe(status);
    expect(c.upstream.requests).toHaveLength(status === 200 ? 1 : 0);
  });

  test('A-096 holds without a session as well', async () => {
    expect((await send('GET', '/open-files/x', ['Sec-Fetch-Site: same-origin'])).status).toBe(200);
    expect((await send('GET', '/open-files/x', ['Sec-Fetch-Site: cross-site'])).status).toBe(403);
    expect((await send('GET', '/open-files/x', [])).status).toBe(403);
    expect(c.upstream.requests).toHaveLength(1);
  });

  test('A-095 other routes do not learn of it', async () => {
    const lines = [signedIn(), `Origin: ${OWN}`, 'Sec-Fetch-Site: same-origin'];
    for (const target of ['/api/x', '/public/x', '/either/x', '/auth/me']) {
      expect([target, (await send('GET', target, lines)).status]).toEqual([target, 403]);
    }
    expect(c.upstream.requests).toEqual([]);
  });
});

test('cloakroom check prints the routes as they are matched, with what each asks for', async () => {
  const { stdout } = await runCloakroom(['check', '--config', c.first.configFile]);
  const at = stdout.split('\n').indexOf('Routes');
  const rows = stdout
    .split('\n')
    .slice(at + 1, at + 9)
    .map((line) => line.trim().split(/ {2,}/))
    .map(([path, , ...cells]) => [path, ...cells.slice(0, 10)]);
  expect(rows).toEqual([
    [
      'path',
      'methods',
      'token',
      'requires',
      'csrf',
      'body',
      'parallel',
      'streams',
      'rate',
      'bandwidth',
      'websocket',
    ],
    ['/api/few/still-fewer/', 'DELETE', 'user', '-', 'header', 'any', '128', '16', 'any', 'any', '-'],
    ['/open-files/', 'GET', 'none', '-', 'origin', 'any', '-', '-', 'any', 'any', '-'],
    ['/api/few/', 'POST GET', 'user', '-', 'header', 'any', '128', '16', 'any', 'any', '-'],
    ['/public/', 'all', 'none', '-', 'header', 'any', '-', '-', 'any', 'any', '-'],
    ['/either/', 'all', 'user-or-none', '-', 'header', 'any', '128', '16', 'any', 'any', '-'],
    ['/files/', 'all', 'user', '-', 'origin', 'any', '128', '16', 'any', 'any', '-'],
    ['/api/', 'all', 'user', '-', 'header', 'any', '128', '16', 'any', 'any', '-'],
  ]);
});
