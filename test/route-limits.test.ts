import { connect } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { EventReader } from './support/event-reader.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { RawConnection, sendRaw, type RawResponse } from './support/raw.js';
import { withRoutes } from './support/routes.js';
import { scriptRequest } from './support/script-request.js';
import { startRawUpstream, type RawUpstream } from './support/upstream.js';

const LIMIT = 4096;
const MiB = 1024 * 1024;
const PARALLEL = 3;

let c: Cloakroom;
let client: BrowserClient;
/** Keeps what it received, byte for byte. */
let raw: RawUpstream;

beforeAll(async () => {
  raw = await startRawUpstream((request) => {
    const body = request.requestLine;
    return `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  });
  c = await startCloakroom({
    replicas: 1,
    config: withRoutes((upstream) => [
      { path: '/api/', upstream, limits: { parallel: PARALLEL } },
      { path: '/api/other/', upstream, limits: { parallel: PARALLEL } },
      { path: '/api/usual/', upstream },
      { path: '/api/streams/', upstream, limits: { parallel: PARALLEL + 1, eventStreams: PARALLEL - 1 } },
      { path: '/small/', upstream: raw.url, limits: { requestBody: `${LIMIT / 1024}KiB` } },
      { path: '/empty/', upstream: raw.url, limits: { requestBody: '0B' } },
      { path: '/early/', upstream, limits: { requestBody: '1MiB' } },
    ]),
  });
  client = await c.signedIn();
});

afterAll(async () => {
  await expectLeftClean(c);
});

beforeEach(() => {
  c.upstream.clear();
  raw.requests.length = 0;
});

const problem = (answer: RawResponse | undefined): unknown =>
  answer && [answer.status, (JSON.parse(answer.body.toString()) as { type: unknown }).type];

const TOO_LARGE = [413, 'payload-too-large'];

describe('limits.requestBody', () => {
  const post = (length: number, target = '/small/x'): string =>
    scriptRequest(client, { method: 'POST', target, headers: [`Content-Length: ${length}`] });
  const chunked = (target = '/small/x'): string =>
    scriptRequest(client, { method: 'POST', target, headers: ['Transfer-Encoding: chunked'] });
  const chunk = (bytes: number): string => `${bytes.toString(16)}\r\n${'x'.repeat(bytes)}\r\n`;

  test('A-120 a body of exactly the limit passes, announced and in chunks', async () => {
    const bodies = [
      post(LIMIT) + 'x'.repeat(LIMIT),
      chunked() + chunk(LIMIT - 1) + chunk(1) + '0\r\n\r\n',
      post(0, '/empty/x'),
      chunked('/empty/x') + '0\r\n\r\n',
    ];
    for (const bytes of bodies) {
      const { responses } = await sendRaw(c.first.clientPort, bytes, { answers: 1 });
      expect(responses[0]?.status).toBe(200);
    }
    expect(raw.requests).toHaveLength(bodies.length);
  });

  test.each([LIMIT + 1, 10 * MiB, Number.MAX_SAFE_INTEGER])(
    'A-120 one announced as %d bytes is 413 before anything is sent on',
    async (length) => {
      const before = raw.connections.length;
      const { responses, end } = await sendRaw(c.first.clientPort, post(length) + 'x'.repeat(100), {
        timeout: 5000,
      });
      expect(problem(responses[0])).toEqual(TOO_LARGE);
      expect([responses.length, responses[0]?.header('connection'), end]).toEqual([1, 'close', 'closed']);
      expect([raw.requests.length, raw.connections.length]).toEqual([0, before]);
    },
  );

  test('A-120 a client that waits to be told is not told to send it', async () => {
    const request = scriptRequest(client, {
      method: 'POST',
      target: '/small/x',
      headers: [`Content-Length: ${LIMIT + 1}`, 'Expect: 100-continue'],
    });
    const { responses } = await sendRaw(c.first.clientPort, request, { answers: 1 });
    expect(responses.map(({ status }) => status)).toEqual([413]);
  });

  test.each([
    ['at once', () => [chunked() + chunk(LIMIT + 1) + '0\r\n\r\n']],
    ['byte by byte over the edge', () => [chunked() + chunk(LIMIT), chunk(1), '0\r\n\r\n']],
    ['in large chunks', () => [chunked(), ...Array.from({ length: 40 }, () => chunk(LIMIT / 2))]],
  ])(
    'A-120 one in chunks, %s, is 413 in the middle, and the upstream never sees it whole',
    async (_, bytes) => {
      const from = raw.connections.length;
      const { responses } = await sendRaw(c.first.clientPort, bytes(), { pause: 20, timeout: 5000 });
      expect(responses.map(problem)).toEqual([TOO_LARGE]);
      expect(responses[0]?.header('connection')).toBe('close');
      expect(raw.requests).toEqual([]);
      // What came in time may have gone on; the byte that was too much never, and never the end of the body.
      for (const { received } of raw.connections.slice(from)) {
        const body = received.toString('latin1').split('\r\n\r\n').slice(1).join('\r\n\r\n');
        expect((body.match(/x/g) ?? []).length).toBeLessThanOrEqual(LIMIT);
        expect(body).not.toMatch(/(?:^|\r\n)0\r\n/);
      }
      await eventually(() => raw.connections.slice(from).every(({ socket }) => socket.destroyed));
    },
  );

  test('A-120 what comes behind a body that was too large is not served', async () => {
    const next = scriptRequest(client, { target: '/small/smuggled' });
    const announced = post(LIMIT + 1) + 'x'.repeat(LIMIT + 1) + next;
    const { responses } = await sendRaw(c.first.clientPort, announced, { timeout: 5000 });
    expect(responses.map(({ status }) => status)).toEqual([413]);
    const connection = await RawConnection.open(c.first.clientPort);
    connection.write(chunked() + chunk(LIMIT + 1));
    await eventually(() => connection.received.includes('413'));
    connection.write(`0\r\n\r\n${next}`);
    const second = await connection.collect({ timeout: 5000 });
    connection.close();
    expect(second.responses.map(({ status }) => status)).toEqual([413]);
    expect(raw.requests).toEqual([]);
  });

  test('A-120 one who goes on sending still gets to read the answer', async () => {
    for (const head of [post(20 * MiB), chunked()]) {
      const socket = connect({ port: c.first.clientPort, host: '127.0.0.1' });
      const got: Buffer[] = [];
      let fault: string | undefined;
      socket.on('data', (bytes) => got.push(bytes));
      const ended = new Promise<void>((resolve) => {
        socket.once('end', resolve);
        socket.once('close', resolve);
        socket.once('error', ({ message }) => {
          fault = message;
          resolve();
        });
      });
      socket.write(head, 'latin1');
      const piece = Buffer.from(chunk(64 * 1024), 'latin1');
      for (let i = 0; i < 100 && fault === undefined; i += 1) socket.write(piece);
      await ended;
      socket.destroy();
      expect([fault, Buffer.concat(got).toString('latin1').slice(0, 12)]).toEqual([
        undefined,
        'HTTP/1.1 413',
      ]);
    }
  });

  test('A-120 an answer that came before the body was too large is cut, never ended', async () => {
    const connection = await RawConnection.open(c.first.clientPort);
    c.upstream.handler = (_request, response) => {
      response.writeHead(200, { 'content-type': 'text/plain' });
      response.write('begun');
      return true;
    };
    try {
      connection.write(chunked('/early/x') + chunk(10));
      await eventually(() => connection.received.includes('begun'));
      for (let i = 0; i < 20; i += 1) connection.write(chunk(64 * 1024));
      await eventually(() => !connection.open);
      expect(connection.received.toString('latin1')).not.toMatch(/\r\n0\r\n\r\n$/);
    } finally {
      c.upstream.handler = undefined;
      connection.close();
    }
  });

  test('A-120 the next one is served as before, and others have no limit', async () => {
    expect((await client.api('/small/x', { method: 'POST', body: 'x'.repeat(LIMIT) })).status).toBe(200);
    expect((await client.api('/api/usual/x', { method: 'POST', body: 'x'.repeat(2 * MiB) })).status).toBe(
      200,
    );
  });
});

describe('limits.parallel', () => {
  const hang = (who = client, target = '/api/hang'): Promise<RawConnection> =>
    RawConnection.open(c.first.clientPort).then((connection) => {
      connection.write(scriptRequest(who, { target }));
      return connection;
    });

  async function full(who = client): Promise<RawConnection[]> {
    const had = c.upstream.requests.length;
    const held = await Promise.all(Array.from({ length: PARALLEL }, () => hang(who)));
    await eventually(() => c.upstream.requests.length >= had + PARALLEL);
    return held;
  }

  /** Until as many as may be are let in, and one more is not. */
  async function expectEmptied(): Promise<void> {
    await eventually(async () => (await client.api('/api/x')).status === 200);
    const held = await full();
    expect((await client.api('/api/x')).status).toBe(429);
    for (const connection of held) connection.close();
    await eventually(async () => (await client.api('/api/x')).status === 200);
  }

  test('A-120 one more than may be is 429 with Retry-After, and nothing is sent on', async () => {
    const held = await full();
    const answer = await client.api('/api/x');
    expect([answer.status, answer.problem]).toEqual([429, 'too-many-requests']);
    expect(Number(answer.headers['retry-after'])).toBeGreaterThan(0);
    expect(answer.setCookies).toEqual([]);
    expect(c.upstream.requests).toHaveLength(PARALLEL);
    for (const connection of held) connection.close();
    await expectEmptied();
  });

  test('A-120 those that are too many cost no command to Redis', async () => {
    const reads = async (): Promise<string | undefined> =>
      /cmdstat_hmget:calls=(\d+)/.exec(String(await c.redis?.command('INFO', 'commandstats')))?.[1];
    const held = await full();
    const before = await reads();
    for (let i = 0; i < 50; i += 1) expect((await client.api('/api/x')).status).toBe(429);
    expect(await reads()).toBe(before);
    for (const connection of held) connection.close();
    await expectEmptied();
    expect(await reads()).not.toBe(before);
  });

  test('A-120 others, and other routes, and our own endpoints do not feel it', async () => {
    const [other, held] = await Promise.all([c.signedIn({ user: 'bob' }), full()]);
    expect((await other.api('/api/x')).status).toBe(200);
    expect((await client.api('/api/other/x')).status).toBe(200);
    expect((await client.me()).status).toBe(200);
    expect((await client.api('/api/x')).status).toBe(429);
    for (const connection of held) connection.close();
    await expectEmptied();
  });

  test('A-120 however a request ends, it is not counted any longer', async () => {
    const times = PARALLEL * 3;
    const each = async (what: () => Promise<unknown>): Promise<void> => {
      for (let i = 0; i < times; i += 1) await what();
    };
    await each(async () => {
      expect((await client.api('/api/x')).status).toBe(200);
    });
    await each(async () => {
      expect((await client.api('/api/x', { method: 'HEAD' })).status).toBe(200);
    });
    await each(async () => {
      expect((await client.api('/api/status/304')).status).toBe(304);
    });
    await each(async () => {
      expect((await client.api('/api/reset', { method: 'POST', body: 'x' })).status).toBe(502);
    });
    await each(async () => {
      // Broken off in the middle of the answer.
      await client.api('/api/reset/100').catch(() => undefined);
    });
    await each(async () => {
      const stream = await EventReader.open(client, '/api/sse/1000/50', { headers: { 'x-csrf': '1' } });
      stream.leave();
    });
    await each(async () => {
      const connection = await hang();
      await eventually(() => c.upstream.requests.length > 0);
      connection.close();
      await eventually(async () => (await client.api('/api/x')).status === 200);
    });
    await each(async () => {
      // Refused behind the door: counted neither before nor after.
      await client.api('/api/x', { method: 'POST', without: ['origin', 'sec-fetch-site'] });
    });
    const ended = await c.signedIn({ user: 'carol' });
    const dead = ended.clone();
    await ended.logout();
    await each(async () => {
      expect((await dead.clone().api('/api/x')).status).toBe(401);
    });
    await expectEmptied();
  });

  test('A-120 the default is 128, so that one HTTP/2 connection of a browser fits', async () => {
    const held = await Promise.all(Array.from({ length: 128 }, () => hang(client, '/api/usual/hang')));
    await eventually(() => c.upstream.requests.length >= 128);
    expect((await client.api('/api/usual/x')).status).toBe(429);
    held.pop()?.close();
    await eventually(async () => (await client.api('/api/usual/x')).status === 200);
    for (const connection of held) connection.close();
  });
});

describe('limits.eventStreams', () => {
  const MOST = PARALLEL - 1;
  const headers = { 'x-csrf': '1' };
  const open = async (who = client, target = '/api/streams/sse/1000/50'): Promise<EventReader> => {
    const stream = await EventReader.open(who, target, { headers });
    if (stream.status === 200) return stream;
    stream.leave();
    throw new Error(`no stream, but ${String(stream.status)}`);
  };
  const refused = async (target = '/api/streams/sse/1000/50'): Promise<unknown[]> => {
    const answer = await client.api(target);
    return [answer.status, answer.problem, Number(answer.headers['retry-after']) > 0];
  };
  const TOO_MANY = [429, 'too-many-requests', true];

  test('A-120 one more than may be is 429, and the upstream is let go of; others are served', async () => {
    const streams = await Promise.all(Array.from({ length: MOST }, () => open()));
    c.upstream.clear();
    expect(await refused()).toEqual(TOO_MANY);
    await eventually(() => c.upstream.last?.aborted === true);
    expect((await client.api('/api/streams/x')).status).toBe(200);
    const other = await c.signedIn({ user: 'bob' });
    (await open(other)).leave();
    for (const stream of streams) stream.leave();
  });

  test('A-120 however a stream ends, it is not counted any longer', async () => {
    for (let i = 0; i < MOST * 3; i += 1) {
      let stream: EventReader | undefined;
      await eventually(async () => (stream = await open().catch(() => undefined)) !== undefined);
      stream?.leave();
    }
    for (let i = 0; i < MOST * 3; i += 1) {
      // Over when the upstream says so.
      await eventually(async () => (await client.api('/api/streams/sse/1/1')).status === 200);
    }
    const streams: EventReader[] = [];
    await eventually(async () => {
      const stream = await open().catch(() => undefined);
      if (stream !== undefined) streams.push(stream);
      return streams.length === MOST;
    });
    expect(await refused()).toEqual(TOO_MANY);
    for (const stream of streams) stream.leave();
  });

  test('A-120 the default is 16', async () => {
    const target = '/api/usual/sse/1000/50';
    const streams = await Promise.all(Array.from({ length: 16 }, () => open(client, target)));
    expect(await refused(target)).toEqual(TOO_MANY);
    for (const stream of streams) stream.leave();
  });
});
