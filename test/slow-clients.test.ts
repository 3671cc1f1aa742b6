import { connect, type Socket } from 'node:net';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';
import { RawConnection, sendRaw, type RawResult } from './support/raw.js';
import { withRoutes } from './support/routes.js';
import { scriptRequest } from './support/script-request.js';

// All that is slow begins at once, since each waits for a limit of seconds; the tests then look at how each of them ended.

/** Milliseconds for heads and forms, the time between two looks, and what a busy machine adds. */
const WITHIN = 15_000 + 5_000 + 8_000;
const HOST = 'Host: app.example.test\r\n';
const IDLE = 300;

let c: Cloakroom;
let client: BrowserClient;
let port: number;

interface Ended {
  result: RawResult;
  /** Milliseconds. */
  took: number;
}

/** What has begun, by its name. */
const begun = new Map<string, Promise<Ended>>();
let silent: Promise<number>;
let unread: Promise<{ took: number; bytes: number }>;
let served: Promise<number[]>;
let memory: { before: number; after: Promise<number> };

beforeAll(async () => {
  c = await startCloakroom({
    replicas: 1,
    config: (file) => ({
      ...withRoutes((upstream) => [
        { path: '/api/', upstream, timeouts: { connect: '1s', firstByte: '4s', idle: '3s' } },
      ])(file),
      listen: { ...(file['listen'] as object), idle: '5s' },
    }),
  });
  client = await c.signedIn();
  port = c.first.port;
  await client.api('/api/x');

  const before = c.first.memory();
  begun.set('head', dripping(`GET /livez HTTP/1.1\r\n${HOST}X-Slow: `));
  begun.set(
    'form',
    dripping(
      `POST /auth/backchannel-logout HTTP/1.1\r\n${HOST}Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\nlogout_token=`,
    ),
  );
  begun.set(
    'upload',
    standing(scriptRequest(client, { method: 'POST', headers: ['Content-Length: 1000'], body: 'x' })),
  );
  silent = silentSockets(IDLE);
  unread = readingNothing();
  const over = Promise.all([...begun.values(), silent, unread]);
  served = serveMeanwhile(over);
  memory = { before, after: over.then(() => c.first.memory()) };
  // Looked at by the tests.
  for (const promise of [over, served, memory.after]) promise.catch(() => undefined);
});

afterAll(async () => {
  await Promise.allSettled([...begun.values(), silent, unread, served]);
  await expectLeftClean(c);
});

async function timed(connection: RawConnection): Promise<Ended> {
  const since = performance.now();
  const result = await connection.collect({ timeout: WITHIN });
  connection.close();
  return { result, took: performance.now() - since };
}

/** Sends this, and then a byte now and then for ever. */
async function dripping(bytes: string): Promise<Ended> {
  const connection = await RawConnection.open(port);
  connection.write(bytes);
  const drip = setInterval(() => {
    connection.write('x');
  }, 500);
  try {
    return await timed(connection);
  } finally {
    clearInterval(drip);
  }
}

/** Sends this and no more. */
async function standing(bytes: string): Promise<Ended> {
  const connection = await RawConnection.open(port);
  connection.write(bytes);
  return timed(connection);
}

/** @returns how many of so many connections that never sent a byte were closed */
async function silentSockets(count: number): Promise<number> {
  const closed = await Promise.all(
    Array.from({ length: count }, async () => {
      const { result } = await timed(await RawConnection.open(port));
      return result.end !== 'timeout';
    }),
  );
  return closed.filter(Boolean).length;
}

/** Asks for much and reads none of it. */
async function readingNothing(): Promise<{ took: number; bytes: number }> {
  const socket: Socket = connect({ port, host: '127.0.0.1' });
  socket.pause();
  socket.on('error', () => undefined);
  socket.write(scriptRequest(client, { target: '/api/bytes/200000000' }), 'latin1');
  const since = performance.now();
  await eventually(() => c.upstream.requests.some(({ url, aborted }) => url.includes('/bytes/') && aborted), {
    timeout: WITHIN,
    interval: 100,
  });
  socket.destroy();
  return { took: performance.now() - since, bytes: socket.bytesRead };
}

/** One request after the other until the slow ones are gone. */
async function serveMeanwhile(over: Promise<unknown>): Promise<number[]> {
  const state = { isOver: false };
  void over.catch(() => undefined).finally(() => (state.isOver = true));
  const statuses: number[] = [];
  while (!state.isOver) {
    statuses.push((await client.me()).status, (await client.navigate('/livez')).status);
    await sleep(100);
  }
  return statuses;
}

const statusOf = async (name: string): Promise<[number | undefined, string | undefined]> => {
  const { result } = (await begun.get(name)) ?? {};
  return [result?.responses[0]?.status, result?.end];
};

test.each([
  ['16 KiB in one line', `X-Fat: ${'x'.repeat(16 * 1024)}\r\n`],
  ['16 KiB in many lines', `X-Fat: ${'x'.repeat(500)}\r\n`.repeat(33)],
  ['2,100 lines', Array.from({ length: 2100 }, (_, i) => `a${String(i)}:\r\n`).join('')],
  ['201 lines', 'X-Many: 1\r\n'.repeat(200)],
])('A-116 a head of %s is 431, and the connection is closed', async (_, lines) => {
  for (const target of ['/livez', '/api/x']) {
    const { responses, end } = await sendRaw(port, `GET ${target} HTTP/1.1\r\n${HOST}${lines}\r\n`);
    expect([responses.map(({ status }) => status), end]).toEqual([[431], 'closed']);
  }
});

test('A-116 a head of 200 lines is served', async () => {
  const request = `GET /livez HTTP/1.1\r\n${HOST}${'X-Many: 1\r\n'.repeat(199)}\r\n`;
  const { responses } = await sendRaw(port, request, { answers: 1 });
  expect(responses[0]?.status).toBe(200);
});

test('A-116 an upload that stands still is 408 when its route says so', async () => {
  expect(await statusOf('upload')).toEqual([408, 'closed']);
});

test('A-116 an answer that nobody reads is given up, and the upstream let go', async () => {
  expect((await unread).took).toBeLessThan(WITHIN);
}, 60_000);

test.each(['head', 'form'])(
  'A-116 a %s that comes byte by byte is 408 after 15 seconds, and the connection is closed',
  async (name) => {
    const [status, end] = await statusOf(name);
    expect(status).toBe(408);
    expect(end).not.toBe('timeout');
    expect((await begun.get(name))?.took).toBeGreaterThan(10_000);
  },
  60_000,
);

test('A-116 connections that never say anything are closed', async () => {
  expect(await silent).toBe(IDLE);
}, 60_000);

test('A-116 everybody else was served meanwhile, and memory stayed where it was', async () => {
  const statuses = await served;
  expect(statuses.length).toBeGreaterThan(20);
  expect(new Set(statuses)).toEqual(new Set([200]));
  expect((await memory.after) - memory.before).toBeLessThan(100 * 1024 * 1024);
}, 60_000);
