import { createHash, randomBytes } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';
import { withRoutes } from './support/routes.js';
import { BrowserSocket, OPCODES, WebSocketUpstream } from './support/web-socket.js';

const KiB = 1024;
/** Bytes a second. */
const BANDWIDTH = 128 * KiB;
/** The most that is read from a connection at once; what is moved last need not be waited for. */
const PART = 64 * KiB;
const MOVED = 3 * BANDWIDTH;
/** Milliseconds that so much takes at least: one second's worth passes at once. */
const AT_LEAST = ((MOVED - BANDWIDTH - PART) * 1000) / BANDWIDTH;

let c: Cloakroom;
let sockets: WebSocketUpstream;
let n = 0;
/** Somebody who has moved nothing yet. */
let client: BrowserClient;

beforeAll(async () => {
  sockets = await WebSocketUpstream.start();
  c = await startCloakroom({
    replicas: 1,
    config: withRoutes((upstream) => [
      { path: '/api/', upstream },
      // A silence that is shorter than what a body has to wait for.
      { path: '/paced/', upstream, limits: { bandwidth: '128KiB' }, timeouts: { idle: '300ms' } },
      { path: '/sockets/', upstream: sockets.url, websocket: true, limits: { bandwidth: '128KiB' } },
      { path: '/slow/', upstream: sockets.url, websocket: { idle: '1s' }, limits: { bandwidth: '32KiB' } },
    ]),
  });
});

beforeEach(async () => {
  c.upstream.clear();
  client = await c.signedIn({ user: `user-${String((n += 1))}` });
});

afterAll(async () => {
  await expectLeftClean(c);
});

async function timed<T>(what: () => Promise<T>): Promise<{ took: number; result: T }> {
  const begun = performance.now();
  const result = await what();
  return { took: performance.now() - begun, result };
}

describe('A-120 limits.bandwidth', () => {
  test('A-120 holds an answer back to what the session may move, and every byte arrives', async () => {
    const free = await client.api(`/api/bytes/${MOVED}`);
    const { took, result } = await timed(() => client.api(`/paced/bytes/${MOVED}`));
    expect(result.status).toBe(200);
    expect(result.body.equals(free.body)).toBe(true);
    expect(took).toBeGreaterThan(AT_LEAST);
  });

  test('A-120 holds an upload back, which is not taken for one that stopped', async () => {
    const body = randomBytes(MOVED);
    const { took, result } = await timed(() => client.api('/paced/x', { method: 'POST', body }));
    expect(result.status).toBe(200);
    expect(c.upstream.requests.at(-1)).toMatchObject({
      bodyLength: MOVED,
      bodySha256: createHash('sha256').update(body).digest('hex'),
    });
    expect(took).toBeGreaterThan(AT_LEAST);
  });

  test('A-120 counts all that the session has under way, and nobody else waits', async () => {
    const other = await c.signedIn({ user: 'other' });
    let hasArrived = false;
    const { took } = await timed(async () => {
      const all = Promise.all(
        [0, 1, 2, 3].map(async () => {
          const { status, body } = await client.api(`/paced/bytes/${MOVED / 2}`);
          expect([status, body.length]).toEqual([200, MOVED / 2]);
        }),
      ).then(() => {
        hasArrived = true;
      });
      await sleep(100);
      for (let i = 0; i < 4; i += 1) {
        expect((await other.api(`/paced/bytes/${BANDWIDTH / 8}`)).body).toHaveLength(BANDWIDTH / 8);
      }
      // Another route of the same session neither.
      expect((await client.api(`/api/bytes/${MOVED}`)).body).toHaveLength(MOVED);
      expect(hasArrived).toBe(false);
      await all;
    });
    // Each of the four may have its last part on the way.
    expect(took).toBeGreaterThan(((2 * MOVED - BANDWIDTH - 4 * PART) * 1000) / BANDWIDTH);
  });

  test('A-120 holds WebSockets back in both directions', async () => {
    sockets.echoes = false;
    const socket = await BrowserSocket.open(c, client, '/sockets/x');
    const { took: up } = await timed(async () => {
      for (let i = 0; i < 8; i += 1) socket.send(OPCODES.binary, randomBytes(MOVED / 8));
      await eventually(() => sockets.last.reader.frames.length === 8, { timeout: 20_000 });
    });
    expect(up).toBeGreaterThan(AT_LEAST);
    const { took: down } = await timed(async () => {
      for (let i = 0; i < 8; i += 1) sockets.last.send(OPCODES.binary, randomBytes(MOVED / 8));
      await eventually(() => socket.frames.length === 8, { timeout: 20_000 });
    });
    expect(down).toBeGreaterThan(AT_LEAST);
    // While it has to wait, its session ends.
    for (let i = 0; i < 8; i += 1) sockets.last.send(OPCODES.binary, randomBytes(MOVED / 8));
    await eventually(() => socket.frames.length > 8, { timeout: 20_000 });
    await client.logout();
    await socket.ended();
    expect(socket.closing?.[0]).toBe(4401);
  });

  test('A-120 a WebSocket that has to wait is not idle, and its end does not wait', async () => {
    const socket = await BrowserSocket.open(c, client, '/slow/x');
    expect(socket.status).toBe(101);
    sockets.last.send(OPCODES.binary, randomBytes(96 * KiB));
    await eventually(() => socket.frames.length === 1, { timeout: 20_000 });
    // What the second frame waits for is longer than the silence that is allowed, and than what a goodbye may take.
    sockets.last.send(OPCODES.binary, randomBytes(160 * KiB));
    await eventually(() => socket.reader.pending > 0, { timeout: 20_000 });
    expect(socket.closed).toBe(false);
    await client.logout();
    await socket.ended();
    expect([socket.frames[1]?.payload.length, socket.closing?.[0]]).toEqual([160 * KiB, 4401]);
  });

  test('A-120 a browser that leaves while it has to wait leaves nothing behind', async () => {
    for (const [target, init] of [
      [`/paced/bytes/${1024 * MOVED}`, {}],
      ['/paced/x', { method: 'POST', body: randomBytes(MOVED) }],
    ] as const) {
      const left = new AbortController();
      const call = client.api(target, { ...init, signal: left.signal }).catch(() => 'left');
      await sleep(300);
      left.abort();
      expect(await call).toBe('left');
      await eventually(() => c.upstream.requests.at(-1)?.aborted === true, { what: 'the upstream to know' });
    }
    expect((await client.api('/api/x')).status).toBe(200);
    expect(c.first.stderr).toBe('');
  });
});
