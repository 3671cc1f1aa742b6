import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { random } from './support/random.js';
import { randomPath } from './support/random-paths.js';
import { ownRedis } from './support/redis.js';
import { freePort } from './support/run-folder.js';
import { sendRaw, type RawResponse } from './support/raw.js';
import { sessionPair } from './support/script-request.js';

// One replica for each way of asking, and one that knows no gateway at this address.
const GATEWAYS = ['nginx', 'traefik', 'envoy', 'stranger'] as const;
const HOST = 'app.example.test';
type Gateway = (typeof GATEWAYS)[number];

let c: Cloakroom;
let client: BrowserClient;
const ports = {} as Record<Gateway, number>;

beforeAll(async () => {
  for (const gateway of GATEWAYS) ports[gateway] = await freePort();
  let index = 0;
  c = await startCloakroom({
    replicas: GATEWAYS.length,
    config: (file) => {
      const gateway = GATEWAYS[index++] ?? 'stranger';
      const upstream = (file['routes'] as { upstream: string }[])[0]?.upstream;
      return {
        ...file,
        log: { level: 'debug' },
        cors: { origins: ['https://shop.example.test'] },
        forwardAuth: {
          gateway: gateway === 'stranger' ? 'caddy' : gateway,
          peers: gateway === 'stranger' ? ['10.0.0.0/8', '127.0.0.2'] : ['127.0.0.0/8'],
          host: '127.0.0.1',
          port: ports[gateway],
        },
        routes: [
          { path: '/api/', upstream },
          { path: '/api/read/', upstream, methods: ['GET'], csrf: 'origin' },
          { path: '/api/ws/', upstream, websocket: true },
          { path: '/api/open/', upstream, token: 'none' },
          { path: '/api/either/', upstream, token: 'user-or-none' },
        ],
      };
    },
  });
  client = await c.signedIn();
});

afterAll(async () => {
  await expectLeftClean(c);
});

type Lines = Record<string, string | string[] | undefined>;

/** What a script of the page sends along, and so what a gateway copies. */
const usual = (): Lines => ({
  Host: 'cloakroom',
  Cookie: sessionPair(client),
  'X-CSRF': '1',
  Origin: c.publicUrl,
  'Sec-Fetch-Site': 'same-origin',
});

function question(start: string, lines: Lines): string {
  const written = Object.entries(lines).flatMap(([name, value]) =>
    value === undefined ? [] : [value].flat().map((one) => `${name}: ${one}\r\n`),
  );
  return `${start} HTTP/1.1\r\n${written.join('')}\r\n`;
}

async function send(gateway: Gateway, bytes: string): Promise<RawResponse> {
  const { responses } = await sendRaw(ports[gateway], bytes, { answers: 1 });
  if (responses[0] === undefined) throw new Error('no answer');
  return responses[0];
}

/** Asks as that gateway would. */
async function ask(
  gateway: Exclude<Gateway, 'stranger'>,
  method: string,
  target: string,
  lines: Lines = {},
): Promise<RawResponse> {
  const own: Record<typeof gateway, [string, Lines]> = {
    nginx: ['GET /auth/verify', { 'X-Original-Method': method, 'X-Original-URI': target }],
    traefik: ['GET /auth/verify', { 'X-Forwarded-Method': method, 'X-Forwarded-Uri': target }],
    envoy: [`${method} /auth/verify${target}`, { 'Content-Length': '0' }],
  };
  const [start, names] = own[gateway];
  return send(gateway, question(start, { ...usual(), ...names, ...lines }));
}

const problem = (answer: RawResponse): { type?: string; reason?: string } =>
  JSON.parse(answer.body.toString() || '{}') as { type?: string; reason?: string };

function subOf(answer: RawResponse): string | undefined {
  const bearer = /^Bearer (.+)$/.exec(answer.header('authorization') ?? '')?.[1] ?? '';
  return c.provider.ledger.validAccessToken(bearer)?.sub;
}

describe.each(['nginx', 'traefik', 'envoy'] as const)('asked by %s', (gateway) => {
  test('a request that may pass is 200 with the access token', async () => {
    const answer = await ask(gateway, 'POST', '/api/orders?x=/api/open/');
    expect([answer.status, subOf(answer)]).toEqual([200, expect.any(String)]);
    expect(answer.header('cache-control')).toBe('no-store');
    expect(answer.header('content-length')).toBe('0');
    expect(answer.header('set-cookie')).toBeUndefined();
  });

  test.each<[string, number, string, string, string, () => Lines]>([
    ['nobody', 401, 'session-required', 'GET', '/api/x', () => ({ Cookie: undefined })],
    [
      'a forged cookie',
      401,
      'session-required',
      'GET',
      '/api/x',
      () => ({ Cookie: '__Host-cloakroom-session=x' }),
    ],
    ['a request without the header', 403, 'csrf', 'GET', '/api/x', () => ({ 'X-CSRF': undefined })],
    ['another site', 403, 'csrf', 'GET', '/api/x', () => ({ 'Sec-Fetch-Site': 'cross-site' })],
    ['another origin', 403, 'csrf', 'POST', '/api/x', () => ({ Origin: 'https://evil.example' })],
    [
      'a POST that does not say where from',
      403,
      'csrf',
      'POST',
      '/api/x',
      () => ({ Origin: undefined, 'Sec-Fetch-Site': undefined }),
    ],
    [
      'a form of another site',
      403,
      'csrf',
      'GET',
      '/api/read/x',
      () => ({ 'X-CSRF': undefined, Origin: undefined, 'Sec-Fetch-Site': 'none' }),
    ],
    ['a method that is not listed', 403, 'forbidden', 'POST', '/api/read/x', () => ({})],
    ['a method that never passes', 403, 'forbidden', 'TRACE', '/api/x', () => ({})],
    ['a path without a route', 403, 'forbidden', 'GET', '/admin', () => ({})],
    ['a path that only begins like one', 403, 'forbidden', 'GET', '/apix/', () => ({})],
    ['an endpoint of ours', 403, 'forbidden', 'GET', '/auth/me', () => ({})],
    [
      'a path without a route, and a query with one',
      403,
      'forbidden',
      'GET',
      '/admin?x=/api/open/',
      () => ({}),
    ],
    [
      'a WebSocket where there are none',
      403,
      'forbidden',
      'GET',
      '/api/x',
      () => ({ 'Sec-WebSocket-Key': 'x' }),
    ],
    [
      'a WebSocket of another site',
      403,
      'csrf',
      'GET',
      '/api/ws/x',
      () => ({ 'Sec-WebSocket-Key': 'x', Origin: 'https://evil.example' }),
    ],
    [
      'a WebSocket of nowhere',
      403,
      'csrf',
      'GET',
      '/api/ws/x',
      () => ({ 'Sec-WebSocket-Key': 'x', Origin: undefined }),
    ],
    ['a path with dots', 400, 'bad-request', 'GET', '/api/open/../x', () => ({})],
    ['a path with dots in disguise', 400, 'bad-request', 'GET', '/api/open/%2e%2e/x', () => ({})],
    ['a path with a hidden slash', 400, 'bad-request', 'GET', '/api/open%2f..%2fx', () => ({})],
    ['a path that another may shorten', 400, 'bad-request', 'GET', '/api/open//x', () => ({})],
    [
      'two sessions',
      400,
      'bad-request',
      'GET',
      '/api/x',
      () => ({ Cookie: `${sessionPair(client)}; ${sessionPair(other)}` }),
    ],
  ])('%s is %d %s', async (_what, status, type, method, target, lines) => {
    const answer = await ask(gateway, method, target, lines());
    expect([answer.status, problem(answer).type]).toEqual([status, type]);
    expect(answer.header('authorization')).toBeUndefined();
  });

  test('what needs no header passes without one where the route says so', async () => {
    const bare = { 'X-CSRF': undefined, Origin: undefined };
    expect((await ask(gateway, 'GET', '/api/read/x', bare)).status).toBe(200);
    const socket = { 'X-CSRF': undefined, 'Sec-WebSocket-Key': 'x', 'Sec-WebSocket-Version': '13' };
    expect((await ask(gateway, 'GET', '/api/ws/x', socket)).status).toBe(200);
    const listed = { Origin: 'https://shop.example.test', 'Sec-Fetch-Site': 'same-site' };
    expect((await ask(gateway, 'POST', '/api/x', listed)).status).toBe(200);
  });

  test('where nobody needs to be signed in there is no token, and none of the client passes for one', async () => {
    for (const path of ['/api/open/x', '/api/either/x']) {
      const answer = await ask(gateway, 'GET', path, { Cookie: undefined });
      expect([path, answer.status, answer.header('authorization')]).toEqual([path, 200, undefined]);
      const forged = await ask(gateway, 'GET', path, { Cookie: undefined, Authorization: 'Bearer forged' });
      expect([path, forged.status, problem(forged).reason]).toEqual([path, 403, 'authorization']);
    }
    expect(
      subOf(await ask(gateway, 'GET', '/api/either/x', { Authorization: 'Bearer forged' })),
    ).toBeDefined();
    expect((await ask(gateway, 'GET', '/api/open/x')).header('authorization')).toBeUndefined();
  });
});

let other: BrowserClient;
beforeAll(async () => {
  other = await c.signedIn({ user: 'bob' });
});

describe('A-085 the request that is asked about', () => {
  test.each<[string, Lines, string | undefined]>([
    ['no method', { 'X-Original-Method': undefined }, 'x-original-method'],
    ['no address', { 'X-Original-URI': undefined }, 'x-original-uri'],
    ['two methods', { 'X-Original-Method': ['GET', 'GET'] }, 'x-original-method'],
    ['two addresses', { 'X-Original-URI': ['/api/open/x', '/api/x'] }, 'x-original-uri'],
    ['a second address, spelled otherwise', { x_original_uri: '/api/x' }, 'x-original-uri'],
    [
      'those of another gateway',
      {
        'X-Original-Method': undefined,
        'X-Original-URI': undefined,
        'X-Forwarded-Method': 'GET',
        'X-Forwarded-Uri': '/api/x',
      },
      'x-original-method',
    ],
    ['a list of methods', { 'X-Original-Method': 'GET, POST' }, undefined],
    ['a method in small letters', { 'X-Original-Method': 'get' }, undefined],
    ['an empty method', { 'X-Original-Method': '' }, undefined],
    ['an empty address', { 'X-Original-URI': '' }, undefined],
    ['an address of another host', { 'X-Original-URI': 'https://evil.example/api/x' }, undefined],
    ['an address without a slash', { 'X-Original-URI': 'api/x' }, undefined],
    ['two slashes', { 'X-Original-URI': '//api/x' }, undefined],
    ['a list of addresses', { 'X-Original-URI': '/api/open/x, /api/x' }, undefined],
    ['bytes outside ASCII', { 'X-Original-URI': '/api/\u00e9' }, undefined],
  ])('with %s it is 400', async (_what, lines, header) => {
    const from = c.first.mark();
    const names = { 'X-Original-Method': 'GET', 'X-Original-URI': '/api/open/x' };
    const answer = await send('nginx', question('GET /auth/verify', { ...usual(), ...names, ...lines }));
    expect([answer.status, problem(answer).reason]).toEqual([400, header]);
    if (header !== undefined)
      await c.first.waitForEvent('forward_auth_unreadable', {
        from,
        where: (line) => line['header'] === header,
      });
    else expect(c.first.events('forward_auth_unreadable', from)).toEqual([]);
  });

  test('is the one in the header of its gateway, whatever other headers say', async () => {
    const lies = {
      'X-Forwarded-Uri': '/api/open/x',
      'X-Forwarded-Method': 'GET',
      'X-Rewrite-URL': '/api/open/x',
      'X-HTTP-Method-Override': 'GET',
      Forwarded: 'for=10.0.0.1;proto=https',
      Cookie: undefined,
    };
    expect((await ask('nginx', 'GET', '/api/x', lies)).status).toBe(401);
    expect((await ask('nginx', 'POST', '/api/read/x', { ...lies, ...usual() })).status).toBe(403);
  });

  test('A-080 by any of 1000 random paths is decided as the proxy decides', async () => {
    const draw = random('forward-auth paths');
    const answers = new Set<number>();
    for (let n = 0; n < 1000; n += 1) {
      const target = randomPath(draw, ['/api/', '/api/open/', '/api', '/']);
      // A header's value has no blanks around it, and no controls in it.
      if (!/^[\x21-\x7e]+$/.test(target)) continue;
      const { status } = await ask('nginx', 'GET', target, { Cookie: undefined });
      const bytes = question(`GET ${target}`, {
        ...usual(),
        Host: HOST,
        'X-Forwarded-Proto': 'https',
        Cookie: undefined,
      });
      const { responses } = await sendRaw(c.first.port, bytes, { answers: 1 });
      const ours = responses[0]?.header('content-type') === 'application/problem+json';
      const refused = responses[0]?.status === 404 ? 403 : responses[0]?.status;
      const expected = ours ? refused : 200;
      expect([target, status]).toEqual([target, expected]);
      answers.add(status);
    }
    expect([...answers].sort()).toEqual([200, 400, 401, 403]);
  });
});

describe('the listener', () => {
  test('has nothing for an address that is no gateway, whatever X-Forwarded-For says', async () => {
    const names = { 'X-Forwarded-Method': 'GET', 'X-Forwarded-Uri': '/api/x', 'X-Forwarded-For': '10.0.0.1' };
    const from = c.replica(3).mark();
    const answer = await send('stranger', question('GET /auth/verify', { ...usual(), ...names }));
    expect([answer.status, problem(answer).type]).toEqual([404, 'not-found']);
    expect(answer.header('authorization')).toBeUndefined();
    await c
      .replica(3)
      .waitForEvent('forward_auth_refused', { from, where: ({ peer }) => peer === '127.0.0.1' });
  });

  test.each([
    ['GET', '/auth/verify/', 404],
    ['GET', '/auth/verifyx', 404],
    ['GET', '/auth/me', 404],
    ['GET', '/api/x', 404],
    ['GET', '/livez', 404],
    ['POST', '/auth/verify', 405],
    ['HEAD', '/auth/verify', 405],
    ['GET', '/auth//verify', 400],
    ['GET', 'http://cloakroom/auth/verify', 400],
    ['CONNECT', 'x:1', 400],
  ])('answers %s %s by %d', async (method, path, status) => {
    const names = { 'X-Original-Method': 'GET', 'X-Original-URI': '/api/x', 'Content-Length': '0' };
    const { responses } = await sendRaw(
      ports.nginx,
      question(`${method} ${path}`, { ...usual(), ...names }),
      {
        answers: 1,
        head: method === 'HEAD',
      },
    );
    expect(responses[0]?.status).toBe(status);
    expect(responses[0]?.header('authorization')).toBeUndefined();
  });

  test('takes no body for the next question', async () => {
    const names = { 'X-Original-Method': 'POST', 'X-Original-URI': '/api/x' };
    const inner = question('GET /auth/verify', {
      ...usual(),
      'X-Original-Method': 'GET',
      'X-Original-URI': '/api/x',
    });
    const bytes =
      question('GET /auth/verify', { ...usual(), ...names, 'Content-Length': String(inner.length) }) + inner;
    const { responses } = await sendRaw(ports.nginx, bytes, { timeout: 1000 });
    expect(responses.map(({ status }) => status)).toEqual([200]);
  });

  test('is not on the port of browsers', async () => {
    const headers = {
      'x-original-method': 'GET',
      'x-original-uri': '/api/x',
      'x-forwarded-method': 'GET',
      'x-forwarded-uri': '/api/x',
    };
    for (const replica of [0, 1, 2]) {
      for (const path of ['/auth/verify', '/auth/verify/api/x']) {
        const answer = await client.api(path, { replica, headers });
        expect([path, answer.status, answer.headers['authorization']]).toEqual([path, 404, undefined]);
      }
    }
  });

  test('says nothing of queries, cookies and tokens in the log', async () => {
    const secret = 'only-in-this-query';
    expect((await ask('nginx', 'GET', `/api/x?q=${secret}`)).status).toBe(200);
    expect((await ask('envoy', 'GET', `/admin?q=${secret}`)).status).toBe(403);
    expect((await ask('traefik', 'GET', `/api//x?q=${secret}`)).status).toBe(400);
    for (const replica of c.replicas) expect(replica.stdout.includes(secret)).toBe(false);
  });
});

describe('the session', () => {
  test('that ends is over at once on all of them, and its dead cookie is taken away', async () => {
    const leaving = await c.signedIn({ user: 'carol' });
    const cookie = sessionPair(leaving);
    expect((await ask('envoy', 'GET', '/api/x', { Cookie: cookie })).status).toBe(200);
    await leaving.logout({ navigate: false, replica: 0 });
    for (const gateway of ['nginx', 'traefik', 'envoy'] as const) {
      const answer = await ask(gateway, 'GET', '/api/x', { Cookie: cookie });
      expect([answer.status, problem(answer)]).toEqual([
        401,
        expect.objectContaining({ type: 'session-required', reason: 'user', loginUrl: '/auth/login' }),
      ]);
      expect(answer.header('set-cookie')).toMatch(/^__Host-cloakroom-session=;.*Max-Age=0/);
    }
  });

  test('whose token has run out gets a new one', async () => {
    c.provider.modes.accessTokenLifetime = 1;
    const short = await c.signedIn({ user: 'dave' });
    c.provider.modes.accessTokenLifetime = 3600;
    const cookie = sessionPair(short);
    const before = c.provider.ledger.count('refresh');
    await eventually(
      async () => {
        const answer = await ask('traefik', 'GET', '/api/x', { Cookie: cookie });
        expect([answer.status, subOf(answer)]).toEqual([200, 'dave']);
        return c.provider.ledger.count('refresh') > before;
      },
      { timeout: 10_000, interval: 100 },
    );
  });

  // Only a Redis of the tests' own may be frozen; REDIS_URL may be somebody else's.
  (ownRedis ? test : test.skip)('is not lost while the store is away: 503', async () => {
    c.redis?.pause();
    try {
      const answer = await ask('nginx', 'GET', '/api/x');
      expect([answer.status, problem(answer).type]).toEqual([503, 'store-unavailable']);
      expect(answer.header('set-cookie')).toBeUndefined();
    } finally {
      c.redis?.resume();
    }
    await eventually(async () => (await ask('nginx', 'GET', '/api/x')).status === 200, { timeout: 15_000 });
  });
});
