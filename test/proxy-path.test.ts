import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { inParallel, type BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { ARRIVING, REFUSED } from './support/path-cases.js';
import { expectedHead, plainHead } from './support/plain-head.js';
import { random } from './support/random.js';
import { AMBIGUOUS, randomPath } from './support/random-paths.js';
import { sendRaw, type RawResponse } from './support/raw.js';
import { scriptRequest, type ScriptRequest } from './support/script-request.js';
import { startRawUpstream, startSink, type RawUpstream, type Sink } from './support/upstream.js';

let c: Cloakroom;
let upstream: RawUpstream;
let admin: RawUpstream;
let sink: Sink;
let client: BrowserClient;

beforeAll(async () => {
  upstream = await startRawUpstream();
  admin = await startRawUpstream();
  sink = await startSink();
  c = await startCloakroom({
    upstream,
    replicas: 2,
    config: {
      routes: [
        { path: '/api/', upstream: upstream.url },
        { path: '/svc/', upstream: `${upstream.url}/inner/` },
        { path: '/api/admin/', upstream: admin.url },
      ],
    },
  });
  client = await c.signedIn();
});

afterAll(async () => {
  await expectLeftClean(c);
});

beforeEach(() => {
  upstream.clear();
  admin.clear();
});

async function send(request: ScriptRequest): Promise<{ answer: RawResponse | undefined; end: string }> {
  const { responses, end } = await sendRaw(c.next().clientPort, scriptRequest(client, request), {
    answers: 1,
    timeout: 5000,
  });
  return { answer: responses[0], end };
}

/** What the upstream's request line says, byte for byte. */
const seen = (): string[] => upstream.requests.map(({ requestLine }) => requestLine);

describe('A-080 what reaches the upstream is exactly what was authorised', () => {
  test.each(ARRIVING)('A-080 %s arrives as %s', async (target, arrives) => {
    const { answer } = await send({ target });
    expect(answer?.status).toBe(200);
    expect(upstream.requests.map(plainHead)).toEqual([
      expectedHead(upstream.url, { line: `GET ${arrives} HTTP/1.1` }),
    ]);
    expect(upstream.bytesReceived).toBe(upstream.requests[0]?.bytes.length);
    expect(admin.bytesReceived).toBe(0);
  });

  test('A-080 escapes, dot segments and what upstreams may read as one are refused: 400, closed, nothing sent', async () => {
    expect(REFUSED.length).toBeGreaterThan(400);
    await inParallel(
      REFUSED.map((target) => async () => {
        const { responses, end } = await sendRaw(c.next().clientPort, scriptRequest(client, { target }), {
          timeout: 10_000,
        });
        expect([target, responses.map(({ status }) => status), end]).toEqual([target, [400], 'closed']);
      }),
      4,
    );
    expect(upstream.bytesReceived + admin.bytesReceived).toBe(0);
  });

  test('A-080 a path of 8 KiB passes whole, a longer one is 414', async () => {
    const target = `/api/${'x'.repeat(8187)}`;
    expect((await send({ target })).answer?.status).toBe(200);
    expect(seen()).toEqual([`GET ${target} HTTP/1.1`]);
    expect((await send({ target: `${target}y` })).answer?.status).toBe(414);
    expect(seen()).toHaveLength(1);
  });

  test('A-080 random paths: refused, or at the upstream under a prefix of ours and free of anything ambiguous', async () => {
    const draw = random('paths');
    for (let round = 0; round < 1500; round += 1) {
      const { answer } = await send({ target: randomPath(draw, ['/api/', '/svc/', '/api', '/']) });
      expect([200, 400, 401, 403, 404]).toContain(answer?.status);
    }
    for (const { target } of [...upstream.requests, ...admin.requests]) {
      const path = target.split('?')[0] ?? '';
      expect(path).toMatch(/^\/(api|inner)\//);
      expect(path).not.toMatch(AMBIGUOUS);
    }
    expect(upstream.requests.length).toBeGreaterThan(50);
  });
});

describe('A-081 the border of a prefix', () => {
  test.each([
    ['/api', 404],
    ['/apiadmin', 404],
    ['/api;x', 404],
    ['/api;x/y', 404],
    ['/API/x', 404],
    ['/Api/x', 404],
    ['/api.', 404],
    ['/api%20/x', 404],
    ['/api?x', 404],
    ['/api%2fx', 400],
    ['//api/x', 400],
    ['/api//x', 400],
    ['/api//evil.example/x', 400],
    ['/api/x//', 400],
    ['///', 400],
    ['//evil.example/api/x', 400],
  ])('A-081 %s is not /api/: %d', async (target, status) => {
    expect((await send({ target })).answer?.status).toBe(status);
    expect(upstream.bytesReceived).toBe(0);
  });

  test('A-081 query and fragment choose no route, the longest prefix wins', async () => {
    expect((await send({ target: '/nowhere?/api/x' })).answer?.status).toBe(404);
    expect((await send({ target: '/auth/me?path=/api/x' })).answer?.status).toBe(200);
    expect(upstream.bytesReceived).toBe(0);
    expect((await send({ target: '/api/admin/x' })).answer?.status).toBe(200);
    expect((await send({ target: '/api/adminx' })).answer?.status).toBe(200);
    expect((await send({ target: '/api/%61dmin/x' })).answer?.status).toBe(200);
    expect(admin.requests.map(({ target }) => target)).toEqual(['/api/admin/x', '/api/admin/x']);
    expect(seen()).toEqual(['GET /api/adminx HTTP/1.1']);
  });
});

describe('A-082 the upstream host never depends on the request', () => {
  const own = (): string => new URL(upstream.url).host;

  test('A-082 a foreign Host, or the absolute form of our own origin, goes to the same upstream', async () => {
    for (const host of ['evil.example', `127.0.0.1:${sink.port}`, 'localhost', '[::1]:80']) {
      const { answer } = await send({ without: ['host'], first: [`Host: ${host}`] });
      expect(answer?.status).toBe(200);
    }
    expect((await send({ target: 'https://app.example.test/api/x' })).answer?.status).toBe(200);
    expect((await send({ version: 'HTTP/1.0', without: ['host'] })).answer?.status).toBe(200);
    expect(upstream.requests).toHaveLength(6);
    for (const request of upstream.requests) {
      expect(request.requestLine).toBe('GET /api/x HTTP/1.1');
      expect(request.headers.filter(([name]) => /^host$/i.test(name))).toEqual([[expect.any(String), own()]]);
      expect(request.header('x-forwarded-host')).toBe('app.example.test');
    }
    expect(sink.connections).toBe(0);
  });

  test.each<[string, ScriptRequest]>([
    ['two Hosts', { headers: ['Host: evil.example'] }],
    ['two equal Hosts', { headers: ['Host: app.example.test'] }],
    ['no Host', { without: ['host'] }],
    ['an empty Host', { without: ['host'], first: ['Host:'] }],
    ['a Host with a path', { without: ['host'], first: ['Host: app.example.test/x'] }],
    ['a Host with userinfo', { without: ['host'], first: ['Host: a@app.example.test'] }],
    ['a Host that is a list', { without: ['host'], first: ['Host: app.example.test, evil.example'] }],
    ['a Host with a space', { without: ['host'], first: ['Host: app.example.test evil'] }],
    ['absolute form, foreign', { target: 'http://evil.example/api/x' }],
    ['absolute form, foreign port', { target: 'https://app.example.test:444/api/x' }],
    ['absolute form, look-alike', { target: 'https://app.example.test.evil.example/api/x' }],
    ['absolute form, userinfo', { target: 'https://app.example.test@evil.example/api/x' }],
    ['absolute form, other scheme', { target: 'http://app.example.test/api/x' }],
    ['absolute form without a path', { target: 'https://app.example.test' }],
    ['absolute form with dots', { target: 'https://app.example.test/api/../x' }],
    ['authority form', { target: 'app.example.test:443' }],
    ['a path without a slash', { target: 'api/x' }],
    ['userinfo before the path', { target: '@evil.example/api/x' }],
    ['a fragment', { target: '/api/x#@evil.example' }],
    ['an asterisk', { method: 'OPTIONS', target: '*' }],
    ['CONNECT', { method: 'CONNECT', target: 'evil.example:443' }],
    ['CONNECT to a path', { method: 'CONNECT', target: '/api/x' }],
  ])('A-082 %s: 400 and closed', async (_what, request) => {
    const { responses, end } = await sendRaw(c.next().clientPort, scriptRequest(client, request), {
      timeout: 5000,
    });
    expect(responses.map(({ status }) => status)).toEqual([400]);
    expect(end).toBe('closed');
    expect(upstream.bytesReceived).toBe(0);
    expect(sink.connections).toBe(0);
  });
});
