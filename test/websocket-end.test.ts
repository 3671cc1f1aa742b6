import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { AdminClient, adminConfig, adminToken } from './support/admin-client.js';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { ENDINGS } from './support/endings.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';
import { deliver, logoutToken, person } from './support/logout-tokens.js';
import { random } from './support/random.js';
import { ownRedis, startRedis } from './support/redis.js';
import { StoredSession } from './support/stored-session.js';
import { BrowserSocket, frame, OPCODES, WebSocketUpstream } from './support/web-socket.js';

const DAY = 24 * 3600 * 1000;
const REPLICAS = 4;
/** On each replica. */
const SOCKETS = 16;
const ROUNDS = 200;
const AT_A_TIME = 8;

const operator = adminToken('operator', 'end');
let c: Cloakroom;
let admin: AdminClient;
let upstream: WebSocketUpstream;

beforeAll(async () => {
  upstream = await WebSocketUpstream.start();
  c = await startCloakroom({
    replicas: REPLICAS,
    upstream,
    tap: false,
    config: {
      admin: adminConfig([operator]),
      session: { freshLoginFor: '0s' },
      store: { redis: { commandTimeout: '2s' } },
      routes: [{ path: '/api/', upstream: upstream.url, websocket: true }],
    },
  });
  admin = new AdminClient(c, operator);
});

beforeEach(() => {
  upstream.sockets.length = 0;
  upstream.echoes = true;
});

afterAll(async () => {
  await expectLeftClean(c, 32 * DAY);
});

async function openMany(room: Cloakroom, client: BrowserClient): Promise<BrowserSocket[]> {
  const sockets = await Promise.all(
    room.replicas.flatMap((_, replica) =>
      Array.from({ length: SOCKETS }, () => BrowserSocket.open(room, client, '/api/x', { replica })),
    ),
  );
  expect(new Set(sockets.map(({ status }) => status))).toEqual(new Set([101]));
  return sockets;
}

async function expectAllEnded(sockets: readonly BrowserSocket[], reason: string): Promise<void> {
  for (const socket of sockets) {
    await socket.ended();
    expect([socket.closing, socket.wasReset]).toEqual([[4401, reason], false]);
  }
}

describe(`A-094 ${String(REPLICAS * SOCKETS)} WebSockets of a session over ${String(REPLICAS)} replicas`, () => {
  test.each(ENDINGS)(
    'A-094 %s closes all of them with 4401 and the reason %s, and nobody else’s',
    async (_, reason, act) => {
      const client = await c.signedIn({ user: 'ada' });
      const other = await BrowserSocket.open(c, await c.signedIn({ user: 'bob' }), '/api/x');
      const sockets = await openMany(c, client);
      await act(client, c, admin);
      await expectAllEnded(sockets, reason);
      other.send(OPCODES.text, 'still here');
      await other.heard('still here');
      await eventually(() => upstream.open === 1, { what: 'the upstream to be rid of the others' });
      other.socket.destroy();
    },
  );

  test('A-094 back-channel logout closes all of them', async () => {
    const { client, sub, sid } = await person(c);
    const sockets = await openMany(c, client);
    expect((await deliver(c, await logoutToken(c.provider, { sub, sid }))).status).toBe(200);
    await expectAllEnded(sockets, 'provider');
  });

  test('A-094 the absolute expiry closes all of them, also while Redis does not answer', async () => {
    const redis = await startRedis();
    const brief = await startCloakroom({
      replicas: 2,
      redis,
      upstream,
      tap: false,
      config: {
        session: { idle: '6s', absolute: '6s', warnBefore: '1s' },
        routes: [{ path: '/api/', upstream: upstream.url, websocket: true }],
      },
    });
    const sockets = await openMany(brief, await brief.signedIn());
    // Only a Redis of the tests' own may be frozen; REDIS_URL may be somebody else's.
    if (ownRedis) redis.pause();
    try {
      await expectAllEnded(sockets, 'expired');
    } finally {
      if (ownRedis) redis.resume();
    }
  });

  test('A-094 open sockets in use keep a session alive only where the route says so, and pongs never do', async () => {
    const idle = await startCloakroom({
      replicas: 1,
      upstream,
      config: {
        session: { idle: '3s', absolute: '1h', warnBefore: '0s' },
        routes: [
          { path: '/api/', upstream: upstream.url, websocket: true },
          { path: '/api/kept/', upstream: upstream.url, websocket: { keepsSession: true } },
        ],
      },
    });
    const clients = await Promise.all([0, 1, 2, 3].map(() => idle.signedIn()));
    const paths = ['/api/x', '/api/kept/x', '/api/kept/x', '/api/kept/x'];
    const sockets = await Promise.all(
      clients.map((client, i) => BrowserSocket.open(idle, client, paths[i] ?? '')),
    );
    const [unkept, kept, pongs, heard] = sockets as [
      BrowserSocket,
      BrowserSocket,
      BrowserSocket,
      BrowserSocket,
    ];
    const [, , , ofHeard] = upstream.sockets;
    const talk = setInterval(() => {
      unkept.send(OPCODES.text, 'x');
      kept.send(OPCODES.text, 'x');
      pongs.send(OPCODES.pong, 'x');
      ofHeard?.send(OPCODES.text, 'x');
    }, 100);
    for (const socket of [unkept, pongs, heard]) {
      await socket.ended(15_000);
      expect(socket.closing).toEqual([4401, 'expired']);
    }
    await sleep(2000);
    expect(kept.closed).toBe(false);
    const [, ofKept] = clients;
    expect((await ofKept?.me({ slide: false }))?.status).toBe(200);
    clearInterval(talk);
    await kept.ended(15_000);
    expect(kept.closing).toEqual([4401, 'expired']);
  });
});

test('A-094 in the middle of a frame the goodbye waits for its end; one that does not end is cut off', async () => {
  upstream.echoes = false;
  for (const finishes of [true, false]) {
    const client = await c.signedIn();
    const socket = await BrowserSocket.open(c, client, '/api/x');
    const bytes = frame(OPCODES.text, 'a message that takes its time');
    const end = upstream.last;
    end.socket.write(bytes.subarray(0, 10));
    await eventually(() => socket.reader.pending === 10);
    await new StoredSession(c, client).delete();
    await eventually(() => end.closed || end.reader.frames.some(({ opcode }) => opcode === OPCODES.close));
    if (finishes) {
      end.socket.write(Buffer.concat([bytes.subarray(10), frame(OPCODES.text, 'and another')]));
      await socket.ended();
      expect(socket.texts).toEqual(['a message that takes its time']);
      expect(socket.closing).toEqual([4401, 'operator']);
    } else {
      await socket.ended();
      expect([socket.texts, socket.closing]).toEqual([[], undefined]);
    }
  }
});

test('A-094 after the end not a byte of the browser reaches the upstream', async () => {
  const client = await c.signedIn();
  const socket = await BrowserSocket.open(c, client, '/api/x');
  const end = upstream.last;
  const talk = setInterval(() => {
    if (!socket.socket.destroyed) socket.send(OPCODES.text, String(Date.now()));
  }, 1);
  await sleep(100);
  await new StoredSession(c, client).delete();
  await socket.ended();
  clearInterval(talk);
  await eventually(() => end.closed);
  const frames = end.reader.frames;
  // The browser’s frames, each whole, and then our goodbye.
  expect(frames.at(-1)).toMatchObject({ opcode: OPCODES.close, masked: true });
  expect(frames.slice(0, -1).every(({ opcode, masked }) => opcode === OPCODES.text && masked)).toBe(true);
});

test(`A-058 a deletion beats every handshake under way: no socket stays open (${String(ROUNDS)} rounds)`, async () => {
  const dice = random('handshakes');
  const left: string[] = [];
  const round = async (number: number): Promise<void> => {
    const client = await c.signedIn({ user: `round-${String(number)}` });
    const stored = new StoredSession(c, client);
    const opening = c.replicas.map(async (_, replica) => {
      await sleep(dice.int(0, 20));
      return BrowserSocket.open(c, client, '/api/x', { replica });
    });
    await sleep(dice.int(0, 25));
    await stored.delete();
    for (const socket of await Promise.all(opening)) {
      await socket.ended(5000).catch(() => left.push(`round ${String(number)}: ${String(socket.status)}`));
    }
    if ((await stored.generation()) > 0) left.push('the key came back');
  };
  for (let at = 0; at < ROUNDS; at += AT_A_TIME) {
    await Promise.all(Array.from({ length: AT_A_TIME }, (_, i) => round(at + i)));
  }
  expect(left).toEqual([]);
}, 120_000);

test('B-35 on a shutdown browsers are sent away with 1012, upstreams with 1001, and what does not leave is cut off', async () => {
  const room = await startCloakroom({
    replicas: 2,
    upstream,
    config: {
      shutdown: { delay: '300ms', drain: '2s' },
      routes: [{ path: '/api/', upstream: upstream.url, websocket: true }],
    },
  });
  const client = await room.signedIn();
  const socket = await BrowserSocket.open(room, client, '/api/x', { replica: 0 });
  const [end] = upstream.sockets;
  // Neither of the two will ever be done by itself.
  upstream.answer = () => '';
  const hanging = BrowserSocket.open(room, client, '/api/x', { replica: 0 });
  await eventually(() => upstream.sockets.length === 2);
  upstream.answer = () => 'HTTP/1.1 200 OK\r\n\r\nand so on';
  const unending = await BrowserSocket.open(room, client, '/api/x', { replica: 0 });
  upstream.answer = undefined;
  room.first.kill('SIGTERM');
  // Still let in until the delay is over, and sent away with the others.
  const late = await BrowserSocket.open(room, client, '/api/x', { replica: 0 });
  expect(late.status).toBe(101);
  for (const each of [socket, late]) {
    await each.ended();
    expect(each.closing).toEqual([1012, 'restart']);
  }
  expect(end?.reader.frames.at(-1)).toMatchObject({
    opcode: OPCODES.close,
    payload: Buffer.from([0x03, 0xe9]),
  });
  expect(await room.first.exited(8000)).toBe(0);
  await unending.ended();
  expect((await hanging).status).toBe(0);
  expect((await BrowserSocket.open(room, client, '/api/x', { replica: 1 })).status).toBe(101);
});
