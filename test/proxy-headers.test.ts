import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { expectedHead, plainHead } from './support/plain-head.js';
import { sendRaw, type RawResponse } from './support/raw.js';
import { scriptRequest, sessionPair, type ScriptRequest } from './support/script-request.js';
import { startRawUpstream, type RawRequest, type RawUpstream } from './support/upstream.js';

let c: Cloakroom;
let upstream: RawUpstream;
let client: BrowserClient;

beforeAll(async () => {
  upstream = await startRawUpstream();
  c = await startCloakroom({
    upstream,
    replicas: 2,
    config: {
      routes: [
        { path: '/api/', upstream: upstream.url },
        {
          path: '/kept/',
          upstream: upstream.url,
          headers: { requestAllow: ['X-Tenant', 'Traceparent'] },
          cookies: ['theme', 'lang'],
        },
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
  upstream.handler = () => 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n';
});

async function send(request: ScriptRequest): Promise<{ answer: RawResponse; seen: RawRequest }> {
  const { responses } = await sendRaw(c.next().clientPort, scriptRequest(client, request), { answers: 1 });
  const [answer] = responses;
  const seen = upstream.requests.at(-1);
  if (answer?.status !== 200 || seen === undefined)
    throw new Error(`not served: ${String(answer?.statusLine)}`);
  return { answer, seen };
}

/** The head at the upstream is that of a plain call and nothing else, byte for byte. */
function expectPlain(seen: RawRequest, more: Parameters<typeof expectedHead>[1] = {}): void {
  expect(plainHead(seen)).toEqual(expectedHead(upstream.url, more));
  expect(seen.bytes.toString('latin1')).toBe(`${seen.head}\r\n\r\n${seen.body.toString('latin1')}`);
}

const namesOf = ({ headers }: RawRequest): string[] => headers.map(([name]) => name.toLowerCase()).sort();

/** What the upstream gets of a plain call, whatever the caller adds that is not allowed. */
const BASE = [
  'authorization',
  'connection',
  'forwarded',
  'host',
  'traceparent',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-proto',
  'x-request-id',
];

const TWINS: Record<string, (name: string) => string[]> = {
  'as it is': (name) => [name],
  'in lower case': (name) => [name.toLowerCase()],
  'in capitals': (name) => [name.toUpperCase()],
  'with underscores': (name) => [name.replaceAll('-', '_')],
  'with one underscore': (name) => [name.replace('-', '_')],
  'with dots': (name) => [name.replaceAll('-', '.')],
  twice: (name) => [name, name],
  'in two spellings': (name) => [name.toLowerCase(), name.replaceAll('-', '_').toUpperCase()],
};

describe('A-084 hop-by-hop headers of a request', () => {
  test('A-084 Connection, all it names and its kin stay on their hop', async () => {
    const hop = [
      ...[
        'Connection: keep-alive, X-Nominated, TE',
        'X-Nominated: 1',
        'Keep-Alive: timeout=9',
        'TE: trailers, gzip',
      ],
      ...['Trailer: X-T', 'Upgrade: h2c', 'Proxy-Connection: keep-alive', 'Proxy-Authorization: Basic eDp5'],
      ...['Proxy-Authenticate: Basic', 'Proxy-Foo: 1', 'HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA'],
    ];
    const { seen } = await send({ headers: hop });
    // That trailer fields are welcome is the one word of these that goes on, anew.
    expectPlain(seen, { te: true });
  });

  test.each([
    'Authorization',
    'Cookie',
    'X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host',
    'Host',
    'X-Request-Id',
    'close, Authorization, X-Forwarded-For',
    'X-CSRF, Origin',
  ])('A-084 naming %s in Connection changes nothing', async (names) => {
    const { seen } = await send({ headers: [`Connection: ${names}`] });
    expectPlain(seen);
  });

  test('A-084 naming the length of a body in Connection leaves its framing alone', async () => {
    const { seen } = await send({
      method: 'POST',
      headers: ['Connection: Content-Length, Content-Type', 'Content-Type: text/plain', 'Content-Length: 5'],
      body: 'hello',
    });
    expectPlain(seen, { line: 'POST /api/x HTTP/1.1', framing: 'content-length: 5' });
    expect(seen.body.toString()).toBe('hello');
  });

  test('A-084 an end-to-end header that the sender declares hop-by-hop is dropped as it asked', async () => {
    const { seen } = await send({
      headers: ['Connection: Accept-Language', 'Accept-Language: de', 'Accept: a/b'],
    });
    expectPlain(seen, { passed: ['accept: a/b'] });
  });

  const HOP_BY_HOP = [
    ...['Keep-Alive', 'TE', 'Trailer', 'Upgrade', 'Proxy-Connection', 'Proxy-Authorization'],
    ...['Proxy-Authenticate', 'Proxy-Authentication-Info', 'Proxy-Features', 'HTTP2-Settings', 'Alt-Used'],
    ...['Close', 'X-Nominated', 'Via', 'Sec-WebSocket-Key', 'Sec-WebSocket-Protocol', 'Early-Data'],
  ];

  test.each(Object.keys(TWINS))(
    'A-084 what is meant for one hop, %s, stays behind, named in Connection or not',
    async (how) => {
      const headers = HOP_BY_HOP.flatMap(TWINS[how] ?? ((name) => [name])).map((one) => `${one}: spoofed/1`);
      expectPlain((await send({ headers })).seen);
      const named = `Connection: ${HOP_BY_HOP.join(', ')}, ${HOP_BY_HOP.join(',').toLowerCase()}`;
      expectPlain((await send({ headers: [named, ...headers, 'connection: keep-alive'] })).seen);
    },
  );

  test.each([
    ['TE: trailers', true],
    ['TE: deflate, Trailers ;q=0.5', false],
    ['TE: gzip;q=0.3,TRAILERS', true],
    ['TE: deflate\r\nTE: trailers', true],
    ['TE: trailer', false],
    ['TE: trailers2', false],
    ['TE:', false],
    ['T_E: trailers', false],
  ])('A-084 %s asks the upstream for trailer fields: %s', async (line, te) => {
    const { seen } = await send({ headers: [line] });
    expectPlain(seen, { te });
  });
});

/** Headers by which some upstream somewhere believes who is calling, from where, or what is asked. */
const SPOOFS = [
  ...['X-Forwarded-For', 'X-Forwarded-Proto', 'X-Forwarded-Host', 'X-Forwarded-Port', 'X-Forwarded-Prefix'],
  ...['X-Forwarded-User', 'X-Forwarded-Email', 'X-Forwarded-Groups', 'X-Forwarded-Preferred-Username'],
  ...[
    'X-Forwarded-Access-Token',
    'X-Forwarded-Server',
    'X-Forwarded-Uri',
    'X-Forwarded-Method',
    'X-Forwarded-Ssl',
  ],
  ...[
    'X-Forwarded-Scheme',
    'X-Forwarded-By',
    'X-Forwarded',
    'Forwarded',
    'Forwarded-For',
    'Via',
    'X-Real-IP',
  ],
  ...[
    'X-Client-IP',
    'Client-IP',
    'True-Client-IP',
    'CF-Connecting-IP',
    'Fastly-Client-IP',
    'X-Cluster-Client-IP',
  ],
  ...[
    'X-Originating-IP',
    'X-Remote-IP',
    'X-Remote-Addr',
    'X-ProxyUser-Ip',
    'X-Envoy-External-Address',
    'WL-Proxy-Client-IP',
  ],
  ...[
    'X-User',
    'X-User-Id',
    'X-User-Email',
    'X-Username',
    'X-Remote-User',
    'Remote-User',
    'X-Authenticated-User',
  ],
  ...['X-Auth-Request-User', 'X-Auth-Request-Email', 'X-Auth-Token', 'X-Access-Token', 'X-WEBAUTH-USER'],
  ...[
    'X-Ms-Client-Principal',
    'X-Ms-Client-Principal-Id',
    'X-Amzn-Oidc-Identity',
    'X-Goog-Authenticated-User-Email',
  ],
  ...[
    'X-Client-Cert',
    'X-SSL-Client-Cert',
    'SSL-Client-Cert',
    'X-Forwarded-Client-Cert',
    'X-SSL-Client-Verify',
  ],
  ...[
    'X-Original-URL',
    'X-Original-Host',
    'X-Original-Method',
    'X-Original-URI',
    'X-Rewrite-URL',
    'X-Accel-Redirect',
  ],
  ...[
    'X-HTTP-Method',
    'X-HTTP-Method-Override',
    'X-Method-Override',
    'X-Request-Id',
    'X-Correlation-Id',
    'X-Host',
  ],
  ...[
    'X-Role',
    'X-Roles',
    'X-Scope',
    'X-Tenant-Id',
    'X-Internal',
    'X-Debug',
    'From',
    'Origin-Host',
    'Proxy',
    'Max-Forwards',
  ],
];

describe('A-085 headers that an upstream might believe', () => {
  test('A-085 there are 60 and more', () => {
    expect(new Set(SPOOFS.map((name) => name.toLowerCase())).size).toBeGreaterThanOrEqual(60);
  });

  test.each(Object.keys(TWINS))(
    'A-085 every one of them %s is removed, and ours come from the socket',
    async (how) => {
      const twins = TWINS[how] ?? ((name) => [name]);
      // All of a spelling at once would pass the limit on lines when doubled.
      for (let at = 0; at < SPOOFS.length; at += 40) {
        const lines = SPOOFS.slice(at, at + 40).flatMap((name) =>
          twins(name).map((one) => `${one}: spoofed.example`),
        );
        const { seen } = await send({ first: lines.slice(0, 20), headers: lines.slice(20) });
        expectPlain(seen);
      }
    },
  );

  test('A-085 the address a trusted proxy vouches for is passed on alone; what came before it is not', async () => {
    const { seen } = await send({
      headers: ['X-Forwarded-For: 6.6.6.6, 203.0.113.7', 'X-Forwarded-Proto: http'],
    });
    expect(seen.header('x-forwarded-for')).toBe('203.0.113.7');
    expect(seen.header('x-forwarded-proto')).toBe('https');
    expect(seen.header('forwarded')).toBe('for=203.0.113.7;proto=https;host="app.example.test"');
    const six = await send({ headers: ['X-Forwarded-For: 2001:db8::7', 'Forwarded: for=6.6.6.6'] });
    expect(six.seen.header('x-forwarded-for')).toBe('2001:db8::7');
    expect(six.seen.header('forwarded')).toBe('for="[2001:db8::7]";proto=https;host="app.example.test"');
  });

  test('A-085 with no proxy trusted the address is the socket, whatever is said', async () => {
    const alone = await startCloakroom({
      upstream,
      replicas: 1,
      publicUrl: 'http://localhost:9',
      trustForwarded: false,
    });
    const other = await alone.signedIn();
    const bytes = scriptRequest(other, {
      headers: ['X-Forwarded-For: 203.0.113.7', 'X-Forwarded-Proto: https'],
    });
    const { responses } = await sendRaw(alone.first.clientPort, bytes, { answers: 1 });
    expect(responses[0]?.status).toBe(200);
    expect(upstream.requests.at(-1)?.header('x-forwarded-for')).toBe('127.0.0.1');
    expect(upstream.requests.at(-1)?.header('x-forwarded-proto')).toBe('http');
    expect(upstream.requests.at(-1)?.header('forwarded')).toBe('for=127.0.0.1;proto=http;host="localhost:9"');
    await alone.close();
  });

  test('A-085 an allowed header passes as it is, its underscore twin does not', async () => {
    const headers = ['X-Tenant: blue', 'X_Tenant: red', 'X-TENANT_: red', 'X-Tenants: red'];
    const { seen } = await send({ target: '/kept/x', headers });
    expect(namesOf(seen)).toEqual([...BASE, 'x-tenant'].sort());
    expect(seen.header('x-tenant')).toBe('blue');
    const without = await send({ target: '/api/x', headers });
    expect(namesOf(without.seen)).toEqual(BASE);
  });

  test('A-085 what an ordinary API needs passes by itself', async () => {
    const lines = [
      'Accept: a/b',
      'Accept-Language: de',
      'Content-Type: a/b',
      'If-None-Match: "x"',
      'Range: bytes=0-1',
    ];
    lines.push('Baggage: a=b', 'Last-Event-ID: 7', 'User-Agent: test', 'Idempotency-Key: k');
    const { seen } = await send({ headers: lines });
    for (const line of lines) expect(seen.head.toLowerCase()).toContain(line.toLowerCase());
  });
});

describe('A-085 the trace a request belongs to', () => {
  const parent = `00-${'4b'.repeat(16)}-${'0f'.repeat(8)}-00`;

  test('A-085 one that is well formed passes with its state, byte for byte', async () => {
    const state = ['tracestate: congo=t61rcWkgMzE', 'Tracestate: rojo=00f067aa0ba902b7'];
    const { seen } = await send({ headers: [...state, `Traceparent: ${parent}`] });
    expect(seen.headers.filter(([name]) => /^trace/i.test(name))).toEqual([
      ['traceparent', parent],
      ['tracestate', 'congo=t61rcWkgMzE, rojo=00f067aa0ba902b7'],
    ]);
    const listed = await send({ target: '/kept/x', headers: [`TRACEPARENT: ${parent}`] });
    expect(listed.seen.headers.filter(([name]) => /^trace/i.test(name))).toEqual([['traceparent', parent]]);
  });

  test.each([
    ['none', []],
    ['a malformed one', ['traceparent: 00-1-1-01']],
    ['one in capitals', [`traceparent: ${parent.toUpperCase()}`]],
    ['two', [`traceparent: ${parent}`, `traceparent: ${parent}`]],
    ['one with an underscore', [`trace_parent: ${parent}`]],
    ['one that is named in Connection', ['Connection: traceparent', `traceparent: ${parent}`]],
  ])('A-085 with %s a trace begins, without the state that came', async (_what, lines) => {
    const { seen } = await send({ headers: [...lines, 'tracestate: congo=1'] });
    expectPlain(seen);
  });

  test('A-085 no two requests begin the same trace', async () => {
    const begun = new Set<string | undefined>();
    for (let n = 0; n < 50; n += 1) begun.add((await send({})).seen.header('traceparent')?.slice(3, 35));
    expect(begun.size).toBe(50);
  });
});

describe('A-086 cookies to the upstream', () => {
  const junk = 'a=1; theme=dark; __Host-cloakroom-last=x; lang=de; theme2=no; cloakroom-session=y; THEME=no';

  test('A-086 none by default', async () => {
    const { seen } = await send({ headers: [`Cookie: ${junk}`, `cookie: theme=light`] });
    expect(namesOf(seen)).toEqual(BASE);
  });

  test('A-086 only listed ones where the route lists some, and never ours', async () => {
    const { seen } = await send({
      target: '/kept/x',
      without: ['cookie'],
      headers: [`Cookie: ${junk}; ${sessionPair(client)}`],
    });
    expect(seen.headers.filter(([name]) => /cookie/i.test(name))).toEqual([
      ['cookie', 'theme=dark; lang=de'],
    ]);
    const id = client.sessionCookie?.value ?? '-';
    for (const request of upstream.requests) expect(request.bytes.toString('latin1')).not.toContain(id);
  });

  test('A-086 a route cannot list ours', async () => {
    for (const name of [
      '__Host-cloakroom-session',
      'cloakroom-session',
      '__Host-cloakroom-login-x',
      '__host-CLOAKROOM-last',
    ]) {
      const wrong = await startCloakroom({
        upstream,
        redis: c.redis ?? 'memory',
        replicas: 1,
        tap: false,
        stopped: true,
        config: { routes: [{ path: '/api/', upstream: upstream.url, cookies: [name] }] },
      });
      await expect(wrong.first.start()).rejects.toThrow(/ended with 78/);
      expect(wrong.first.stderr).toMatch(/routes.*cookies/s);
      await wrong.close();
    }
  });
});
