import { createServer, type AddressInfo, type Server } from 'node:net';
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { Logger } from '../observability/logger.js';
import type { Upstream } from './upstream.js';
import { Upstreams } from './upstreams.js';

const TIMES = { connect: 2000, firstByte: 1000, idle: 1000 };

let lines: string[];
let upstreams: Upstreams;
const servers: Server[] = [];

async function listening(): Promise<Server> {
  const server = createServer((socket) => socket.on('error', () => socket.destroy()));
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

const originOf = (server: Server): string => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

/** Of servers that are gone: connections are refused. */
async function refusing(count: number): Promise<string[]> {
  const gone = await Promise.all(Array.from({ length: count }, listening));
  const origins = gone.map(originOf);
  await Promise.all(gone.map((server) => new Promise((resolve) => server.close(resolve))));
  return origins;
}

function open(origins: readonly string[]): void {
  const logger = new Logger('info', { write: (line: string) => lines.push(line) });
  upstreams = new Upstreams(origins, { route: '/api/', times: TIMES, logger });
}

function connect(upstream: Upstream): Promise<boolean> {
  return new Promise((resolve) => {
    upstream.connect((error, socket) => {
      socket?.destroy();
      resolve(error === null);
    });
  });
}

const pick = (): string => upstreams.pick().url.origin;
const picks = (count: number): string[] => Array.from({ length: count }, pick);
const events = (): unknown[] =>
  lines.map((line) => {
    const { event, upstream } = JSON.parse(line) as { event: string; upstream: string };
    return [event, upstream];
  });

async function fail(origin: string, times = 1): Promise<void> {
  for (let tries = 0; tries < 50 && times > 0; tries += 1) {
    const upstream = upstreams.pick();
    if (upstream.url.origin !== origin) continue;
    expect(await connect(upstream)).toBe(false);
    times -= 1;
  }
  expect(times).toBe(0);
}

beforeEach(() => {
  lines = [];
  // Only the clock by which rests are measured.
  jest.useFakeTimers({
    doNotFake: [
      ...(['Date', 'hrtime', 'nextTick', 'queueMicrotask', 'setImmediate', 'clearImmediate'] as const),
      ...(['setInterval', 'clearInterval', 'setTimeout', 'clearTimeout'] as const),
    ],
  });
});

afterEach(async () => {
  jest.useRealTimers();
  await upstreams.destroy();
  for (const server of servers.splice(0)) server.close();
});

const pass = (ms: number): void => {
  jest.advanceTimersByTime(ms);
};

describe('B-25 several upstreams', () => {
  test('take turns', () => {
    open(['http://a:1', 'http://b:1', 'http://c:1']);
    expect(picks(7).map((origin) => origin.at(-3))).toEqual(['a', 'b', 'c', 'a', 'b', 'c', 'a']);
    expect(upstreams.pickOther(upstreams.pick())?.url.hostname).toBe('c');
  });

  test('one alone is always the one, and there is no other', async () => {
    const [gone = ''] = await refusing(1);
    open([gone]);
    await fail(gone, 10);
    expect(pick()).toBe(gone);
    expect(upstreams.pickOther(upstreams.pick())).toBeUndefined();
    expect(lines).toEqual([]);
  });

  test('one that cannot be connected to three times in a row rests 5 s, doubling up to 30 s, with one try after each', async () => {
    const [gone = ''] = await refusing(1);
    const there = originOf(await listening());
    open([gone, there]);
    await fail(gone, 2);
    expect(picks(4)).toContain(gone);
    await fail(gone);
    expect(events()).toEqual([['upstream_resting', gone]]);
    for (const rest of [5000, 10_000, 20_000, 30_000, 30_000]) {
      pass(rest - 1);
      expect(picks(10)).not.toContain(gone);
      pass(1);
      const after = Array.from({ length: 10 }, () => upstreams.pick());
      const tried = after.filter(({ url }) => url.origin === gone);
      expect(tried).toHaveLength(1);
      expect(await connect(tried[0] as Upstream)).toBe(false);
    }
    expect(events()).toHaveLength(1);
  });

  test('a connection brings it back, and only three in a row count', async () => {
    const server = await listening();
    const origin = originOf(server);
    const { port } = server.address() as AddressInfo;
    const there = originOf(await listening());
    open([origin, there]);
    const close = (): Promise<unknown> => new Promise((resolve) => server.close(resolve));
    const listen = (): Promise<void> =>
      new Promise((resolve) => server.listen(port, '127.0.0.1', () => resolve()));
    await close();
    const held = upstreams.pick();
    for (let i = 0; i < 2; i += 1) expect(await connect(held)).toBe(false);
    await listen();
    expect(await connect(held)).toBe(true);
    await close();
    for (let i = 0; i < 2; i += 1) expect(await connect(held)).toBe(false);
    expect(lines).toEqual([]);
    expect(await connect(held)).toBe(false);
    await listen();
    pass(5000);
    expect(picks(3)).toContain(origin);
    expect(await connect(held)).toBe(true);
    expect(events()).toEqual([
      ['upstream_resting', origin],
      ['upstream_back', origin],
    ]);
    expect(picks(4).filter((picked) => picked === origin)).toHaveLength(2);
  });

  test('connections that fail together begin one rest, not a longer one', async () => {
    const [gone = ''] = await refusing(1);
    const there = originOf(await listening());
    open([gone, there]);
    const held = upstreams.pick();
    await Promise.all(Array.from({ length: 40 }, () => connect(held)));
    pass(5000);
    expect(picks(3)).toContain(gone);
  });

  test('a try that tells nothing, on a connection that was still open, is followed by another', async () => {
    const [gone = ''] = await refusing(1);
    const there = originOf(await listening());
    open([gone, there]);
    await fail(gone, 3);
    pass(5000);
    expect(picks(10).filter((picked) => picked === gone)).toHaveLength(1);
    pass(TIMES.connect);
    expect(picks(10).filter((picked) => picked === gone)).toHaveLength(1);
  });

  test('where all rest, the one whose rest ends first is tried', async () => {
    const [first = '', second = ''] = await refusing(2);
    open([first, second]);
    await fail(first, 3);
    pass(1000);
    await fail(second, 3);
    expect(picks(5)).toEqual(Array.from({ length: 5 }, () => first));
    expect(upstreams.pickOther(upstreams.pick())?.url.origin).toBe(second);
  });
});
