import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { sendRaw, type RawResponse } from './support/raw.js';
import { withRoutes } from './support/routes.js';
import { sessionPair } from './support/script-request.js';
import { StoredSession } from './support/stored-session.js';

const OWN = 'https://app.example.test';
const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'];

let c: Cloakroom;
let client: BrowserClient;

beforeAll(async () => {
  c = await startCloakroom({
    replicas: 2,
    config: withRoutes((upstream) => [
      { path: '/api/', upstream },
      { path: '/live/', upstream, csrf: 'origin', websocket: true },
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

interface Attempt {
  method?: string;
  path?: string;
  headers?: string[];
  body?: string;
}

/** A request with the victim's cookie and otherwise exactly these lines. */
async function send({
  method = 'GET',
  path = '/api/x',
  headers = [],
  body = '',
}: Attempt): Promise<RawResponse> {
  const all = ['Host: app.example.test', `Cookie: ${sessionPair(client)}`, ...headers];
  if (body !== '') all.push(`Content-Length: ${Buffer.byteLength(body)}`);
  const { responses } = await sendRaw(
    c.next().clientPort,
    `${method} ${path} HTTP/1.1\r\n${all.map((line) => `${line}\r\n`).join('')}\r\n${body}`,
    { answers: 1, head: method === 'HEAD' },
  );
  const [answer] = responses;
  if (answer === undefined) throw new Error(`no answer to ${method} ${path}`);
  return answer;
}

/** Refused, nothing sent on, and the session as it was. */
async function expectRefused(attempt: Attempt): Promise<void> {
  const answer = await send(attempt);
  expect([attempt, answer.status]).toEqual([attempt, 403]);
  if (attempt.method !== 'HEAD') {
    expect(JSON.parse(answer.body.toString())).toMatchObject({ type: 'csrf', status: 403 });
  }
  expect(answer.header('set-cookie')).toBeUndefined();
  expect(c.upstream.requests).toHaveLength(0);
}

const data: [string, string][] = [
  ...METHODS.map((method): [string, string] => [method, '/api/x']),
  ['GET', '/auth/me'],
  ['HEAD', '/auth/me'],
  ['POST', '/auth/logout'],
  ['GET', '/auth/sessions'],
  ['DELETE', '/auth/sessions/some-handle'],
  ['POST', '/auth/sessions/end-others'],
];

describe('A-095 the header is needed', () => {
  test.each(data)('A-095 on %s %s', async (method, path) => {
    const origin = `Origin: ${OWN}`;
    for (const line of [
      undefined,
      'X-CSRF: 0',
      'X-CSRF: true',
      'X-CSRF:',
      'X_CSRF: 1',
      'X-CSRF: 1, 1',
      'XCSRF: 1',
    ]) {
      await expectRefused({ method, path, headers: line === undefined ? [origin] : [origin, line] });
    }
    await expectRefused({ method, path, headers: [origin, 'X-CSRF: 1', 'X-CSRF: 1'] });
    expect(await new StoredSession(c, client).exists()).toBe(true);
  });

  test('A-095 with it every method is served', async () => {
    for (const method of METHODS) {
      const answer = await send({ method, headers: [`Origin: ${OWN}`, 'X-CSRF: 1'] });
      expect([method, answer.status]).toEqual([method, 200]);
    }
    expect(c.upstream.requests.map((seen) => seen.method)).toEqual(METHODS);
  });

  test('A-095 a refused logout leaves the session alive', async () => {
    await expectRefused({ method: 'POST', path: '/auth/logout', headers: [`Origin: ${OWN}`] });
    await expectRefused({ method: 'POST', path: '/auth/logout', headers: ['X-CSRF: 1'] });
    expect((await client.me()).status).toBe(200);
  });
});

/** Origins that are not ours, however much they look like it. */
const FOREIGN = [
  ...['null', 'NULL', '', 'https://evil.example', 'http://app.example.test', 'https://app.example.test:444'],
  ...[
    'https://app.example.test:443',
    'https://app.example.test:80',
    'https://app.example.test.',
    'https://APP.example.test',
  ],
  ...[
    'https://app.example.test.evil.example',
    'https://evilapp.example.test',
    'https://evil.app.example.test',
  ],
  ...[
    'https://example.test',
    'https://www.example.test',
    'https://app.example.test/',
    'https://app.example.test/x',
  ],
  ...[
    'https://app.example.test@evil.example',
    'https://evil.example/app.example.test',
    'https://evil.example?app.example.test',
  ],
  ...[
    'https://app-example.test',
    'https://appXexample.test',
    'https://app.example.tes',
    'https://app.example.testx',
  ],
  ...[
    'https://app.example.test, https://evil.example',
    'https://evil.example https://app.example.test',
    'app.example.test',
  ],
  ...[
    '//app.example.test',
    'https:app.example.test',
    'https:///app.example.test',
    'ftp://app.example.test',
    'file://',
  ],
  ...[
    'https://xn--app-example.test',
    'https://app.example.test%00',
    'https://app.example.test#',
    'https://127.0.0.1',
  ],
  ...[
    'https://localhost',
    'http://localhost:3000',
    'chrome-extension://abcdef',
    'data:',
    'https://[::1]',
    'blob:https://app.example.test',
  ],
];

describe('A-096 the header is not enough', () => {
  const header = 'X-CSRF: 1';

  test('A-096 a foreign or null Origin, and every look-alike, is refused on every method', async () => {
    for (const origin of FOREIGN) {
      for (const [method, path] of [
        ['GET', '/api/x'],
        ['POST', '/api/x'],
        ['GET', '/auth/me'],
        ['POST', '/auth/logout'],
      ]) {
        await expectRefused({
          method: method ?? '',
          path: path ?? '',
          headers: [header, `Origin: ${origin}`],
        });
      }
    }
    await expectRefused({ headers: [header, `Origin: ${OWN}`, 'Origin: https://evil.example'] });
    await expectRefused({ headers: [header, `Origin: ${OWN}`, `Origin: ${OWN}`] });
  });

  test.each(['cross-site', 'same-site', 'cross-site, cross-site', 'same-origin, same-origin', 'nonsense'])(
    'A-096 Sec-Fetch-Site: %s is refused, whatever the Origin says',
    async (site) => {
      for (const [method, path] of data) {
        await expectRefused({ method, path, headers: [header, `Origin: ${OWN}`, `Sec-Fetch-Site: ${site}`] });
        await expectRefused({ method, path, headers: [header, `Sec-Fetch-Site: ${site}`] });
      }
    },
  );

  test('A-096 without Origin a request with effects is refused, unless the browser says same-origin', async () => {
    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']) {
      await expectRefused({ method, headers: [header] });
      await expectRefused({ method, headers: [header, 'Sec-Fetch-Site: none'] });
      await expectRefused({ method, headers: [header, 'Referer: https://app.example.test/x'] });
    }
    for (const method of ['GET', 'HEAD'])
      expect((await send({ method, headers: [header] })).status).toBe(200);
    const post = await send({ method: 'POST', headers: [header, 'Sec-Fetch-Site: same-origin'] });
    expect(post.status).toBe(200);
  });

  const handshake = [
    ...['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'],
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
  ];

  test('A-093 A-096 nor is it needed for a WebSocket, where any of these origins is refused', async () => {
    for (const origin of FOREIGN) {
      await expectRefused({ path: '/live/x', headers: [...handshake, `Origin: ${origin}`] });
      await expectRefused({ path: '/live/x', headers: [...handshake, header, `Origin: ${origin}`] });
    }
    for (const site of ['cross-site', 'same-site']) {
      const headers = [...handshake, `Origin: ${OWN}`, `Sec-Fetch-Site: ${site}`];
      await expectRefused({ path: '/live/x', headers });
    }
    for (const lines of [[], [header], ['Sec-Fetch-Site: same-origin'], ['Sec-Fetch-Site: none']]) {
      await expectRefused({ path: '/live/x', headers: [...handshake, ...lines] });
    }
    expect(await new StoredSession(c, client).exists()).toBe(true);
  });

  test('A-096 where an origin is enough, none of these is', async () => {
    for (const origin of FOREIGN) {
      await expectRefused({ path: '/live/x', headers: [`Origin: ${origin}`] });
      await expectRefused({ path: '/live/x', headers: [`Origin: ${origin}`, 'Sec-Fetch-Site: same-origin'] });
      await expectRefused({ method: 'POST', path: '/live/x', headers: [`Origin: ${origin}`] });
    }
    for (const site of ['cross-site', 'same-site', 'none']) {
      await expectRefused({ path: '/live/x', headers: [`Sec-Fetch-Site: ${site}`] });
    }
    expect((await send({ path: '/live/x', headers: ['Sec-Fetch-Site: same-origin'] })).status).toBe(200);
  });

  test('A-096 each refusal is a line in the log that names the reason', async () => {
    const marks = c.replicas.map((replica) => replica.mark());
    await expectRefused({ headers: [] });
    await expectRefused({ headers: [header, 'Origin: null'] });
    await expectRefused({ headers: [header, 'Sec-Fetch-Site: cross-site'] });
    await expectRefused({ method: 'POST', headers: [header] });
    const lines = await eventually(() => {
      const found = c.replicas.flatMap((replica, at) => replica.events('csrf_rejected', marks[at]));
      return found.length >= 4 && found;
    });
    expect(lines.map(({ reason }) => reason).sort()).toEqual([
      'foreign-origin',
      'foreign-site',
      'header-missing',
      'origin-missing',
    ]);
  });
});

describe('A-097 what a foreign page can send without asking', () => {
  const foreign = ['Origin: https://evil.example', 'Sec-Fetch-Site: cross-site'];
  const simple = (type: string, body: string, path = '/api/x'): Attempt => ({
    method: 'POST',
    path,
    headers: [...foreign, `Content-Type: ${type}`],
    body,
  });

  test.each<[string, Attempt]>([
    ['a form', simple('application/x-www-form-urlencoded', 'x-csrf=1&X-CSRF=1')],
    ['a multipart form', simple('multipart/form-data; boundary=b', '--b\r\nX-CSRF: 1\r\n\r\n1\r\n--b--')],
    ['JSON as text/plain', simple('text/plain', '{"pay":1}')],
    ['a beacon', simple('text/plain;charset=UTF-8', 'x')],
    ['a beacon to logout', simple('text/plain;charset=UTF-8', 'x', '/auth/logout')],
    ['a form to logout', simple('application/x-www-form-urlencoded', 'token=x', '/auth/logout')],
    [
      'an image',
      { headers: ['Sec-Fetch-Site: cross-site', 'Sec-Fetch-Dest: image', 'Sec-Fetch-Mode: no-cors'] },
    ],
    [
      'a script',
      { path: '/auth/me?callback=x', headers: ['Sec-Fetch-Site: cross-site', 'Sec-Fetch-Dest: script'] },
    ],
    [
      'a frame',
      { headers: ['Sec-Fetch-Site: cross-site', 'Sec-Fetch-Dest: iframe', 'Sec-Fetch-Mode: navigate'] },
    ],
    [
      'a navigation',
      { headers: ['Sec-Fetch-Site: cross-site', 'Sec-Fetch-Dest: document', 'Sec-Fetch-Mode: navigate'] },
    ],
    ['a GET with a body', { headers: [...foreign, 'Content-Type: text/plain'], body: 'X-CSRF: 1' }],
    [
      'a method override',
      { method: 'POST', headers: [...foreign, 'X-HTTP-Method-Override: DELETE'], body: '_method=DELETE' },
    ],
    ['a method override in the query', simple('text/plain', 'x', '/api/x?_method=PUT&X-CSRF=1&x-csrf=1')],
    ['a ping', simple('text/ping', 'PING')],
    [
      'an old browser that sends neither Origin nor metadata',
      { method: 'POST', headers: ['Content-Type: text/plain'], body: 'x' },
    ],
  ])('A-097 %s: 403, nothing at the upstream', async (_what, attempt) => {
    await expectRefused(attempt);
  });
});

describe('A-098 cross-origin sharing', () => {
  test('A-098 no Origin gets an Access-Control line, on any answer', async () => {
    for (const origin of [...FOREIGN, OWN]) {
      const answers = [
        await send({ headers: [`Origin: ${origin}`] }),
        await send({ headers: [`Origin: ${origin}`, 'X-CSRF: 1'] }),
        await send({ path: '/auth/me', headers: [`Origin: ${origin}`, 'X-CSRF: 1'] }),
        await send({ path: '/livez', headers: [`Origin: ${origin}`] }),
      ];
      for (const { headers } of answers) {
        expect(headers.filter(([name]) => /^access-control-/i.test(name))).toEqual([]);
      }
    }
  });

  test('A-098 a preflight is refused and never reaches the upstream', async () => {
    for (const origin of [...FOREIGN, OWN]) {
      for (const path of ['/api/x', '/auth/me', '/auth/logout']) {
        const answer = await send({
          method: 'OPTIONS',
          path,
          headers: [
            `Origin: ${origin}`,
            'Access-Control-Request-Method: POST',
            'Access-Control-Request-Headers: x-csrf, content-type',
            'Access-Control-Request-Private-Network: true',
          ],
        });
        expect(answer.status).toBeGreaterThanOrEqual(400);
        expect(answer.headers.filter(([name]) => /^access-control-|^allow$/i.test(name))).toEqual([]);
      }
    }
    expect(c.upstream.requests).toHaveLength(0);
  });
});

test('A-095 after all this the session is as good as before', async () => {
  expect((await client.api('/api/x')).status).toBe(200);
  expect((await client.me()).status).toBe(200);
});
