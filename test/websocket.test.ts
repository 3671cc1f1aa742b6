import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { loginsLast } from './support/over-at-once.js';
import { random } from './support/random.js';
import { sendRaw } from './support/raw.js';
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
          cookies: ['theme'],
        },
        { path: '/api/open/', upstream: upstream.url, websocket: true, token: 'none' },
        { path: '/api/short/', upstream: upstream.url, websocket: { idle: '1s' } },
      ],
    },
  });
  loginsLast(c.provider, 3600);
  client = await c.signedIn();
});

beforeEach(() => {
  upstream.answer = undefined;
  upstream.echoes = true;
});

afterAll(async () => {
  await expectLeftClean(c);
});

const open = (path = '/api/ws/room', options: HandshakeOptions = {}): Promise<BrowserSocket> =>
  BrowserSocket.open(c, client, path, options);

async function closing(socket: BrowserSocket): Promise<void> {
  socket.socket.destroy();
  await eventually(() => upstream.open === 0, { what: 'the upstream to see the end' });
}

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
    await closing(socket);
  });

  test('what is sent in one packet with the handshake arrives behind it', async () => {
    const socket = await open('/api/ws/x', { behind: frame(OPCODES.text, 'early', { mask: true }) });
    await socket.heard('early');
    await closing(socket);
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
    await closing(socket);
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
    await closing(socket);
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
    expect(pinging.closed).toBe(false);
    clearInterval(timer);
    await pinging.ended(5000);
  });

  test('the session may have only so many', async () => {
    const sockets = await Promise.all([open(), open(), open()]);
    expect(sockets.map(({ status }) => status)).toEqual([101, 101, 101]);
    const one = await open();
    expect([one.status, one.headers['retry-after']]).toEqual([429, '1']);
    const [first] = sockets;
    first.socket.destroy();
    await eventually(() => upstream.open === 2);
    expect((await open()).status).toBe(101);
    for (const socket of sockets) socket.socket.destroy();
  });

  test('a listed origin may, and nobody needs to be signed in where the route says so', async () => {
    const listed = await open('/api/ws/x', {
      headers: { origin: 'https://shop.example.test', 'sec-fetch-site': 'same-site' },
    });
    expect(listed.status).toBe(101);
    const nobody = await open('/api/open/x', { headers: { cookie: undefined } });
    expect(nobody.status).toBe(101);
    expect(upstream.last.request.headers.authorization).toBeUndefined();
    await closing(listed);
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
    ['a path without a route', 404, {}, '/nowhere'],
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

  test('on a route that opens none, the request is an ordinary one', async () => {
    const socket = await open('/api/x', { headers: { 'x-csrf': '1' } });
    expect([socket.status, socket.text]).toEqual([200, 'plain']);
    socket.socket.destroy();
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
    ['noise', () => 'noise\r\n\r\n'],
  ];

  test.each(wrong)('%s: 502, no tunnel', async (_name, answer) => {
    upstream.answer = answer;
    const socket = await open();
    expect(socket.status).toBe(502);
    await socket.ended();
    await eventually(() => upstream.open === 0);
  });

  test.each([200, 302, 400, 401, 403, 404, 500, 503])(
    '%i is an HTTP answer, without what must not pass',
    async (status) => {
      upstream.answer = () =>
        `HTTP/1.1 ${String(status)} X\r\nContent-Length: 4\r\nSet-Cookie: own=1\r\nSet-Cookie: theme=dark\r\nServer: secret\r\n\r\nsays`;
      const socket = await open();
      await socket.ended();
      expect([socket.status, socket.text]).toEqual([status, 'says']);
      expect(socket.headers['set-cookie']).toBe('theme=dark');
      expect(socket.headers['server']).toBeUndefined();
      expect(socket.headers['x-content-type-options']).toBe('nosniff');
    },
  );

  test('a reset at any byte of the handshake or of a frame ends the socket, never the process', async () => {
    const { pid } = c.first;
    const whole = (accept: string): string =>
      `HTTP/1.1 101 X\r\n${head}Sec-WebSocket-Accept: ${accept}\r\n\r\n`;
    for (let at = 0; at < whole('x'.repeat(28)).length; at += 3) {
      upstream.answer = (accept) => {
        setImmediate(() => upstream.last.socket.destroy());
        return whole(accept).slice(0, at);
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

  test('frames that break every rule are the business of the two ends', async () => {
    const draw = random('noise');
    for (let i = 0; i < 50; i += 1) {
      const socket = await open();
      socket.socket.write(randomBytes(draw.int(1, 300)));
      upstream.last.socket.write(randomBytes(draw.int(1, 300)));
      if (draw.chance(0.5)) socket.socket.resetAndDestroy();
      else upstream.last.socket.destroy();
      await socket.ended();
    }
    expect((await client.api('/api/x')).status).toBe(200);
    await eventually(() => upstream.open === 0);
  });
});
