import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { EventReader } from './support/event-reader.js';
import { expectLeftClean } from './support/left-clean.js';
import { sendRaw, type RawResponse } from './support/raw.js';
import { withRoutes } from './support/routes.js';
import { sessionPair } from './support/script-request.js';
import { startRedis, startRedisProxy, type RedisProxy } from './support/redis.js';
import { eventually } from './support/lifetime.js';

const DAY = 24 * 3600 * 1000;
const OWN = 'https://app.example.test';
const SHOP = 'https://shop.example.test';
const OTHER = 'https://app.other.example:8443';

/** What somebody might hope passes for one of the three. */
const LOOKALIKES = [
  'null',
  '*',
  'https://',
  'https://shop.example.test.',
  'https://shop.example.test:443',
  'https://shop.example.test:8443',
  'https://shop.example.test:80',
  'http://shop.example.test',
  'http://shop.example.test:443',
  'HTTPS://shop.example.test',
  'https://SHOP.example.test',
  'https://shop.Example.test',
  'https://shop.example.test/',
  'https://shop.example.test/x',
  'https://shop.example.test?',
  'https://shop.example.test#',
  'https://shop.example.test.evil.example',
  'https://shop.example.test.evil',
  'https://evilshop.example.test',
  'https://evil-shop.example.test',
  'https://x.shop.example.test',
  'https://shop-example.test',
  'https://shopXexample.test',
  'https://shop.example.tes',
  'https://shop.example.testx',
  'https://hop.example.test',
  'https://example.test',
  'https://test',
  'https://shop.example.test@evil.example',
  'https://user@shop.example.test',
  'https://evil.example/https://shop.example.test',
  'https://shop.example.test https://evil.example',
  'https://evil.example https://shop.example.test',
  'https://shop.example.test, https://evil.example',
  'https://shop.example.test%00.evil.example',
  'https://shop.example.test%2eevil.example',
  'https://ѕhop.example.test',
  'https://xn--hop-lfd.example.test',
  'shop.example.test',
  '//shop.example.test',
  'wss://shop.example.test',
  'file://shop.example.test',
  'chrome-extension://shop.example.test',
  'https://[::1]',
  'https://app.other.example',
  'https://app.other.example:443',
  'https://app.other.example:84430',
  'https://app.other.example:8443.',
  'http://app.other.example:8443',
  'https://app.example.test.evil.example',
];

let c: Cloakroom;
let wire: RedisProxy;
let client: BrowserClient;

beforeAll(async () => {
  wire = await startRedisProxy(await startRedis());
  c = await startCloakroom({
    replicas: 1,
    redis: wire,
    config: withRoutes(
      (upstream) => [
        {
          path: '/api/',
          upstream,
          headers: { requestAllow: ['X-Tenant'], responseAllow: ['X-Total-Count'] },
        },
        { path: '/few/', upstream, methods: ['GET', 'PUT'], limits: { requestBody: '10B' } },
        { path: '/files/', upstream, csrf: 'origin', cache: 'upstream' },
        { path: '/gone/', upstream: 'http://127.0.0.1:9' },
      ],
      { cors: { origins: [SHOP, OTHER] } },
    ),
  });
  client = await c.signedIn();
});

afterAll(async () => {
  await expectLeftClean(c, DAY);
});

beforeEach(() => {
  c.upstream.clear();
});

interface Asked {
  method?: string;
  target?: string;
  origin?: string | undefined;
  lines?: string[];
  site?: string;
  cookie?: string;
}

/** As a browser asks on behalf of a page of `origin`, unless `lines` say otherwise. */
async function ask({
  method = 'GET',
  target = '/api/x',
  origin = SHOP,
  site = 'same-site',
  lines = ['X-CSRF: 1'],
  cookie = sessionPair(client),
}: Asked = {}): Promise<RawResponse> {
  const all = ['Host: app.example.test', `Sec-Fetch-Site: ${site}`, ...lines];
  if (origin !== '') all.push(`Origin: ${origin}`);
  if (cookie !== '') all.push(`Cookie: ${cookie}`);
  const head = Buffer.from(all.map((line) => `${line}\r\n`).join(''), 'utf8').toString('latin1');
  const { responses } = await sendRaw(c.first.clientPort, `${method} ${target} HTTP/1.1\r\n${head}\r\n`, {
    answers: 1,
    head: method === 'HEAD',
  });
  const [answer] = responses;
  if (answer === undefined) throw new Error(`no answer to ${method} ${target}`);
  return answer;
}

function preflight(target: string, method: string, asked: Asked = {}): Promise<RawResponse> {
  const lines = [`Access-Control-Request-Method: ${method}`, 'Access-Control-Request-Headers: x-csrf'];
  return ask({ target, method: 'OPTIONS', cookie: '', lines, ...asked });
}

const cors = ({ headers }: RawResponse): [string, string][] =>
  headers
    .filter(([name]) => /^access-control-/i.test(name))
    .map(([name, value]): [string, string] => [name.toLowerCase(), value]);
const list = (value: string | undefined): string[] => (value ?? '').split(', ');

/** Readable by a script of exactly this origin, with credentials, and kept apart by caches. */
function expectReadable(answer: RawResponse, origin = SHOP): void {
  expect(Object.fromEntries(cors(answer))).toMatchObject({
    'access-control-allow-origin': origin,
    'access-control-allow-credentials': 'true',
  });
  const names = cors(answer).map(([name]) => name);
  expect(new Set(names).size).toBe(names.length);
  expect(list(answer.header('vary'))).toContain('Origin');
  expect(answer.headers.filter(([name]) => name.toLowerCase() === 'vary')).toHaveLength(1);
}

const DATA: [string, string][] = [
  ['GET', '/api/x'],
  ['POST', '/api/x'],
  ['GET', '/files/x'],
  ['GET', '/auth/me'],
  ['GET', '/auth/sessions'],
  ['POST', '/auth/sessions/end-others'],
];

describe('A-098 a listed origin', () => {
  test.each(DATA)('A-098 %s %s can be read, by this very origin', async (method, target) => {
    for (const [origin, site] of [
      [SHOP, 'same-site'],
      [OTHER, 'cross-site'],
    ] as const) {
      const answer = await ask({ method, target, origin, site });
      expect(answer.status).toBe(200);
      expectReadable(answer, origin);
    }
  });

  test('A-098 /auth/events, by EventSource', async () => {
    const reader = await EventReader.open(client, '/auth/events', {
      site: 'same-site',
      headers: { origin: SHOP },
    });
    expect(reader.headers['access-control-allow-origin']).toBe(SHOP);
    expect(reader.headers['access-control-allow-credentials']).toBe('true');
    reader.leave();
  });

  test('A-098 POST /auth/logout', async () => {
    const leaving = await c.signedIn();
    const answer = await ask({ method: 'POST', target: '/auth/logout', cookie: sessionPair(leaving) });
    expect(answer.status).toBe(200);
    expectReadable(answer);
    expect((await leaving.me()).status).toBe(401);
  });

  test('A-098 reads which of our headers there are to read, and no others of the upstream', async () => {
    const exposed = list((await ask()).header('access-control-expose-headers'));
    expect(exposed).toEqual(expect.arrayContaining(['x-request-id', 'retry-after', 'X-Total-Count']));
    expect(exposed).not.toContain('*');
  });

  test('A-095 A-098 still needs the header', async () => {
    for (const [method, target] of DATA.filter(([, target]) => target !== '/files/x')) {
      const answer = await ask({ method, target, lines: [] });
      expect([method, target, answer.status]).toEqual([method, target, 403]);
      expectReadable(answer);
    }
    expect(c.upstream.requests).toEqual([]);
  });

  test('A-096 A-098 changes nothing without it, also where an origin is enough to read', async () => {
    expect((await ask({ target: '/files/x', lines: [] })).status).toBe(200);
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE']) {
      expect((await ask({ method, target: '/files/x', lines: [] })).status).toBe(403);
      expect((await ask({ method, target: '/files/x', lines: ['Content-Type: text/plain'] })).status).toBe(
        403,
      );
    }
    expect(c.upstream.requests).toHaveLength(1);
  });

  test('A-096 A-098 its word counts only where the browser gives it: no Origin, no leave', async () => {
    const answer = await ask({ origin: '', site: 'same-site' });
    expect(answer.status).toBe(403);
    expect(cors(answer)).toEqual([]);
    const twice = await ask({ lines: ['X-CSRF: 1', 'Origin: https://evil.example'] });
    expect(twice.status === 403 || cors(twice).length === 0).toBe(true);
  });
});

describe('A-098 errors can be read as well', () => {
  test.each<[string, number, Asked]>([
    ['session-required', 401, { cookie: '' }],
    ['session-required', 401, { cookie: '', target: '/auth/me' }],
    ['csrf', 403, { lines: [] }],
    ['method-not-allowed', 405, { method: 'DELETE', target: '/few/x' }],
    [
      'payload-too-large',
      413,
      { method: 'PUT', target: '/few/x', lines: ['X-CSRF: 1', 'Content-Length: 11'] },
    ],
    ['upstream-unreachable', 502, { target: '/gone/x' }],
    ['not-found', 404, { method: 'DELETE', target: '/auth/sessions/nobody' }],
  ])('A-098 %s %d', async (type, status, asked) => {
    const answer = await ask(asked);
    expect([answer.status, JSON.parse(answer.body.toString())]).toMatchObject([status, { type }]);
    expectReadable(answer);
    const stranger = await ask({ ...asked, origin: 'https://evil.example', site: 'cross-site' });
    expect(cors(stranger)).toEqual([]);
  });

  test('A-098 store-unavailable 503', async () => {
    wire.blackhole();
    try {
      for (const target of ['/api/x', '/auth/me']) {
        const answer = await ask({ target });
        expect(answer.status).toBe(503);
        expectReadable(answer);
      }
    } finally {
      await wire.heal();
      await eventually(async () => (await ask()).status === 200);
    }
  });

  test('A-098 what the upstream says of other origins is never passed on', async () => {
    c.upstream.handler = (_request, response) => {
      response.writeHead(200, {
        'access-control-allow-origin': '*',
        'access-control-allow-methods': '*',
        'access-control-expose-headers': '*',
        vary: 'Accept-Encoding',
        'cache-control': 'max-age=60',
      });
      response.end();
      return true;
    };
    try {
      for (const target of ['/api/x', '/files/x']) expectReadable(await ask({ target }));
      for (const origin of [OWN, 'https://evil.example', '']) {
        expect(cors(await ask({ target: '/files/x', origin, site: 'same-origin' }))).toEqual([]);
      }
      // Kept apart also for those that ask without an origin: what they get must not be given to others.
      const plain = await ask({ target: '/files/x', origin: '', site: 'same-origin' });
      expect(list(plain.header('vary')).sort()).toEqual(['Accept-Encoding', 'Cookie', 'Origin']);
    } finally {
      c.upstream.handler = undefined;
    }
  });
});

describe('A-098 preflights', () => {
  test.each<[string, string[]]>([
    ['/api/x', ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']],
    ['/few/x', ['GET', 'PUT']],
    ['/auth/me', ['GET', 'HEAD']],
    ['/auth/logout', ['POST']],
    ['/auth/events', ['GET']],
    ['/auth/sessions', ['GET']],
    ['/auth/sessions/end-others', ['POST']],
    ['/auth/sessions/some-handle', ['DELETE']],
  ])('A-098 for %s are answered here, with the methods of that address', async (target, methods) => {
    const answer = await preflight(target, methods[0] ?? '');
    expect([answer.status, answer.body.length]).toEqual([204, 0]);
    expectReadable(answer);
    expect(list(answer.header('access-control-allow-methods'))).toEqual(methods);
    const headers = list(answer.header('access-control-allow-headers'));
    expect(headers).toEqual(expect.arrayContaining(['x-csrf', 'content-type', 'accept']));
    for (const never of ['*', 'authorization', 'cookie', 'x-forwarded-for'])
      expect(headers).not.toContain(never);
    expect(headers.includes('x-tenant')).toBe(target === '/api/x');
    expect(Number(answer.header('access-control-max-age'))).toBeLessThanOrEqual(7200);
    expect(answer.header('x-content-type-options')).toBe('nosniff');
    expect(answer.header('x-request-id')).toBeDefined();
    expect(c.upstream.requests).toEqual([]);
  });

  test('A-098 need no session, no store and no upstream', async () => {
    wire.blackhole();
    try {
      expect((await preflight('/gone/x', 'GET')).status).toBe(204);
      expect((await preflight('/auth/me', 'GET')).status).toBe(204);
    } finally {
      await wire.heal();
      await eventually(async () => (await ask()).status === 200);
    }
  });

  test('A-098 never reach the upstream, whatever else they carry', async () => {
    const lines = ['Access-Control-Request-Method: GET', 'X-CSRF: 1'];
    for (const target of ['/api/x', '/files/x', '/few/x']) {
      for (const origin of [SHOP, OTHER, ...LOOKALIKES.slice(0, 12)]) {
        for (const cookie of ['', sessionPair(client)]) {
          await preflight(target, 'PUT', { origin, cookie });
          await ask({ method: 'OPTIONS', target, origin, site: 'cross-site', lines, cookie });
        }
      }
    }
    expect(c.upstream.requests).toEqual([]);
  });

  test('A-098 a body behind one is not the next request', async () => {
    const next = `GET /api/smuggled HTTP/1.1\r\nHost: app.example.test\r\nX-CSRF: 1\r\nCookie: ${sessionPair(client)}\r\n\r\n`;
    const head = [
      'OPTIONS /api/x HTTP/1.1',
      'Host: app.example.test',
      `Origin: ${SHOP}`,
      'Access-Control-Request-Method: GET',
      `Content-Length: ${next.length + 10}`,
    ].join('\r\n');
    const { responses } = await sendRaw(c.first.clientPort, `${head}\r\n\r\n${next}`, { timeout: 3000 });
    expect(responses.map(({ status }) => status)).toEqual([204]);
    expect(c.upstream.requests).toEqual([]);
  });

  test('A-098 OPTIONS of our own page is no preflight', async () => {
    const answer = await ask({ method: 'OPTIONS', origin: OWN, site: 'same-origin' });
    expect(answer.status).toBe(200);
    expect(cors(answer)).toEqual([]);
    expect(c.upstream.requests.map(({ method }) => method)).toEqual(['OPTIONS']);
  });
});

describe('A-098 everybody else', () => {
  test(`A-098 ${LOOKALIKES.length} origins that are not on the list get nothing and reach nothing`, async () => {
    expect(LOOKALIKES.length).toBeGreaterThanOrEqual(40);
    for (const origin of LOOKALIKES) {
      for (const target of ['/api/x', '/files/x', '/auth/me', '/auth/sessions', '/auth/events']) {
        for (const site of ['same-site', 'cross-site', 'same-origin']) {
          const answer = await ask({ target, origin, site });
          expect([origin, target, answer.status, cors(answer)]).toEqual([origin, target, 403, []]);
        }
        const asked = await preflight(target, 'GET', { origin, site: 'cross-site' });
        expect([origin, target, asked.status < 400, cors(asked)]).toEqual([origin, target, false, []]);
      }
    }
    expect(c.upstream.requests).toEqual([]);
  });

  test('A-098 nothing is said to a listed origin where people navigate or machines look', async () => {
    for (const [method, target] of [
      ['GET', '/auth/login'],
      ['GET', '/auth/callback'],
      ['GET', '/auth/logout'],
      ['GET', '/%61uth/logout'],
      ['POST', '/auth/backchannel-logout'],
      ['POST', '/auth/me'],
      ['GET', '/livez'],
      ['GET', '/readyz'],
      ['GET', '/'],
      ['GET', '/nowhere'],
      ['GET', '/auth/sessions/x/y'],
    ] as const) {
      const answer = await ask({ method, target });
      expect([method, target, cors(answer)]).toEqual([method, target, []]);
      if (target.startsWith('/auth/me')) continue;
      const asked = await preflight(target, method);
      if (!target.endsWith('uth/logout')) expect([target, cors(asked)]).toEqual([target, []]);
    }
  });

  test('A-098 our own origin needs no leave and gets none', async () => {
    for (const [method, target] of DATA) {
      const answer = await ask({ method, target, origin: OWN, site: 'same-origin' });
      expect([method, target, answer.status, cors(answer)]).toEqual([method, target, 200, []]);
    }
  });

  test('A-098 after all this the session is as good as before', async () => {
    expect((await client.api('/api/x')).status).toBe(200);
  });
});
