import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { loginsLast } from './support/over-at-once.js';
import { RawConnection } from './support/raw.js';
import { withRoutes } from './support/routes.js';
import { scriptRequest } from './support/script-request.js';
import { frame, OPCODES, WebSocketUpstream } from './support/web-socket.js';

const MiB = 1024 * 1024;
const PROTOCOLS = ['websocket', 'h2c'];

let c: Cloakroom;
let client: BrowserClient;
let sockets: WebSocketUpstream;

beforeAll(async () => {
  sockets = await WebSocketUpstream.start();
  c = await startCloakroom({
    replicas: 1,
    config: withRoutes(
      (upstream) => [
        { path: '/api/', upstream, limits: { parallel: 4 }, timeouts: { firstByte: '10m' } },
        { path: '/ws/', upstream: sockets.url, websocket: true },
        { path: '/plain/', upstream, websocket: true },
      ],
      { shutdown: { delay: '0s', drain: '500ms' } },
    ),
  });
  loginsLast(c.provider, 3600);
  client = await c.signedIn();
});

beforeEach(() => {
  c.upstream.clear();
});

afterAll(async () => {
  expect(c.first.stderr).toBe('');
  await expectLeftClean(c);
});

const get = (target: string): string => scriptRequest(client, { target });
const asking = (protocol: string, target = '/ws/x'): string =>
  scriptRequest(client, {
    target,
    headers: [
      ...['Connection: Upgrade', `Upgrade: ${protocol}`, 'Sec-WebSocket-Version: 13'],
      'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    ],
  });

describe.each(PROTOCOLS)('A-118 a request for %s behind an answer under way', (protocol) => {
  const ahead = ['/auth/events', '/api/sse/100000/20', '/api/hang'];
  const behind = [
    { what: '', bytes: '' },
    { what: ', and a further request', bytes: 'GET /api/x HTTP/1.1\r\n\r\n' },
  ];
  const cases = ahead.flatMap((target) => behind.map((rest) => ({ target, ...rest })));

  test.each(cases)(
    'behind $target$what: at the last word of its client the connection ends',
    async ({ target, bytes }) => {
      const connection = await RawConnection.open(c.first.port);
      connection.write(get(target) + asking(protocol));
      if (target === '/auth/events') await eventually(() => connection.received.includes('retry:'));
      else await eventually(() => c.upstream.requests.length === 1);
      connection.write(bytes);
      connection.end();
      expect((await connection.collect({ timeout: 5000 })).end).toBe('closed');
      await eventually(() => c.upstream.requests.every(({ aborted }) => aborted));
    },
  );

  test('waits for a reader that is slower than the answer, and is then served', async () => {
    const length = 8 * MiB;
    const connection = await RawConnection.open(c.first.port);
    connection.socket.pause();
    connection.write(get(`/api/bytes/${String(length)}`) + asking(protocol));
    await eventually(() => c.upstream.requests.length === 1);
    connection.socket.resume();
    await eventually(
      () => /HTTP\/1\.1 (?:101|200).*\r\n\r\n/s.test(connection.received.subarray(length).toString('latin1')),
      {
        timeout: 15_000,
      },
    );
    connection.close();
  }, 20_000);
});

test('A-093 what comes behind a waiting handshake, in whatever pieces, arrives in the tunnel', async () => {
  sockets.echoes = true;
  const connection = await RawConnection.open(c.first.port);
  const words = ['one', 'two', 'three', 'x'.repeat(40_000), 'five'];
  const [first = '', ...others] = words;
  const message = (word: string): Buffer => frame(OPCODES.text, word, { mask: true });
  connection.write(
    Buffer.concat([Buffer.from(get('/api/delay/300') + asking('websocket'), 'latin1'), message(first)]),
  );
  for (const word of others) {
    await eventually(() => c.upstream.requests.length === 1);
    connection.write(message(word));
  }
  await eventually(() => connection.received.includes('five'), { timeout: 5000 });
  const text = connection.received.toString('latin1');
  const at = words.map((word) => text.lastIndexOf(word));
  expect(at).toEqual(at.toSorted((a, b) => a - b));
  expect(at).not.toContain(-1);
  connection.close();
});

test('A-093 an answer instead of a tunnel waits for a slow reader', async () => {
  const connection = await RawConnection.open(c.first.port);
  connection.socket.pause();
  connection.write(asking('websocket', `/plain/bytes/${String(8 * MiB)}`));
  await eventually(() => c.upstream.requests.length === 1);
  connection.socket.resume();
  await eventually(() => connection.received.length > 8 * MiB, { timeout: 15_000 });
  connection.close();
}, 20_000);

test('B-35 a handshake that waits behind an endless answer does not keep the process', async () => {
  const connection = await RawConnection.open(c.first.port);
  connection.write(get('/api/hang') + asking('websocket'));
  await eventually(() => c.upstream.requests.length === 1);
  expect(await c.first.stop()).toBe(0);
  expect((await connection.collect()).end).not.toBe('timeout');
  connection.close();
});
