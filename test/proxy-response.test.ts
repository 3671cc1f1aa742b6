import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';
import { RawConnection, sendRaw, type RawResult } from './support/raw.js';
import { scriptRequest } from './support/script-request.js';
import { startRawUpstream, type RawAnswer, type RawUpstream } from './support/upstream.js';

let c: Cloakroom;
let upstream: RawUpstream;
let client: BrowserClient;

beforeAll(async () => {
  upstream = await startRawUpstream();
  const timeouts = { connect: '500ms', firstByte: '1500ms', idle: '1500ms' };
  c = await startCloakroom({
    upstream,
    replicas: 1,
    config: {
      routes: [
        { path: '/api/', upstream: upstream.url, timeouts },
        {
          path: '/open/',
          upstream: upstream.url,
          cache: 'upstream',
          cookies: ['theme'],
          headers: { responseAllow: ['server'] },
        },
        { path: '/nobody/', upstream: 'http://127.0.0.1:9', timeouts },
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
});

/** The answer of Cloakroom to what the upstream answers, on a connection that is kept open for more. */
async function through(
  answer: RawAnswer,
  { target = '/api/x', method = 'GET', version = 'HTTP/1.1', timeout = 5000 } = {},
): Promise<RawResult> {
  upstream.handler = () => answer;
  const head = method === 'HEAD';
  return sendRaw(c.first.clientPort, scriptRequest(client, { target, method, version }), {
    answers: 1,
    timeout,
    head,
  });
}

const ok = (...lines: string[]): string =>
  `HTTP/1.1 200 OK\r\n${lines.map((line) => `${line}\r\n`).join('')}Content-Length: 2\r\n\r\nok`;
const lines = (result: RawResult, name: string): string[] =>
  (result.responses[0]?.headers ?? [])
    .filter(([one]) => one.toLowerCase() === name)
    .map(([, value]) => value);

describe('A-087 headers of an answer', () => {
  const DROPPED = [
    ...[
      'Access-Control-Allow-Origin: *',
      'Access-Control-Allow-Credentials: true',
      'Access-Control-Expose-Headers: X',
    ],
    ...[
      'Access-Control-Allow-Private-Network: true',
      'Access-Control-Allow-Headers: *',
      'Access-Control-Max-Age: 9',
    ],
    ...[
      'Clear-Site-Data: "cookies"',
      'Strict-Transport-Security: max-age=0',
      'Alt-Svc: h3=":1"',
      'Set-Login: logged-in',
    ],
    ...['Accept-CH: DPR', 'Critical-CH: DPR', 'Origin-Agent-Cluster: ?0', 'Use-As-Dictionary: match="/*"'],
    ...['Sec-Session-Registration: (ES256);path="/x"', 'Secure-Session-Registration: (ES256);path="/x"'],
    ...['Sec-Session-Challenge: "x"', 'Secure-Session-Challenge: "x"', 'Public-Key-Pins-Report-Only: x'],
    ...[
      'Server: up/1',
      'X-Powered-By: up',
      'X-AspNet-Version: 4',
      'X-AspNetMvc-Version: 5',
      'Via: 1.1 inner',
    ],
    ...[
      'X-Backend-Server: a7',
      'X-Served-By: a7',
      'X-Runtime: 0.2',
      'X-Generator: up',
      'NEL: {}',
      'Report-To: {}',
    ],
    ...[
      'Reporting-Endpoints: x="/y"',
      'Expect-CT: max-age=1',
      'X-Sendfile: /etc/passwd',
      'Authentication-Info: x',
    ],
    ...['Connection: keep-alive, X-Nominated', 'X-Nominated: 1', 'Keep-Alive: timeout=77', 'TE: trailers'],
    ...[
      'Proxy-Authenticate: Basic',
      'Proxy-Connection: close',
      'Proxy-Status: up',
      'Trailer: X-T',
      'Upgrade: h2c',
    ],
    ...['Set-Cookie: a=b', 'Set-Cookie2: a=b', 'Service-Worker-Allowed: /', 'X-Frame-Options: ALLOWALL'],
    ...[
      'Cross-Origin-Resource-Policy: cross-origin',
      'Referrer-Policy: unsafe-url',
      'X-Content-Type-Options: no',
    ],
    ...[
      'X-Request-Id: theirs',
      'Public-Key-Pins: x',
      'X-Accel-Redirect: /etc/passwd',
      'X-Accel-Buffering: no',
    ],
    ...['Refresh: 0; url=https://evil.example/', 'DPoP-Nonce: n', 'Proxy-Authentication-Info: x'],
  ];
  const SPELLINGS: Record<string, (line: string) => string[]> = {
    'as they are': (line) => [line],
    'in lower case': (line) => [line.replace(/^[^:]+/, (name) => name.toLowerCase())],
    'in capitals': (line) => [line.replace(/^[^:]+/, (name) => name.toUpperCase())],
    'doubled, without a space': (line) => [line.replace(': ', ':'), line],
  };

  test.each(Object.keys(SPELLINGS))(
    'A-087 what speaks for the whole site, for a connection or about the server is dropped, %s',
    async (how) => {
      const sent = DROPPED.flatMap(SPELLINGS[how] ?? ((line) => [line]));
      const result = await through(ok(...sent, 'X-Custom: kept', 'ETag: "e"', 'Content-Type: a/b'));
      const [head = ''] = result.text.split('\r\n\r\n');
      const got = head.split('\r\n').map((line) => line.replace(/^(date|x-request-id): .+/i, '$1: …'));
      expect(got).toEqual([
        'HTTP/1.1 200 OK',
        'x-content-type-options: nosniff',
        'x-frame-options: DENY',
        'cross-origin-resource-policy: same-origin',
        'referrer-policy: no-referrer',
        'strict-transport-security: max-age=31536000; includeSubDomains',
        "content-security-policy: frame-ancestors 'none'",
        'x-request-id: …',
        'cache-control: no-store',
        'X-Custom: kept',
        'ETag: "e"',
        'Content-Type: a/b',
        'Content-Length: 2',
        'Date: …',
        'Connection: keep-alive',
        'Keep-Alive: timeout=75',
      ]);
      expect(lines(result, 'x-request-id')).toEqual([expect.stringMatching(/^[A-Za-z0-9_-]{12,}$/)]);
    },
  );

  test.each([
    ['Basic realm="x"', false],
    ['Negotiate', false],
    ['NTLM', false],
    ['Digest realm="x"', false],
    ['Bearer realm="x", Basic realm="y"', false],
    ['BASIC realm="x"', false],
    ['Bearer error="insufficient_scope"', true],
    ['DPoP algs="ES256"', true],
  ])('A-087 WWW-Authenticate: %s passes: %s', async (value, passes) => {
    const result = await through(
      `HTTP/1.1 401 No\r\nWWW-Authenticate: ${value}\r\nContent-Length: 0\r\n\r\n`,
    );
    expect(result.responses[0]?.status).toBe(401);
    expect(lines(result, 'www-authenticate')).toEqual(passes ? [value] : []);
  });

  test('A-087 only listed cookies pass, never for a domain and never under our names', async () => {
    const cookies = [
      ...[
        'theme=dark; Path=/',
        'theme=wide; Domain=example.test',
        'theme=wide2;domain=example.test',
        'theme=w3; DOMAIN',
      ],
      ...[
        'lang=de',
        '__Host-cloakroom-session=evil; Path=/; Secure',
        'cloakroom-session=evil',
        '=theme=x',
        'Theme=x',
      ],
      ...['__Host-cloakroom-login-abc=evil', ' theme = spaced', 'theme'],
    ];
    const result = await through(ok(...cookies.map((cookie) => `Set-Cookie: ${cookie}`)), {
      target: '/open/x',
    });
    expect(lines(result, 'set-cookie')).toEqual(['theme=dark; Path=/', 'theme = spaced']);
    expect(lines(await through(ok('Set-Cookie: theme=dark')), 'set-cookie')).toEqual([]);
  });

  test('A-087 a listed answer header passes', async () => {
    expect(lines(await through(ok('Server: up'), { target: '/open/x' }), 'server')).toEqual(['up']);
    expect(lines(await through(ok('Server: up')), 'server')).toEqual([]);
  });

  test.each([
    ['a CR in a value', 'X-A: a\rSet-Cookie: x=1'],
    ['a NUL in a value', 'X-A: a\0b'],
    ['a control character in a value', 'X-A: a\x01b'],
    ['a DEL in a value', 'X-A: a\x7fb'],
    ['a space in a name', 'X A: b'],
    ['a space before the colon', 'X-A : b'],
    ['a NUL in a name', 'X\0A: b'],
    ['a line without a colon', 'nonsense'],
    ['two lengths', 'Content-Length: 3'],
    ['a length and chunks', 'Transfer-Encoding: chunked'],
    ['a length that is none', 'Content-Length: x'],
  ])('A-087 A-091 %s: 502, and nothing of it passes', async (_what, line) => {
    const result = await through(ok(line));
    expect(result.responses.map(({ status }) => status)).toEqual([502]);
    expect(result.responses[0]?.body.toString()).toContain('"upstream-invalid"');
    expect(lines(result, 'set-cookie')).toEqual([]);
    await eventually(() => upstream.connections.every(({ closed }) => closed));
  });

  test('A-087 values beyond ASCII pass byte for byte', async () => {
    const result = await through(
      Buffer.from(ok('X-Name: J\u00fcrgen \u00ff', 'X-Utf8: \u00c3\u00a9'), 'latin1'),
    );
    expect(lines(result, 'x-name')).toEqual(['J\u00fcrgen \u00ff']);
    expect(lines(result, 'x-utf8')).toEqual(['\u00c3\u00a9']);
  });
});

describe('A-091 broken answers', () => {
  /** The bytes must not look whole to the browser, and the upstream's connection must not be used again. */
  async function expectAborted(result: RawResult): Promise<void> {
    expect(result.text).toMatch(/^HTTP\/1.1 200 /);
    expect(result.end === 'closed' || result.end === 'reset').toBe(true);
    expect(result.responses).toEqual([]);
    const broken = upstream.connections.length;
    await eventually(() => upstream.connections.every(({ closed }) => closed));
    const next = await through(ok());
    expect(next.responses[0]?.status).toBe(200);
    expect(upstream.connections.length).toBe(broken + 1);
  }

  test.each<[string, RawAnswer]>([
    ['a short body', { bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello', close: 'end' }],
    ['a reset in the body', { bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello', close: 'reset' }],
    [
      'chunks without an end',
      { bytes: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n', close: 'end' },
    ],
    [
      'a reset between chunks',
      { bytes: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n', close: 'reset' },
    ],
    ['a bad chunk', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n'],
    [
      'a chunk that is too long',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!!\r\n0\r\n\r\n',
    ],
    ['silence in the body', 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello'],
  ])('A-091 %s aborts the answer, and the connection is not used again', async (_what, answer) => {
    await expectAborted(await through(answer));
  });

  test('A-091 an answer of HTTP/1.0 form that breaks off ends in a reset, since a plain end would look whole', async () => {
    upstream.handler = (_request, socket) => {
      // Apart from the end: a reset must not overtake what this test's own client has still to read.
      setTimeout(() => socket.end(), 100);
      return 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n';
    };
    const result = await sendRaw(c.first.port, scriptRequest(client, { version: 'HTTP/1.0' }), {
      timeout: 5000,
    });
    expect([result.text.slice(0, 15), result.end]).toEqual(['HTTP/1.1 200 OK', 'reset']);
  });

  test("A-091 bytes behind an answer are nobody else's answer", async () => {
    const evil = 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil';
    upstream.handler = ({ target }) => (target === '/api/first' ? ok() + evil : ok());
    for (let round = 0; round < 20; round += 1) {
      const first = await client.api('/api/first');
      expect(first.text).toBe('ok');
      expect((await client.api('/api/second')).text).toBe('ok');
    }
  });

  test.each<[string, RawAnswer, number, string]>([
    ['a reset before any byte', { bytes: '', close: 'reset' }, 502, 'upstream-unreachable'],
    ['an end before any byte', { bytes: '', close: 'end' }, 502, 'upstream-unreachable'],
    ['an end in the head', { bytes: 'HTTP/1.1 200 OK\r\nX-A:', close: 'end' }, 502, 'upstream-invalid'],
    ['something else than HTTP', 'SSH-2.0-OpenSSH_9\r\n\r\n', 502, 'upstream-invalid'],
    ['a status that is none', 'HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n', 502, 'upstream-invalid'],
    [
      'a head without end',
      `HTTP/1.1 200 OK\r\n${'X-A: aaaaaaaaaa\r\n'.repeat(20_000)}`,
      502,
      'upstream-invalid',
    ],
    ['silence', undefined, 504, 'upstream-timeout'],
    [
      'an upgrade nobody asked for',
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n',
      502,
      'upstream-invalid',
    ],
  ])('A-091 %s: a problem document', async (_what, answer, status, code) => {
    const result = await through(answer, { timeout: 10_000 });
    expect(result.responses.map((one) => one.status)).toEqual([status]);
    expect(JSON.parse(result.responses[0]?.body.toString() ?? '')).toEqual({
      type: code,
      status,
      title: expect.any(String),
      instance: result.responses[0]?.header('x-request-id'),
    });
    for (const { socket } of upstream.connections) socket.destroy();
  });

  test('A-091 an upstream that is not there: 502, session and connection kept', async () => {
    const connection = await RawConnection.open(c.first.clientPort);
    connection.write(scriptRequest(client, { target: '/nobody/x' }));
    expect((await connection.collect({ answers: 1, timeout: 5000 })).responses[0]?.status).toBe(502);
    upstream.handler = () => ok();
    connection.write(scriptRequest(client, {}));
    expect((await connection.collect({ answers: 2, timeout: 5000 })).responses[1]?.status).toBe(200);
    connection.close();
  });

  test('A-091 a request with effects is sent once; one without may be tried again on a fresh connection', async () => {
    upstream.handler = () => ({ bytes: '', close: 'reset' });
    expect((await client.api('/api/x', { method: 'POST', body: 'pay' })).status).toBe(502);
    expect(upstream.requests).toHaveLength(1);
    upstream.clear();
    let calls = 0;
    upstream.handler = () => ((calls += 1) === 1 ? { bytes: '', close: 'reset' } : ok());
    expect((await client.api('/api/x')).status).toBe(200);
    expect(upstream.requests).toHaveLength(2);
  });
});

describe('A-091 answers without the usual body', () => {
  test.each<[string, string, string]>([
    ['204', 'GET', 'HTTP/1.1 204 No Content\r\n\r\n'],
    ['304', 'GET', 'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n'],
    [
      '304 with the length of what it stands for',
      'GET',
      'HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\n\r\n',
    ],
    ['HEAD with a length', 'HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n'],
    ['HEAD with chunks', 'HEAD', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'],
    ['an empty body', 'GET', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'],
  ])('A-091 %s: no body, and the connection serves the next request', async (_what, method, bytes) => {
    upstream.handler = ({ target }) => (target === '/api/empty' ? bytes : ok());
    const connection = await RawConnection.open(c.first.clientPort);
    connection.write(scriptRequest(client, { target: '/api/empty', method }));
    await eventually(() => connection.received.includes('\r\n\r\n'));
    await sleep(50);
    const first = connection.received.toString('latin1');
    expect(first.slice(first.indexOf('\r\n\r\n') + 4)).toBe('');
    const length = /\r\ncontent-length: (\d+)/i.exec(bytes)?.[1];
    if (length !== undefined) expect(first).toMatch(new RegExp(`\r\ncontent-length: ${length}\r\n`, 'i'));
    connection.write(scriptRequest(client, { target: '/api/next' }));
    await eventually(() => connection.received.toString('latin1').endsWith('\r\n\r\nok'));
    connection.close();
  });

  test('A-091 an answer that ends with its connection arrives whole', async () => {
    const result = await through({ bytes: 'HTTP/1.0 200 OK\r\n\r\nuntil the end', close: 'end' });
    expect(result.responses[0]?.body.toString()).toBe('until the end');
  });
});

describe('A-092 caching', () => {
  test('A-092 every proxied answer is no-store, whatever the upstream says', async () => {
    for (const target of ['/api/x', '/api/me/x.css', '/api/logo.png', '/api/index.html']) {
      const result = await through(
        ok('Cache-Control: public, max-age=31536000', 'Expires: Thu, 01 Jan 2099 00:00:00 GMT', 'Pragma: x'),
        { target },
      );
      expect(lines(result, 'cache-control')).toEqual(['no-store']);
      expect(lines(result, 'expires')).toEqual([]);
      expect(upstream.requests.at(-1)?.target).toBe(target);
    }
  });

  test("A-092 a route that opts out keeps the upstream's word, and varies by cookie", async () => {
    const result = await through(ok('Cache-Control: private, max-age=60', 'Vary: Accept'), {
      target: '/open/x',
    });
    expect(lines(result, 'cache-control')).toEqual(['private, max-age=60']);
    expect(lines(result, 'vary')).toEqual(['Cookie, Accept']);
  });

  test('A-092 a route that opts out says all that it varies by on one line, since some caches read only one', async () => {
    const varies = async (...values: string[]): Promise<string[]> =>
      lines(await through(ok(...values.map((value) => `Vary: ${value}`)), { target: '/open/x' }), 'vary');
    expect(await varies()).toEqual(['Cookie']);
    expect(await varies('Accept, cookie', 'Origin')).toEqual(['Cookie, Accept, Origin']);
    expect(await varies('Accept', '*')).toEqual(['*']);
  });

  test('A-092 our own answers are no-store too, errors included', async () => {
    const answers = [
      await client.me(),
      await client.api('/api/x', { cookie: '' }),
      await client.fetch('/api/x'),
    ];
    answers.push(
      await client.navigate('/auth/login'),
      await client.fetch('/nowhere'),
      await client.fetch('/readyz'),
    );
    upstream.handler = () => ({ bytes: '', close: 'reset' });
    answers.push(await client.api('/api/x'));
    expect(answers.map(({ headers }) => headers['cache-control'])).toEqual(answers.map(() => 'no-store'));
  });
});
