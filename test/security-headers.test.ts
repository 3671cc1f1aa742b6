import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { faults } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { ownRedis } from './support/redis.js';
import { sendRaw, type RawResponse } from './support/raw.js';
import { scriptRequest, sessionPair } from './support/script-request.js';
import { scratchFolder } from './support/run-folder.js';

let c: Cloakroom;
let client: BrowserClient;

beforeAll(async () => {
  const folder = join(scratchFolder('pages'), 'public');
  mkdirSync(join(folder, 'sub'), { recursive: true });
  writeFileSync(join(folder, 'index.html'), '<!doctype html><title>app</title>');
  writeFileSync(join(folder, 'app.js'), 'export {};');
  c = await startCloakroom({
    replicas: 1,
    config: (file) => ({
      ...file,
      frontend: { folder },
      routes: [
        ...(file['routes'] as object[]),
        { path: '/gone/', upstream: 'http://127.0.0.1:9', websocket: true },
        {
          path: '/live/',
          upstream: (file['routes'] as { upstream: string }[])[0]?.upstream,
          methods: ['GET'],
          csrf: 'origin',
          websocket: true,
        },
        {
          path: '/small/',
          upstream: (file['routes'] as { upstream: string }[])[0]?.upstream,
          limits: { requestBody: '10B' },
        },
        {
          path: '/open/',
          upstream: (file['routes'] as { upstream: string }[])[0]?.upstream,
          cache: 'upstream',
        },
        {
          path: '/pages/',
          upstream: (file['routes'] as { upstream: string }[])[0]?.upstream,
          csrf: 'origin',
          headers: { security: { frameAncestors: 'self', referrerPolicy: 'same-origin' } },
        },
      ],
    }),
  });
  client = await c.signedIn();
});

afterAll(async () => {
  await expectLeftClean(c);
});

function check(what: string, answer: RawResponse | undefined): void {
  const all = (name: string): string[] =>
    (answer?.headers ?? []).filter(([one]) => one.toLowerCase() === name).map(([, value]) => value);
  const policies = all('content-security-policy').join(', ');
  expect({
    what,
    nosniff: all('x-content-type-options'),
    corp: all('cross-origin-resource-policy'),
    frame: all('x-frame-options'),
    ancestors: policies.includes("frame-ancestors 'none'"),
    hsts: all('strict-transport-security').map(
      (value) => Number(/^max-age=(\d+)/.exec(value)?.[1]) >= 31_536_000,
    ),
    referrer: all('referrer-policy'),
    id: all('x-request-id').length,
    leaks: [...all('server'), ...all('x-powered-by'), ...all('via')],
  }).toEqual({
    what,
    nosniff: ['nosniff'],
    corp: ['same-origin'],
    frame: ['DENY'],
    ancestors: true,
    hsts: [true],
    referrer: ['no-referrer'],
    id: 1,
    leaks: [],
  });
}

async function raw(bytes: string, head = false): Promise<RawResponse | undefined> {
  const { responses } = await sendRaw(c.first.clientPort, bytes, { answers: 1, head });
  return responses.find(({ status }) => status >= 200);
}

const PROTO = 'X-Forwarded-Proto: https';
const asked = (target: string, method = 'GET', headers: string[] = []): string =>
  scriptRequest(client, { target, method, headers: [PROTO, ...headers] });
const anonymous = (target: string, method = 'GET', headers: string[] = []): string =>
  scriptRequest(client, { target, method, headers: [PROTO, ...headers], without: ['cookie'] });

const HANDSHAKE = [
  ...['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'],
  'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
];
const socket = (target: string, headers = [...HANDSHAKE, 'Origin: https://app.example.test']): string =>
  [
    `GET ${target} HTTP/1.1`,
    ...['Host: app.example.test', PROTO, `Cookie: ${sessionPair(client)}`, ...headers, '', ''],
  ].join('\r\n');

describe('A-099 every answer forbids framing and sniffing, stays same-origin and promises https', () => {
  test.each<[string, number, () => string]>([
    ['a page of the application', 200, () => anonymous('/', 'GET', ['Accept: text/html'])],
    ['a deep link of the application', 200, () => anonymous('/orders/7', 'GET', ['Accept: text/html'])],
    ['a file', 200, () => anonymous('/app.js')],
    [
      'a file not modified',
      304,
      () => anonymous('/app.js', 'GET', ['If-Modified-Since: Thu, 01 Jan 2099 00:00:00 GMT']),
    ],
    ['part of a file', 206, () => anonymous('/app.js', 'GET', ['Range: bytes=0-1'])],
    ['a range that is not there', 416, () => anonymous('/app.js', 'GET', ['Range: bytes=9999-'])],
    ['a file that is not there', 404, () => anonymous('/none.js')],
    ['a folder', 404, () => anonymous('/sub')],
    ['a very long name', 404, () => anonymous(`/${'x'.repeat(300)}.js`)],
    ['a post to a page', 404, () => anonymous('/', 'POST', ['Content-Length: 0'])],
    ['livez', 200, () => anonymous('/livez')],
    ['readyz', 200, () => anonymous('/readyz')],
    ['me', 200, () => asked('/auth/me')],
    ['me, head', 200, () => asked('/auth/me', 'HEAD')],
    ['me, anonymous', 401, () => anonymous('/auth/me')],
    ['me without the header', 403, () => `GET /auth/me HTTP/1.1\r\nHost: app.example.test\r\n\r\n`],
    ['login', 303, () => anonymous('/auth/login')],
    ['login with a wrong parameter', 400, () => anonymous('/auth/login?prompt=wrong')],
    ['login from a frame', 403, () => anonymous('/auth/login', 'GET', ['Sec-Fetch-Dest: iframe'])],
    ['login over http', 421, () => `GET /auth/login HTTP/1.1\r\nHost: app.example.test\r\n\r\n`],
    ['callback, stale', 400, () => anonymous('/auth/callback?code=x&state=y')],
    ['callback, stale, signed in', 303, () => asked(`/auth/callback?code=x&state=${'y'.repeat(43)}`)],
    ['callback, posted', 405, () => anonymous('/auth/callback', 'POST', ['Content-Length: 0'])],
    ['callback of nobody', 404, () => anonymous('/auth/callback/nobody?code=x')],
    ['logout without a token', 303, () => anonymous('/auth/logout')],
    ['logout with a wrong one', 403, () => asked('/auth/logout?token=wrong')],
    ['logout, posted, anonymous', 200, () => anonymous('/auth/logout', 'POST', ['Content-Length: 0'])],
    ['sessions', 200, () => asked('/auth/sessions')],
    ['sessions, anonymous', 401, () => anonymous('/auth/sessions')],
    ['a session that is not there', 404, () => asked('/auth/sessions/nobody', 'DELETE')],
    ['sessions, ended by nobody', 401, () => anonymous('/auth/sessions/end-others', 'POST')],
    ['events, anonymous', 401, () => anonymous('/auth/events')],
    ['events, from another site', 403, () => asked('/auth/events', 'GET', ['Sec-Fetch-Site: cross-site'])],
    ['back-channel logout without a token', 400, () => anonymous('/auth/backchannel-logout', 'POST')],
    ['back-channel logout, asked', 405, () => anonymous('/auth/backchannel-logout')],
    ['an unknown address of ours', 404, () => anonymous('/auth/unknown')],
    ['a proxied answer', 200, () => asked('/api/x')],
    ['a proxied answer, head', 200, () => asked('/api/x', 'HEAD')],
    ['a proxied answer, cached', 200, () => asked('/open/x')],
    ['a proxied answer that says otherwise', 200, () => asked('/api/headers')],
    ['a proxied 204', 204, () => asked('/api/status/204')],
    ['a proxied 304', 304, () => asked('/api/status/304')],
    ['a proxied 404', 404, () => asked('/api/status/404')],
    ['a proxied 500', 500, () => asked('/api/status/500')],
    ['a proxied redirect', 302, () => asked('/api/redirect?to=/x')],
    ['the proxy, anonymous', 401, () => anonymous('/api/x')],
    ['the proxy without the header', 403, () => `GET /api/x HTTP/1.1\r\nHost: app.example.test\r\n\r\n`],
    ['the proxy, unknown method', 405, () => asked('/api/x', 'TRACE')],
    ['the proxy, by a foreign image', 403, () => socket('/live/x', ['Sec-Fetch-Site: cross-site'])],
    ['the proxy, another method', 405, () => asked('/live/x', 'DELETE')],
    ['the proxy, a preflight of nobody', 403, () => socket('/api/x').replace('GET', 'OPTIONS')],
    ['a body too large', 413, () => asked('/small/x', 'POST', ['Content-Length: 11'])],
    [
      'a WebSocket of a foreign origin',
      403,
      () => socket('/live/x', [...HANDSHAKE, 'Origin: https://x.test']),
    ],
    ['a WebSocket of no origin', 403, () => socket('/live/x', HANDSHAKE)],
    ['a WebSocket of nobody', 401, () => socket('/live/x').replace(/Cookie: .*\r\n/, '')],
    ['a WebSocket of a wrong version', 400, () => socket('/live/x').replace('Version: 13', 'Version: 8')],
    ['a WebSocket where there is none', 403, () => socket('/api/x')],
    ['a WebSocket outside of every route', 404, () => socket('/nowhere.js')],
    ['a WebSocket at an address of ours', 403, () => socket('/auth/me')],
    ['a WebSocket on a wrong path', 400, () => socket('/live/../x')],
    ['a WebSocket that the upstream refuses', 418, () => socket('/live/status/418')],
    ['a WebSocket to nobody', 502, () => socket('/gone/x')],
    ['an upstream that is not there', 502, () => asked('/gone/x')],
    ['an upstream that resets', 502, () => asked('/api/reset')],
    ['a wrong path', 400, () => asked('/api/../x')],
    ['a wrong target', 400, () => asked('http://evil.example/')],
    ['no Host', 400, () => `GET /livez HTTP/1.1\r\n\r\n`],
    ['two Hosts', 400, () => asked('/livez', 'GET', ['Host: x'])],
    ['CONNECT', 400, () => asked('x:1', 'CONNECT')],
    ['a long address', 414, () => asked(`/${'x'.repeat(9000)}`)],
    ['a large head', 431, () => asked('/livez', 'GET', [`X: ${'x'.repeat(20_000)}`])],
    [
      'many lines',
      431,
      () =>
        asked(
          '/livez',
          'GET',
          Array.from({ length: 300 }, () => 'X: y'),
        ),
    ],
    ['an expectation', 417, () => asked('/livez', 'GET', ['Expect: miracles'])],
    ['something else than HTTP', 400, () => '\x16\x03\x01\r\n\r\n'],
    ['a broken length', 400, () => asked('/livez', 'POST', ['Content-Length: x'])],
  ])('A-099 %s (%d)', async (what, status, bytes) => {
    const answer = await raw(bytes(), bytes().startsWith('HEAD'));
    expect([what, answer?.status]).toEqual([what, status]);
    check(what, answer);
  });

  test('A-099 a page of an upstream brings its own policy, beside ours; on a route that says so it may be framed by our own pages', async () => {
    c.upstream.handler = (_request, response) => {
      response.writeHead(200, {
        'content-type': 'text/html',
        'content-security-policy': "default-src 'self'; frame-ancestors *",
        'x-frame-options': 'ALLOWALL',
        'referrer-policy': 'unsafe-url',
        'cross-origin-resource-policy': 'cross-origin',
        'strict-transport-security': 'max-age=0',
        'x-content-type-options': 'none',
        'permissions-policy': 'camera=()',
        'cross-origin-opener-policy': 'same-origin',
      });
      response.end('<!doctype html>');
      return true;
    };
    const told = async (target: string): Promise<string[]> => {
      const answer = await raw(asked(target));
      expect(answer?.status).toBe(200);
      return (answer?.headers ?? [])
        .map(([name, value]) => `${name.toLowerCase()}: ${value}`)
        .filter((line) =>
          /^(content-sec|x-frame|referrer|cross-origin|strict|x-content|permissions)/.test(line),
        );
    };
    const common = ['x-content-type-options: nosniff', 'cross-origin-resource-policy: same-origin'];
    const https = 'strict-transport-security: max-age=31536000; includeSubDomains';
    const own = [
      "content-security-policy: default-src 'self'; frame-ancestors *",
      'permissions-policy: camera=()',
      'cross-origin-opener-policy: same-origin',
    ];
    try {
      expect((await told('/api/page')).sort()).toEqual(
        [
          ...[...common, https, 'x-frame-options: DENY', 'referrer-policy: no-referrer'],
          ...["content-security-policy: frame-ancestors 'none'", ...own],
        ].sort(),
      );
      expect((await told('/pages/page')).sort()).toEqual(
        [
          ...[...common, https, 'x-frame-options: SAMEORIGIN', 'referrer-policy: same-origin'],
          ...["content-security-policy: frame-ancestors 'self'", ...own],
        ].sort(),
      );
    } finally {
      c.upstream.handler = undefined;
    }
    // An error is Cloakroom's own page, and nobody's frame.
    check('an error on such a route', await raw(asked('/pages/x', 'TRACE')));
  });

  test('A-099 a method that is not served is named with those that are', async () => {
    const trace = await raw(asked('/api/x', 'TRACE'));
    expect(trace?.header('allow')?.split(', ')).toEqual(expect.arrayContaining(['GET', 'POST', 'DELETE']));
    const posted = await raw(anonymous('/auth/callback', 'POST', ['Content-Length: 0']));
    expect(posted?.header('allow')).toContain('GET');
  });

  test('A-099 the answers of a whole login and logout', async () => {
    const bytes = async (text: string): Promise<RawResponse | undefined> => raw(text);
    check('silent failure', await bytes(anonymous('/auth/login?prompt=none')));
    const browser = c.client();
    const attempt = await browser.beginLogin();
    const finished = await attempt.finish();
    const out = await browser.logout();
    for (const [what, answer] of Object.entries({
      began: attempt.response,
      finished,
      post: out.post,
      navigation: out.navigation,
    })) {
      expect([what, answer?.headers['x-content-type-options']]).toEqual([what, 'nosniff']);
      expect([what, answer?.headers['strict-transport-security']]).toEqual([
        what,
        expect.stringContaining('max-age'),
      ]);
      expect([what, answer?.headers['cross-origin-resource-policy']]).toEqual([what, 'same-origin']);
      expect([what, answer?.headers['content-security-policy']]).toEqual([
        what,
        expect.stringContaining("frame-ancestors 'none'"),
      ]);
    }
  });

  // Only a Redis of the tests' own may be killed, frozen or configured; REDIS_URL may be somebody else's.
  (ownRedis ? test : test.skip)('A-099 with the store or the provider down', async () => {
    c.provider.always('token', { ...faults.serverError });
    const refused = await c.client().login();
    expect(refused.status).toBeGreaterThanOrEqual(500);
    expect(refused.headers['content-security-policy']).toContain("frame-ancestors 'none'");
    expect(refused.headers['x-frame-options']).toBe('DENY');
    c.provider.reset();
    c.redis?.pause();
    try {
      for (const [what, bytes] of [
        ['store down, proxy', asked('/api/x')],
        ['store down, me', asked('/auth/me')],
        ['store down, login', anonymous('/auth/login')],
        ['store down, readyz', anonymous('/readyz')],
      ] as const) {
        const answer = await raw(bytes);
        expect([what, answer?.status]).toEqual([what, 503]);
        check(what, answer);
      }
    } finally {
      c.redis?.resume();
    }
    await eventually(async () => (await client.api('/api/x')).status === 200, { timeout: 15_000 });
  });
});

test('A-099 on plain http, allowed on this machine only, there is no promise of https', async () => {
  const local = await startCloakroom({ local: true });
  const answer = await local.client().fetch('/livez');
  expect(answer.headers['strict-transport-security']).toBeUndefined();
  expect(answer.headers['x-frame-options']).toBe('DENY');
  await local.close();
});
