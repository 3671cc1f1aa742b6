import { createHash } from 'node:crypto';
import type { Socket } from 'node:net';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { inParallel, type BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { random } from './support/random.js';
import { RawConnection, sendRaw, type RawResult } from './support/raw.js';
import { scriptRequest, type ScriptRequest } from './support/script-request.js';
import { startRawUpstream, type RawAnswer, type RawUpstream } from './support/upstream.js';

const MiB = 1024 * 1024;

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
        { path: '/api/', upstream: upstream.url },
        { path: '/socket/', upstream: upstream.url, websocket: true },
        { path: '/brief/', upstream: upstream.url, timeouts: { firstByte: '1s', idle: '1s' } },
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

async function through(answer: RawAnswer, request: ScriptRequest = {}, timeout = 5000): Promise<RawResult> {
  upstream.handler = () => answer;
  return sendRaw(c.first.port, scriptRequest(client, request), {
    answers: 1,
    timeout,
    head: request.method === 'HEAD',
  });
}

const lines = (result: RawResult, name: string): string[] =>
  (result.responses[0]?.headers ?? [])
    .filter(([one]) => one.toLowerCase() === name)
    .map(([, value]) => value);
const answer = (status: string, headers: string[], body: Buffer | string = ''): Buffer =>
  Buffer.concat([
    Buffer.from(`HTTP/1.1 ${status}\r\n${headers.map((line) => `${line}\r\n`).join('')}\r\n`, 'latin1'),
    Buffer.from(body),
  ]);

describe('A-090 parts and encodings pass as they are', () => {
  test.each<[string, string[], string, string[], string]>([
    ['a part', ['Range: bytes=2-4'], '206 Partial Content', ['Content-Range: bytes 2-4/9'], 'cde'],
    [
      'a part on a condition',
      ['Range: bytes=0-0', 'If-Range: "v1"'],
      '206 Partial Content',
      ['Content-Range: bytes 0-0/9', 'ETag: "v1"'],
      'a',
    ],
    [
      'the whole, as the condition failed',
      ['Range: bytes=0-0', 'If-Range: W/"v0"'],
      '200 OK',
      ['ETag: "v1"'],
      'abcdefghi',
    ],
    [
      'several parts',
      ['Range: bytes=0-0,-1'],
      '206 Partial Content',
      ['Content-Type: multipart/byteranges; boundary=B'],
      '--B\r\nContent-Range: bytes 0-0/9\r\n\r\na\r\n--B--\r\n',
    ],
    ['no such part', ['Range: bytes=99-'], '416 Range Not Satisfiable', ['Content-Range: bytes */9'], ''],
    ['a range nobody can read', ['Range: lines=1-2'], '200 OK', ['Accept-Ranges: bytes'], 'abc'],
    ['nothing new', ['If-None-Match: "v1", W/"v0"'], '304 Not Modified', ['ETag: "v1"'], ''],
    ['a failed condition', ['If-Match: "v0"'], '412 Precondition Failed', [], 'no'],
  ])('A-090 %s', async (_what, asked, status, told, body) => {
    const length = status.startsWith('304') ? [] : [`Content-Length: ${String(body.length)}`];
    const result = await through(answer(status, [...told, ...length], body), { headers: asked });
    expect(result.responses[0]?.statusLine).toBe(`HTTP/1.1 ${status}`);
    for (const line of asked) expect(upstream.requests[0]?.head.toLowerCase()).toContain(line.toLowerCase());
    for (const line of [...told, ...length]) {
      const [name = '', value = ''] = line.split(/: /);
      expect(lines(result, name.toLowerCase())).toEqual([value]);
    }
    expect(result.responses[0]?.body.toString()).toBe(body);
  });

  test('A-090 an encoded body arrives byte for byte, asked for in the words of the browser or not at all', async () => {
    const plain = Buffer.from(random('encoded').bytes(3000).toString('hex'));
    const bodies: [string, Buffer][] = [
      ['gzip', gzipSync(plain)],
      ['br', brotliCompressSync(plain)],
      ['zstd', random('zstd').bytes(1000)],
      ['gzip, br', brotliCompressSync(gzipSync(plain))],
    ];
    for (const [encoding, body] of bodies) {
      for (const chunked of [false, true]) {
        const framed = chunked
          ? Buffer.concat([
              Buffer.from(`${body.length.toString(16)}\r\n`),
              body,
              Buffer.from('\r\n0\r\n\r\n'),
            ])
          : body;
        const framing = chunked ? 'Transfer-Encoding: Chunked' : `Content-Length: ${String(body.length)}`;
        const result = await through(answer('200 OK', [`Content-Encoding: ${encoding}`, framing], framed), {
          headers: ['Accept-Encoding: br;q=1.0, zstd, gzip;q=0.2, *;q=0'],
        });
        expect(lines(result, 'content-encoding')).toEqual([encoding]);
        expect(result.responses[0]?.body.equals(body)).toBe(true);
        expect(upstream.requests.at(-1)?.header('accept-encoding')).toBe('br;q=1.0, zstd, gzip;q=0.2, *;q=0');
      }
    }
    await through(answer('200 OK', ['Content-Length: 0']));
    expect(upstream.requests.at(-1)?.header('accept-encoding')).toBeUndefined();
  });

  test('A-090 an encoded upload arrives byte for byte', async () => {
    const body = gzipSync('upload '.repeat(1000));
    upstream.handler = () => answer('204 No Content', []);
    const response = await client.api('/api/x', {
      method: 'PUT',
      body,
      headers: { 'content-encoding': 'gzip', 'content-type': 'application/json' },
    });
    expect(response.status).toBe(204);
    const seen = upstream.requests.at(-1);
    expect([seen?.header('content-encoding'), seen?.header('content-length')]).toEqual([
      'gzip',
      String(body.length),
    ]);
    expect(seen?.body.equals(body)).toBe(true);
  });
});

describe('B-26 an upstream that is slow to its first byte', () => {
  test('B-26 504 at the limit, and the request there is aborted, whatever it began with', async () => {
    const body = { method: 'POST', headers: ['Content-Length: 5'], body: 'hello' };
    const ways: Record<string, { request?: ScriptRequest; bytes: string }> = {
      silence: { bytes: '' },
      'silence-behind-a-body': { request: body, bytes: '' },
      'half-a-head': { bytes: 'HTTP/1.1 200 OK\r\nX-A: ' },
      'a-hint': { bytes: 'HTTP/1.1 103 Early Hints\r\n\r\n' },
    };
    upstream.handler = ({ target }) => ways[target.slice('/brief/'.length)]?.bytes;
    await Promise.all(
      Object.entries(ways).map(async ([name, { request }]) => {
        const began = performance.now();
        const bytes = scriptRequest(client, { ...request, target: `/brief/${name}` });
        const { responses } = await sendRaw(c.first.port, bytes, { answers: 1, timeout: 15_000 });
        expect(performance.now() - began).toBeGreaterThan(900);
        expect([name, responses.map(({ status }) => status)]).toEqual([name, [504]]);
        expect(responses[0]?.body.toString()).toContain('"upstream-timeout"');
      }),
    );
    await eventually(() => upstream.connections.every(({ closed }) => closed), { timeout: 2000 });
    expect(upstream.requests.map(({ target }) => target.slice('/brief/'.length)).sort()).toEqual(
      Object.keys(ways).sort(),
    );
  });
});

describe('B-27 an answer that is cut off at any byte', () => {
  const HEAD = 'HTTP/1.1 200 OK\r\nX-A: b\r\n';
  const FORMS: Record<string, string> = {
    length: `${HEAD}Content-Length: 12\r\n\r\nhello, world`,
    chunks: `${HEAD}Transfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n7\r\n, world\r\n0\r\nX-T: 1\r\n\r\n`,
  };
  const bodyAt = (form: string): number => form.indexOf('\r\n\r\n') + 4;

  test.each(Object.keys(FORMS).flatMap((form) => [[form, 'end'] as const, [form, 'reset'] as const]))(
    'B-27 of an answer by %s, by %s: never ends cleanly, its connection is not used again',
    async (form, close) => {
      const whole = FORMS[form] ?? '';
      upstream.handler = ({ target }) => ({ bytes: whole.slice(0, Number(target.slice(9))), close });
      const offsets = Array.from({ length: whole.length }, (_, at) => at).filter(
        (at) => at % 5 === 0 || at >= bodyAt(whole) - 3,
      );
      const seen = await inParallel(
        offsets.map((at) => async () => {
          const bytes = scriptRequest(client, {
            target: `/api/cut/${String(at)}`,
            headers: ['TE: trailers'],
          });
          return [at, await sendRaw(c.first.port, bytes, { answers: 1, timeout: 5000 })] as const;
        }),
        8,
      );
      for (const [at, result] of seen) {
        const inHead = at < bodyAt(whole);
        const statuses = result.responses.map(({ status }) => status);
        if (inHead) expect([at, statuses]).toEqual([at, [502]]);
        // A reset may overtake what was sent before it.
        else if (close === 'reset' && statuses.length > 0) expect([at, statuses]).toEqual([at, [502]]);
        else expect([at, statuses, ['closed', 'reset'].includes(result.end)]).toEqual([at, [], true]);
      }
      expect(offsets.length).toBeGreaterThan(20);
      // Each had a connection to itself; only what had no answer at all was asked again.
      const times = (at: number): number =>
        upstream.requests.filter(({ target }) => target === `/api/cut/${String(at)}`).length;
      expect(times(0)).toBe(2);
      if (close === 'end') expect(offsets.slice(1).map(times)).toEqual(offsets.slice(1).map(() => 1));
      for (const { requests } of upstream.connections) expect(requests.length).toBeLessThanOrEqual(1);
      await eventually(() => upstream.connections.every(({ closed }) => closed));
    },
  );
});

describe('B-28 an answer without an end', () => {
  const BLOCK = Buffer.alloc(64 * 1024, 'cloakroom ');

  function pour(socket: Socket): void {
    const chunk = Buffer.concat([
      Buffer.from(`${BLOCK.length.toString(16)}\r\n`),
      BLOCK,
      Buffer.from('\r\n'),
    ]);
    const more = (): void => {
      while (!socket.destroyed && socket.write(chunk));
    };
    socket.on('drain', more);
    more();
  }

  test('B-28 streams with flat memory, and the request ends when the browser leaves', async () => {
    upstream.handler = (_request, socket) => {
      setImmediate(pour, socket);
      return 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n';
    };
    const response = await client.open('/api/x');
    let received = 0;
    let most = 0;
    let before = 0;
    const hash = createHash('sha256');
    for await (const chunk of response.stream as AsyncIterable<Buffer>) {
      hash.update(chunk);
      if (received < 64 * MiB && received + chunk.length >= 64 * MiB) before = c.first.memory();
      received += chunk.length;
      if (before > 0 && received % 16 === 0) most = Math.max(most, c.first.memory());
      if (received > 192 * MiB) break;
    }
    response.abort();
    const left = performance.now();
    await eventually(() => upstream.connections.every(({ closed }) => closed), {
      timeout: 5000,
      interval: 10,
    });
    expect(performance.now() - left).toBeLessThan(1000);
    expect(Math.max(most, c.first.memory()) - before).toBeLessThan(64 * MiB);
  });

  test('B-28 one that drips is not cut while it drips, and ends when the browser leaves', async () => {
    upstream.handler = (_request, socket) => {
      const drip = setInterval(() => socket.write('1\r\n.\r\n'), 50);
      socket.once('close', () => {
        clearInterval(drip);
      });
      return 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n';
    };
    const connection = await RawConnection.open(c.first.port);
    connection.write(scriptRequest(client, { target: '/brief/x' }));
    await eventually(() => connection.received.toString().split('1\r\n.').length > 50, { timeout: 20_000 });
    expect(connection.open).toBe(true);
    connection.close();
    const left = performance.now();
    await eventually(() => upstream.connections.every(({ closed }) => closed), {
      timeout: 5000,
      interval: 10,
    });
    expect(performance.now() - left).toBeLessThan(1000);
  });

  test("B-28 one that stops is cut at the route's limit", async () => {
    const result = await through(
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n',
      { target: '/brief/x' },
      15_000,
    );
    expect(result.responses).toEqual([]);
    expect(['closed', 'reset']).toContain(result.end);
    await eventually(() => upstream.connections.every(({ closed }) => closed));
  });
});

describe('B-30 answers that nobody should take for one', () => {
  const ok = (...more: string[]): Buffer => answer('200 OK', [...more, 'Content-Length: 2'], 'ok');

  test.each<[string, string | Buffer]>([
    ['a length twice', ok('Content-Length: 2')],
    ['a length twice, different', ok('Content-Length: 3')],
    ['a length as a list', answer('200 OK', ['Content-Length: 2, 2'], 'ok')],
    ['a length with a plus', answer('200 OK', ['Content-Length: +2'], 'ok')],
    ['a negative length', answer('200 OK', ['Content-Length: -2'], 'ok')],
    ['a hexadecimal length', answer('200 OK', ['Content-Length: 0x2'], 'ok')],
    ['an empty length', answer('200 OK', ['Content-Length:'], 'ok')],
    ['a length beyond 2^64', answer('200 OK', ['Content-Length: 99999999999999999999999'], 'ok')],
    ['a length and chunks', ok('Transfer-Encoding: chunked')],
    [
      'chunks and a length',
      answer('200 OK', ['Content-Length: 2', 'Transfer-Encoding: chunked'], '2\r\nok\r\n0\r\n\r\n'),
    ],
    ['chunks, encoded', answer('200 OK', ['Transfer-Encoding: gzip, chunked'], '2\r\nok\r\n0\r\n\r\n')],
    ['another coding', answer('200 OK', ['Transfer-Encoding: gzip'], 'ok')],
    ['chunks twice', answer('200 OK', ['Transfer-Encoding: chunked, chunked'], '2\r\nok\r\n0\r\n\r\n')],
    [
      'chunks on two lines',
      answer('200 OK', ['Transfer-Encoding: chunked', 'Transfer-Encoding: chunked'], '2\r\nok\r\n0\r\n\r\n'),
    ],
    [
      'chunks with a space before the colon',
      answer('200 OK', ['Transfer-Encoding : chunked'], '2\r\nok\r\n0\r\n\r\n'),
    ],
    ['a coding that is none', answer('200 OK', ['Transfer-Encoding: xchunked'], 'ok')],
    ['a folded line', answer('200 OK', ['X-A: b', ' c', 'Content-Length: 2'], 'ok')],
    ['lines that end by LF alone', 'HTTP/1.1 200 OK\nX-A: b\nContent-Length: 2\n\nok'],
    ['a status line that ends by CR alone', 'HTTP/1.1 200 OK\rContent-Length: 2\r\n\r\nok'],
    ['a header of 20 KB', ok(`X-A: ${'a'.repeat(20_000)}`)],
    ['2,000 headers', ok(...Array.from({ length: 2000 }, (_, n) => `X-${String(n)}: aaaaaaaaaa`))],
    ['HTTP/2', 'HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok'],
    ['HTTP/1.2', 'HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nok'],
    ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
    ['a status of two digits', 'HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nok'],
    ['a status of four digits', 'HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok'],
    ['a status of nothing', 'HTTP/1.1  OK\r\nContent-Length: 2\r\n\r\nok'],
    ['a request', 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'],
    ['TLS', Buffer.from('15030100020228', 'hex')],
    ['noise', random('noise').bytes(300)],
  ])('B-30 %s: 502 or cut off, once, and the connection is closed', async (_what, bytes) => {
    // With effects, so that nothing but the first attempt may be seen.
    const result = await through(bytes, { method: 'POST', headers: ['Content-Length: 2'], body: 'hi' });
    expect(result.responses.map(({ status }) => status)).toEqual([502]);
    expect(result.responses[0]?.body.toString()).toContain('"upstream-invalid"');
    expect(upstream.requests).toHaveLength(1);
    await eventually(() => upstream.connections.every(({ closed }) => closed));
    expect((await through(ok())).responses[0]?.body.toString()).toBe('ok');
  });

  test.each<[string, string, string]>([
    ['plain words', 'Fine, thanks', 'Fine, thanks'],
    ['no words', '', 'OK'],
    ['a NUL', 'O\0K', 'OK'],
    ['an escape', '\x1b[2J', 'OK'],
    ['letters beyond ASCII', 'J\u00e4', 'OK'],
    ['UTF-8', Buffer.from('\u20ac').toString('latin1'), 'OK'],
  ])(
    'B-30 %s behind the status: the answer passes, with words that can be written',
    async (_what, said, passed) => {
      const bytes = Buffer.from(`HTTP/1.1 200 ${said}\r\nContent-Length: 2\r\n\r\nok`, 'latin1');
      const result = await through(bytes);
      expect([result.responses[0]?.statusLine, result.responses[0]?.body.toString()]).toEqual([
        `HTTP/1.1 200 ${passed}`,
        'ok',
      ]);
      const handshake = await through(Buffer.from(bytes.toString('latin1').replace('200', '403'), 'latin1'), {
        target: '/socket/x',
        headers: [
          ...['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'],
          'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
        ],
      });
      expect(handshake.responses[0]?.statusLine).toBe(
        `HTTP/1.1 403 ${passed === 'OK' ? 'Forbidden' : passed}`,
      );
    },
  );

  test.each<[string, string, number]>([
    ['a 204 with a body', 'HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil', 204],
    ['a 304 with a body', 'HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil', 304],
    ['more than its length', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokevil', 200],
    [
      'a second answer',
      'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil',
      200,
    ],
  ])("B-30 %s: what is too much is nobody's answer", async (_what, bytes, status) => {
    const evil = await through(bytes);
    expect(evil.text).not.toContain('evil');
    for (const one of evil.responses) expect(one.status).toBe(status);
    for (let round = 0; round < 3; round += 1) {
      const next = await through(answer('200 OK', ['Content-Length: 2'], 'ok'));
      expect(next.responses.map((one) => one.body.toString())).toEqual(['ok']);
    }
  });
});
