import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';
import { RawConnection, sendRaw, type RawResult } from './support/raw.js';
import { scriptRequest, type ScriptRequest } from './support/script-request.js';
import { startRawUpstream, type RawAnswer, type RawUpstream } from './support/upstream.js';

let c: Cloakroom;
let upstream: RawUpstream;
let client: BrowserClient;

beforeAll(async () => {
  upstream = await startRawUpstream();
  c = await startCloakroom({
    upstream,
    replicas: 1,
    config: {
      routes: [
        { path: '/api/', upstream: upstream.url, cookies: ['theme'], headers: { responseAllow: ['server'] } },
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

async function through(answer: RawAnswer, request: ScriptRequest = {}): Promise<RawResult> {
  upstream.handler = () => answer;
  return sendRaw(c.first.clientPort, scriptRequest(client, request), {
    answers: 1,
    timeout: 5000,
    head: request.method === 'HEAD',
  });
}

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
const hints = (...lines: string[]): string =>
  `HTTP/1.1 103 Early Hints\r\n${lines.map((line) => `${line}\r\n`).join('')}\r\n`;
const LINK = '</style.css>; rel=preload; as=style';

/** Everything before the answer itself. */
const interim = (result: RawResult): string => result.text.slice(0, result.text.search(/HTTP\/1\.1 [2-5]/));

/** A problem document, the connection to the upstream closed, and the browser's good for more. */
async function expectInvalid(result: RawResult, requests = 1): Promise<void> {
  const last = result.responses.at(-1);
  expect([last?.status, JSON.parse(last?.body.toString() ?? '{}')]).toEqual([
    502,
    expect.objectContaining({ type: 'upstream-invalid', status: 502 }),
  ]);
  expect(upstream.requests).toHaveLength(requests);
  await eventually(() => upstream.connections.every(({ closed }) => closed));
}

describe('B-29 early hints', () => {
  test.each([1, 3, 10])('B-29 103 passes %d times, with its links alone', async (times) => {
    const one = hints(
      `Link: ${LINK}`,
      'X-Early: 1',
      'Set-Cookie: theme=dark',
      'Server: up',
      'Content-Length: 5',
    );
    const result = await through(one.repeat(times) + OK);
    expect(interim(result)).toBe(`HTTP/1.1 103 Early Hints\r\nlink: ${LINK}\r\n\r\n`.repeat(times));
    expect(result.responses.at(-1)?.body.toString()).toBe('ok');
    expect(result.text).not.toContain('X-Early');
  });

  test.each<[string, string, string]>([
    [
      'several links',
      hints('LINK: </a>; rel=preload, </b>', 'Link: </c>'),
      'link: </a>; rel=preload, </b>\r\nlink: </c>\r\n',
    ],
    ['a value beyond ASCII', hints('Link: </\u00e4>'), 'link: </\u00e4>\r\n'],
  ])('B-29 %s pass byte for byte', async (_what, bytes, lines) => {
    const result = await through(Buffer.from(bytes + OK, 'latin1'));
    expect(interim(result)).toBe(`HTTP/1.1 103 Early Hints\r\n${lines}\r\n`);
  });

  test.each<[string, string]>([
    ['a 103 without a link', hints('X-Early: 1')],
    ['a 102', 'HTTP/1.1 102 Processing\r\nLink: </x>\r\n\r\n'],
    ['a 104', 'HTTP/1.1 104 Upload Resumption Supported\r\nLink: </x>\r\n\r\n'],
    ['a 199', 'HTTP/1.1 199 Who Knows\r\nLink: </x>\r\n\r\n'],
  ])('B-29 %s is no help and does not pass', async (_what, bytes) => {
    const result = await through(bytes + OK);
    expect(interim(result)).toBe('');
    expect(result.responses.map(({ status }) => status)).toEqual([200]);
  });

  test('B-29 a hint is seen before the answer is there', async () => {
    let answer: () => void = () => undefined;
    upstream.handler = (_request, socket) => {
      answer = () => socket.write(OK);
      return hints(`Link: ${LINK}`);
    };
    const connection = await RawConnection.open(c.first.clientPort);
    connection.write(scriptRequest(client, {}));
    await eventually(() => connection.received.toString().endsWith(`link: ${LINK}\r\n\r\n`));
    answer();
    expect((await connection.collect({ answers: 1 })).responses.map(({ status }) => status)).toEqual([
      103, 200,
    ]);
    connection.close();
  });

  test('B-29 with HEAD, with a body, and never in the middle of another answer', async () => {
    const one = hints(`Link: ${LINK}`);
    const head = await through(`${one}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n`, { method: 'HEAD' });
    expect(head.responses.map(({ status }) => status)).toEqual([103, 200]);
    const posted = await through(one + OK, { method: 'POST', headers: ['Content-Length: 2'], body: 'hi' });
    expect(posted.responses.map(({ status }) => status)).toEqual([103, 200]);

    // The second answer, hint and all, is there long before the first one ends.
    upstream.handler = async ({ target }) => {
      if (target === '/api/slow') await sleep(300);
      return one + OK;
    };
    const connection = await RawConnection.open(c.first.clientPort);
    connection.write(
      scriptRequest(client, { target: '/api/slow' }) + scriptRequest(client, { target: '/api/fast' }),
    );
    const { responses } = await connection.collect({ answers: 2, timeout: 5000 });
    connection.close();
    expect(responses.map(({ status }) => status)).toEqual([103, 200, 200]);
  });

  test('B-29 HTTP/1.0 knows no interim answers', async () => {
    const result = await through(hints(`Link: ${LINK}`) + OK, { version: 'HTTP/1.0' });
    expect(interim(result)).toBe('');
    expect(result.responses[0]?.body.toString()).toBe('ok');
  });
});

describe('B-29 interim answers that are not to be had', () => {
  test.each<[string, string]>([
    ['11 hints', hints(`Link: ${LINK}`).repeat(11)],
    ['11 times 102', 'HTTP/1.1 102 Processing\r\n\r\n'.repeat(11)],
    ['11 of several kinds', `${hints()}HTTP/1.1 102 Processing\r\n\r\n${hints().repeat(9)}`],
    ['1,000 hints', hints().repeat(1000)],
    ['a 100 nobody waits for', 'HTTP/1.1 100 Continue\r\n\r\n'],
    [
      'a 101 nobody asked for',
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n',
    ],
    ['a 101 that names no protocol', 'HTTP/1.1 101 Switching Protocols\r\n\r\n'],
    [
      'a 101 to a WebSocket',
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n',
    ],
    [
      'a 101 behind a hint',
      `${hints()}HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n`,
    ],
    ['a hint with a control character', hints('Link: </\x01>')],
    ['a hint with a CR', hints('Link: </x>\rSet-Cookie: a=b')],
    ['a hint without an end', `HTTP/1.1 103 Early Hints\r\n${'Link: </x>\r\n'.repeat(5000)}`],
  ])('B-29 %s: 502, asked once, and no tunnel', async (_what, bytes) => {
    for (const method of ['GET', 'POST']) {
      upstream.clear();
      const result = await through(bytes + OK, {
        method,
        headers: method === 'POST' ? ['Content-Length: 0'] : [],
      });
      await expectInvalid(result);
      expect(result.text).not.toContain('ok');
      expect(result.text.toLowerCase()).not.toMatch(/http\/1\.1 10[012]|upgrade|set-cookie/);
    }
  });

  test('B-29 the first ten hints have passed by then, and the connection serves the next request', async () => {
    upstream.handler = ({ target }) => (target === '/api/x' ? hints(`Link: ${LINK}`).repeat(11) + OK : OK);
    const connection = await RawConnection.open(c.first.clientPort);
    connection.write(scriptRequest(client, {}));
    await connection.collect({ answers: 1 });
    connection.write(scriptRequest(client, { target: '/api/next' }));
    const { responses } = await connection.collect({ answers: 2 });
    connection.close();
    expect(responses.map(({ status }) => status)).toEqual([
      ...Array.from({ length: 10 }, () => 103),
      502,
      200,
    ]);
  });

  test('B-29 nothing a browser sends behind a refused 101 reaches the upstream as another protocol', async () => {
    upstream.handler = ({ target }) =>
      target === '/api/x'
        ? 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n'
        : OK;
    const connection = await RawConnection.open(c.first.clientPort);
    connection.write(scriptRequest(client, { headers: ['Connection: Upgrade', 'Upgrade: x'] }));
    const { responses } = await connection.collect({ answers: 1 });
    connection.write('raw bytes of that protocol');
    await sleep(100);
    connection.close();
    expect(responses.map(({ status }) => status)).toEqual([502]);
    expect(upstream.received.toString()).not.toContain('raw bytes');
  });
});

describe('A-090 trailer fields', () => {
  const chunkedAnswer = (trailers: string, head = ''): string =>
    `HTTP/1.1 200 OK\r\n${head}Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n${trailers}\r\n`;
  const PASSING = 'X-Checksum: abc\r\nServer-Timing: db;dur=5\r\nServer: up\r\nx-checksum: def\r\n';
  const asking = { headers: ['TE: trailers'] };
  const end = (result: RawResult): string => result.text.slice(result.text.indexOf('\r\n\r\n') + 4);

  test('A-090 an answer has them for whoever asked for them, and for nobody else', async () => {
    const asked = await through(chunkedAnswer(PASSING), asking);
    expect(end(asked)).toBe(`2\r\nok\r\n0\r\n${PASSING}\r\n`);
    expect(upstream.requests.at(-1)?.header('te')).toBe('trailers');
    const notAsked = await through(chunkedAnswer(PASSING));
    expect(end(notAsked)).toBe('2\r\nok\r\n0\r\n\r\n');
    expect(upstream.requests.at(-1)?.header('te')).toBeUndefined();
    const bytes = scriptRequest(client, { ...asking, version: 'HTTP/1.0' });
    expect(end(await sendRaw(c.first.clientPort, bytes, { timeout: 5000 }))).toBe('ok');
  });

  test('A-090 what belongs into the head, or never passes, is not among them', async () => {
    const kept = 'X-Checksum: abc\r\n';
    const forbidden = [
      ...['Transfer-Encoding: chunked', 'Trailer: X', 'Keep-Alive: x', 'TE: trailers'],
      ...[
        'Set-Cookie: theme=dark',
        'Set-Cookie: __Host-cloakroom-session=evil; Path=/; Secure',
        'Content-Type: a/b',
      ],
      ...['Content-Encoding: gzip', 'Content-Range: bytes 0-1/2', 'Content-Security-Policy: default-src *'],
      ...[
        'Cache-Control: public',
        'Expires: 0',
        'Age: 1',
        'Vary: *',
        'Date: x',
        'Location: https://evil.example/',
      ],
      ...[
        'WWW-Authenticate: Bearer',
        'Authorization: Bearer x',
        'Access-Control-Allow-Origin: *',
        'X-Powered-By: up',
      ],
      ...['Strict-Transport-Security: max-age=0', 'Clear-Site-Data: "cookies"', 'X-Frame-Options: ALLOWALL'],
      ...['X-Request-Id: theirs', 'Retry-After: 1', 'Refresh: 0', 'Host: evil.example', 'Alt-Svc: h3=":1"'],
    ].map((line) => `${line}\r\n`);
    for (const line of [...forbidden, forbidden.join(''), forbidden.join('').toLowerCase()]) {
      const result = await through(chunkedAnswer(line + kept + line), asking);
      expect([line, end(result)]).toEqual([line, `2\r\nok\r\n0\r\n${kept}\r\n`]);
    }
    const announced = await through(chunkedAnswer(kept, 'Trailer: X-Checksum\r\n'), asking);
    expect(announced.responses[0]?.header('trailer')).toBeUndefined();
  });

  test.each([
    ['a line without a colon', 'nonsense\r\n'],
    ['a space in a name', 'X A: b\r\n'],
    ['a control character', 'X-A: \x01\r\n'],
    ['a NUL', 'X-A: a\0b\r\n'],
    ['a bare CR', 'X-A: a\rX-B: b\r\n'],
    ['another length', 'Content-Length: 5\r\n'],
    ['more than a head may have', 'X-A: aaaaaaaaaa\r\n'.repeat(5000)],
  ])('A-091 %s in them: the answer never ends as if it were whole', async (_what, trailers) => {
    const result = await through(chunkedAnswer(trailers), asking);
    expect(result.responses).toEqual([]);
    expect(['closed', 'reset']).toContain(result.end);
  });

  test('A-090 those of a request stay behind, wherever it asks them to go', async () => {
    await through(OK, {
      method: 'POST',
      headers: ['TE: trailers', 'Trailer: X-Evil', 'Transfer-Encoding: chunked'],
      body: '2\r\nhi\r\n0\r\nX-Evil: 1\r\nAuthorization: Bearer evil\r\n\r\n',
    });
    expect(upstream.requests[0]?.bytes.toString()).toMatch(
      /(length: 2\r\n\r\nhi|chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n)$/,
    );
    expect(upstream.received.toString().toLowerCase()).not.toMatch(/evil|trailer:/);
  });
});
