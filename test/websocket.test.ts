import { randomBytes } from 'node:crypto';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { loginsLast } from './support/over-at-once.js';
import { random } from './support/random.js';
import { RawConnection, sendRaw } from './support/raw.js';
import { reset } from './support/reset.js';
import { scriptRequest, sessionPair } from './support/script-request.js';
import {
  BrowserSocket,
  frame,
  OPCODES,
  WebSocketUpstream,
  type HandshakeOptions,
} from './support/web-socket.js';

let c: Cloakroom;
let upstream: WebSocketUpstream;
let client: BrowserClient;

beforeAll(async () => {
  upstream = await WebSocketUpstream.start();
  c = await startCloakroom({
    replicas: 2,
    upstream,
    config: {
      cors: { origins: ['https://shop.example.test'] },
      routes: [
        { path: '/api/', upstream: upstream.url },
        {
          path: '/api/ws/',
          upstream: `${upstream.url}/inner/`,
          websocket: { perSession: 3 },
          cookies: ['theme', 'size'],
        },
        {
          path: '/api/away/',
          upstream: 'http://127.0.0.1:1',
          websocket: true,
        },
        {
          path: '/api/slow/',
          upstream: upstream.url,
          websocket: true,
          timeouts: { connect: '100ms', firstByte: '200ms' },
        },
        { path: '/api/open/', upstream: upstream.url, websocket: true, token: 'none' },
        { path: '/api/short/', upstream: upstream.url, websocket: { idle: '1s' } },
      ],
    },
  });
  loginsLast(c.provider, 3600);
  client = await c.signedIn();
});

const opened: BrowserSocket[] = [];

async function open(path = '/api/ws/room', options: HandshakeOptions = {}): Promise<BrowserSocket> {
  const socket = await BrowserSocket.open(c, client, path, options);
  opened.push(socket);
  return socket;
}

afterEach(async () => {
  for (const { socket } of opened.splice(0)) socket.destroy();
  await eventually(() => upstream.open === 0, { what: 'the upstream to be rid of all' });
  upstream.sockets.length = 0;
  upstream.answer = undefined;
  upstream.echoes = true;
});

afterAll(async () => {
  expect(c.replicas.map(({ stderr }) => stderr)).toEqual(['', '']);
  await expectLeftClean(c);
});

describe('A-093 a WebSocket', () => {
  test('is joined to the upstream: messages pass both ways, with the token in the handshake and nowhere else', async () => {
    const socket = await open('/api/ws/room?id=7', { headers: { 'sec-websocket-protocol': 'chat, other' } });
    expect(socket.status).toBe(101);
    const { request } = upstream.last;
    expect(request.url).toBe('/inner/room?id=7');
    const bearer = request.headers.authorization?.slice('Bearer '.length) ?? '';
    expect(c.provider.ledger.validAccessToken(bearer)?.sub).toBeDefined();
    expect(request.headers).toMatchObject({
      connection: 'Upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': socket.key,
      'sec-websocket-protocol': 'chat, other',
      origin: c.publicUrl,
      'x-forwarded-proto': 'https',
    });
    expect(request.headers.cookie).toBeUndefined();
    expect(request.rawHeaders.join('\n')).not.toContain(sessionPair(client).slice(-40));
    socket.send(OPCODES.text, 'hello');
    await socket.heard('hello');
    expect(upstream.last.texts).toEqual(['hello']);
    expect(upstream.last.reader.frames.every(({ masked }) => masked)).toBe(true);
  });

  test('what is sent in one packet with the handshake arrives behind it', async () => {
    const socket = await open('/api/ws/x', { behind: frame(OPCODES.text, 'early', { mask: true }) });
    await socket.heard('early');
  });

  test('compressed, fragmented, empty and large frames pass untouched', async () => {
    upstream.answer = (accept) =>
      `HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Extensions: permessage-deflate\r\nSec-WebSocket-Protocol: chat\r\n\r\n`;
    const socket = await open('/api/ws/x', {
      headers: {
        'sec-websocket-extensions': 'permessage-deflate; client_max_window_bits',
        'sec-websocket-protocol': 'chat',
      },
    });
    expect(socket.headers).toMatchObject({
      'sec-websocket-extensions': 'permessage-deflate',
      'sec-websocket-protocol': 'chat',
    });
    const draw = random('frames');
    const sent: Array<{ opcode: number; payload: Buffer; fin: boolean; compressed: boolean }> = [];
    for (let i = 0; i < 200; i += 1) {
      const length = draw.pick([0, 1, 2, 125, 126, 127, 1000, 65_535, 65_536, 70_000]);
      sent.push({
        opcode: draw.pick([0, 1, 2]),
        payload: randomBytes(length),
        fin: draw.chance(0.5),
        compressed: draw.chance(0.5),
      });
    }
    for (const { opcode, payload, ...rest } of sent) socket.send(opcode, payload, rest);
    await eventually(() => socket.frames.length === sent.length, { timeout: 20_000 });
    for (const [i, { payload, ...rest }] of sent.entries()) {
      const got = socket.frames[i];
      expect({ opcode: got?.opcode, fin: got?.fin, compressed: got?.compressed }).toEqual(rest);
      expect(got?.payload.equals(payload)).toBe(true);
    }
  });

  test('a reader that does not read slows the sender down, and loses nothing', async () => {
    upstream.echoes = false;
    const socket = await open();
    const before = c.replica(0).memory();
    socket.socket.pause();
    const piece = randomBytes(1024 * 1024);
    let written = 0;
    const { socket: end } = upstream.last;
    while (written < 256 && end.writableLength < 8 * piece.length) {
      upstream.last.send(OPCODES.binary, piece);
      written += 1;
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    expect(written).toBeLessThan(256);
    expect(c.replica(0).memory() - before).toBeLessThan(64 * 1024 * 1024);
    socket.socket.resume();
    await eventually(() => socket.frames.length === written, { timeout: 20_000 });
    expect(socket.frames.every(({ payload }) => payload.equals(piece))).toBe(true);
  });

  test('either side may close: the other hears the code', async () => {
    const socket = await open();
    socket.send(OPCODES.close, Buffer.from([0x03, 0xe8]));
    await socket.ended();
    expect(socket.closing).toEqual([1000, '']);
    await eventually(() => upstream.open === 0);
    const again = await open();
    upstream.last.send(OPCODES.close, Buffer.concat([Buffer.from([0x0f, 0xa0]), Buffer.from('enough')]));
    upstream.last.socket.end();
    await again.ended();
    expect(again.closing).toEqual([4000, 'enough']);
  });

  test('one that falls silent is cut after the route’s idle time, and pings count', async () => {
    const silent = await open('/api/short/x');
    const pinging = await open('/api/short/x');
    const timer = setInterval(() => pinging.send(OPCODES.ping, ''), 200);
    await silent.ended(5000);
    expect(silent.closing).toEqual([1001, 'idle']);
    expect(pinging.closed).toBe(false);
    clearInterval(timer);
    await pinging.ended(5000);
  });

  test('the session may have only so many', async () => {
    const sockets = await Promise.all([open(), open(), open()]);
    expect(sockets.map(({ status }) => status)).toEqual([101, 101, 101]);
    const one = await open();
    expect([one.status, one.headers['retry-after']]).toEqual([429, '1']);
    sockets[0].socket.destroy();
    await eventually(() => upstream.open === 2);
    expect((await open()).status).toBe(101);
  });

  test('the token is renewed for the handshake where it is over', async () => {
    loginsLast(c.provider, 0.001);
    const late = await c.signedIn({ user: 'late' });
    loginsLast(c.provider, 3600);
    const before = c.provider.ledger.count('refresh');
    const socket = await BrowserSocket.open(c, late, '/api/ws/x');
    opened.push(socket);
    expect(socket.status).toBe(101);
    expect(c.provider.ledger.count('refresh')).toBe(before + 1);
    const bearer = upstream.last.request.headers.authorization?.slice('Bearer '.length) ?? '';
    expect(c.provider.ledger.validAccessToken(bearer)?.sub).toBe('late');
  });

  test('a listed origin may, and nobody needs to be signed in where the route says so', async () => {
    const listed = await open('/api/ws/x', {
      headers: { origin: 'https://shop.example.test', 'sec-fetch-site': 'same-site' },
    });
    expect(listed.status).toBe(101);
    const nobody = await open('/api/open/x', { headers: { cookie: undefined } });
    expect(nobody.status).toBe(101);
    expect(upstream.last.request.headers.authorization).toBeUndefined();
  });
});

describe('A-093 a handshake that must not pass', () => {
  const refused: Array<[string, number, HandshakeOptions, string?]> = [
    ['a foreign origin', 403, { headers: { origin: 'https://evil.example' } }],
    ['a look-alike of ours', 403, { headers: { origin: 'https://app.example.test.evil.example' } }],
    ['ours in http', 403, { headers: { origin: 'http://app.example.test' } }],
    ['ours with another port', 403, { headers: { origin: 'https://app.example.test:8443' } }],
    ['ours with a dot behind', 403, { headers: { origin: 'https://app.example.test.' } }],
    ['a sibling', 403, { headers: { origin: 'https://other.example.test' } }],
    ['the origin null', 403, { headers: { origin: 'null' } }],
    ['an empty origin', 403, { headers: { origin: '' } }],
    ['no origin', 403, { headers: { origin: undefined } }],
    ['no origin, but X-CSRF', 403, { headers: { origin: undefined, 'x-csrf': '1' } }],
    ['another site, as the browser says', 403, { headers: { 'sec-fetch-site': 'cross-site' } }],
    ['another sub-domain, as the browser says', 403, { headers: { 'sec-fetch-site': 'same-site' } }],
    ['nobody signed in', 401, { headers: { cookie: undefined } }],
    ['a forged cookie', 401, { headers: { cookie: '__Host-cloakroom-session=s%3Aforged.forged' } }],
    ['POST', 400, { method: 'POST' }],
    ['HTTP/1.0', 400, { version: 'HTTP/1.0' }],
    ['version 8', 400, { headers: { 'sec-websocket-version': '8' } }],
    ['version 14', 400, { headers: { 'sec-websocket-version': '14' } }],
    ['no version', 400, { headers: { 'sec-websocket-version': undefined } }],
    ['two versions', 400, { headers: { 'sec-websocket-version': '13, 8' } }],
    ['no key', 400, { headers: { 'sec-websocket-key': undefined } }],
    ['an empty key', 400, { headers: { 'sec-websocket-key': '' } }],
    ['a short key', 400, { headers: { 'sec-websocket-key': 'c2hvcnQ=' } }],
    ['a long key', 400, { headers: { 'sec-websocket-key': randomBytes(17).toString('base64') } }],
    ['a key that is no Base64', 400, { headers: { 'sec-websocket-key': '!!!!!!!!!!!!!!!!!!!!!!==' } }],
    ['a key with bits to spare', 400, { headers: { 'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAB==' } }],
    ['a body of a length', 400, { headers: { 'content-length': '5' } }],
    ['a chunked body', 400, { headers: { 'transfer-encoding': 'chunked' } }],
    ['protocols that are no tokens', 400, { headers: { 'sec-websocket-protocol': 'a b' } }],
    ['an empty list of protocols', 400, { headers: { 'sec-websocket-protocol': ',' } }],
    ['a path with an escaped slash', 400, {}, '/api/ws/%2f'],
    ['a path with dots', 400, {}, '/api/ws/../x'],
    ['two hosts', 400, { headers: { Host: 'app.example.test' } }],
  ];

  test.each(refused)(
    '%s: %i, and nothing reaches the upstream',
    async (_name, status, options, path = '/api/ws/x') => {
      const before = upstream.sockets.length;
      const socket = await open(path, options);
      expect(socket.status).toBe(status);
      await socket.ended();
      expect(upstream.sockets).toHaveLength(before);
      expect((await client.api('/api/x')).status).toBe(200);
    },
  );

  test.each([
    ['an event stream, which nobody would end with the session,', 'Content-Type: text/event-stream'],
    ['a body in another coding than chunks', 'Transfer-Encoding: gzip, chunked'],
  ])('A-094 %s in answer to a handshake is 502', async (_name, line) => {
    upstream.answer = () => `HTTP/1.1 200 OK\r\n${line}\r\n\r\ndata: 1\n\n`;
    const socket = await open();
    expect([socket.status, socket.problem]).toEqual([502, 'upstream-invalid']);
    await eventually(() => upstream.open === 0, { what: 'the upstream to be rid of it' });
  });

  test('on a route that opens none, the request is an ordinary one', async () => {
    const socket = await open('/api/x', { headers: { 'x-csrf': '1' } });
    expect([socket.status, socket.text]).toEqual([200, 'plain']);
    socket.socket.destroy();
  });

  test('a path without a route is 404', async () => {
    expect((await open('/nowhere')).status).toBe(404);
  });

  test('requests before it on the connection are answered first', async () => {
    const lines = { target: '/api/x' };
    const handshake = scriptRequest(client, {
      target: '/api/ws/x',
      headers: [
        'Connection: Upgrade',
        'Upgrade: websocket',
        'Sec-WebSocket-Version: 13',
        'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==',
      ],
    });
    const bytes = scriptRequest(client, lines) + scriptRequest(client, lines) + handshake;
    const { text } = await sendRaw(c.first.clientPort, bytes, { answers: 3, timeout: 1000 });
    expect(text.match(/HTTP\/1.1 \d+/g)).toEqual(['HTTP/1.1 200', 'HTTP/1.1 200', 'HTTP/1.1 101']);
  });

  test('a connection that asks for another protocol again and again is served each time', async () => {
    const request = scriptRequest(client, {
      target: '/api/ws/x',
      headers: ['Connection: Upgrade', 'Upgrade: h2c'],
    });
    const { responses } = await sendRaw(c.first.clientPort, request.repeat(30), {
      answers: 30,
      timeout: 10_000,
    });
    expect(responses.map(({ status }) => status)).toEqual(Array.from({ length: 30 }, () => 200));
  });

  test('another protocol than WebSocket is not switched to: the request is served, and so is the next on its connection', async () => {
    const request = scriptRequest(client, {
      target: '/api/ws/x',
      method: 'POST',
      headers: [
        'Connection: Upgrade, HTTP2-Settings',
        'Upgrade: h2c',
        'HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA',
        'Content-Length: 5',
      ],
      body: 'hello',
    });
    const next = scriptRequest(client, { target: '/api/ws/y' });
    const { responses } = await sendRaw(c.first.clientPort, request + next, { answers: 2, timeout: 5000 });
    expect(responses.map(({ status }) => status)).toEqual([200, 200]);
  });
});

describe('A-093 an upstream that does not answer as it should', () => {
  const head = 'Connection: Upgrade\r\nUpgrade: websocket\r\n';
  const right = (accept: string): string =>
    `HTTP/1.1 101 X\r\n${head}Sec-WebSocket-Accept: ${accept}\r\n\r\n`;
  const interim = (times: number): string => 'HTTP/1.1 102 Wait\r\n\r\n'.repeat(times);
  const wrong: Array<[string, (accept: string) => string]> = [
    [
      'another accept key',
      () => `HTTP/1.1 101 X\r\n${head}Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n`,
    ],
    ['no accept key', () => `HTTP/1.1 101 X\r\n${head}\r\n`],
    [
      'another protocol',
      (accept) =>
        `HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
    ],
    [
      'a subprotocol that nobody offered',
      (accept) =>
        `HTTP/1.1 101 X\r\n${head}Sec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n`,
    ],
    [
      'an extension that nobody offered',
      (accept) =>
        `HTTP/1.1 101 X\r\n${head}Sec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n`,
    ],
    ['101 without a word of what to switch to', () => 'HTTP/1.1 101 X\r\n\r\n'],
    ['eleven interim answers', (accept) => interim(11) + right(accept)],
    ['an accept key twice', (accept) => right(accept).replace(/(Sec-.*\r\n)/, '$1$1')],
    [
      'a length and chunks',
      () => 'HTTP/1.1 200 X\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0',
    ],
    ['headers without an end', () => `HTTP/1.1 101 X\r\n${'A: b\r\n'.repeat(10_000)}\r\n`],
    ['noise', () => 'noise\r\n\r\n'],
  ];

  test.each(wrong)('%s: 502, no tunnel', async (_name, answer) => {
    upstream.answer = answer;
    const socket = await open();
    expect([socket.status, socket.problem]).toEqual([502, 'upstream-invalid']);
    await socket.ended();
  });

  test('ten interim answers may come first', async () => {
    upstream.answer = (accept) => interim(10) + right(accept);
    expect((await open()).status).toBe(101);
  });

  test('one that is not there: 502; one that does not answer: 504', async () => {
    const away = await open('/api/away/x');
    expect([away.status, away.problem]).toEqual([502, 'upstream-unreachable']);
    upstream.answer = () => '';
    const slow = await open('/api/slow/x');
    expect([slow.status, slow.problem]).toEqual([504, 'upstream-timeout']);
    await slow.ended();
  });

  test('refused and failed handshakes take no place of the session', async () => {
    upstream.answer = () => 'HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n';
    for (let i = 0; i < 5; i += 1) expect((await open()).status).toBe(403);
    upstream.answer = undefined;
    expect((await open()).status).toBe(101);
  });

  test.each([200, 302, 400, 401, 403, 404, 500, 503])(
    '%i is an HTTP answer, without what must not pass',
    async (status) => {
      upstream.answer = () =>
        `HTTP/1.1 ${String(status)} X\r\nContent-Length: 4\r\nSet-Cookie: own=1\r\nSet-Cookie: theme=dark\r\nSet-Cookie: size=1\r\nServer: secret\r\n\r\nsays`;
      const socket = await open();
      await socket.ended();
      expect([socket.status, socket.text]).toEqual([status, 'says']);
      expect(socket.lines.filter((line) => /^set-cookie/i.test(line))).toEqual([
        'Set-Cookie: theme=dark',
        'Set-Cookie: size=1',
      ]);
      expect(socket.headers['server']).toBeUndefined();
      expect(socket.headers['x-content-type-options']).toBe('nosniff');
    },
  );

  test('a reset at any byte of the handshake or of a frame ends the socket, never the process', async () => {
    const { pid } = c.first;
    for (let at = 0; at < right('x'.repeat(28)).length; at += 3) {
      upstream.answer = (accept) => {
        setImmediate(() => upstream.last.socket.destroy());
        return right(accept).slice(0, at);
      };
      const socket = await open();
      await socket.ended();
      expect([0, 101, 502]).toContain(socket.status);
    }
    upstream.answer = undefined;
    upstream.echoes = false;
    const bytes = frame(OPCODES.text, 'a message that is broken off');
    for (let at = 0; at < bytes.length; at += 1) {
      const socket = await open();
      upstream.last.socket.write(bytes.subarray(0, at));
      upstream.last.socket.destroy();
      await socket.ended();
    }
    expect(c.first.pid).toBe(pid);
    expect((await client.api('/api/x')).status).toBe(200);
  });

  test('a browser that leaves at any byte of its handshake or of a frame leaves nothing behind', async () => {
    const { head: bytes } = BrowserSocket.handshake(client, '/api/ws/x');
    for (let at = 0; at <= bytes.length; at += 20) {
      const raw = await RawConnection.open(c.first.clientPort);
      raw.write(bytes.subarray(0, at));
      if (at % 40 === 0) raw.reset();
      else raw.end();
    }
    const message = frame(OPCODES.text, 'a message that is broken off', { mask: true });
    for (let at = 0; at < message.length; at += 3) {
      const socket = await open();
      socket.socket.write(message.subarray(0, at));
      await eventually(() => upstream.last.reader.pending === at);
      if (at % 2 === 0) reset(socket.socket);
      else socket.socket.end();
      await eventually(() => upstream.open === 0);
    }
  });

  test('frames that break every rule are the business of the two ends', async () => {
    const draw = random('noise');
    for (let i = 0; i < 50; i += 1) {
      const socket = await open();
      socket.socket.write(randomBytes(draw.int(1, 300)));
      upstream.last.socket.write(randomBytes(draw.int(1, 300)));
      if (draw.chance(0.5)) reset(socket.socket);
      else upstream.last.socket.destroy();
      await socket.ended();
    }
    expect((await client.api('/api/x')).status).toBe(200);
  });
});
