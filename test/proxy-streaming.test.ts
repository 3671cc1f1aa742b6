import { createHash } from 'node:crypto';
import { request as httpRequest, type ClientRequest, type IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';
import { random } from './support/random.js';
import { ownRedis } from './support/redis.js';
import { RawConnection } from './support/raw.js';
import { scriptRequest, sessionPair } from './support/script-request.js';
import type { SeenRequest } from './support/upstream.js';

const MiB = 1024 * 1024;
const GiB = 1024 * MiB;
const BLOCK = Buffer.alloc(64 * 1024, 'cloakroom ');

let c: Cloakroom;
let client: BrowserClient;
const calls: ClientRequest[] = [];

beforeAll(async () => {
  c = await startCloakroom({
    replicas: 1,
    config: (file) => ({
      ...file,
      routes: [
        ...(file['routes'] as object[]),
        {
          path: '/brief/',
          upstream: (file['routes'] as { upstream: string }[])[0]?.upstream,
          timeouts: { firstByte: '1s', idle: '1s' },
        },
      ],
    }),
  });
  client = await c.signedIn();
});

afterEach(() => {
  for (const request of calls.splice(0)) request.destroy();
  c.upstream.handler = undefined;
});

afterAll(async () => {
  await expectLeftClean(c);
});

/** A call straight to the replica: a gigabyte has no place in a recording. */
function call(
  path: string,
  { method = 'GET', length }: { method?: string; length?: number } = {},
): ClientRequest {
  const request = httpRequest({
    port: c.first.port,
    host: '127.0.0.1',
    path,
    method,
    agent: false,
    headers: {
      host: client.publicUrl.host,
      cookie: sessionPair(client),
      'x-csrf': '1',
      origin: client.publicUrl.origin,
      ...(length === undefined ? {} : { 'content-length': length }),
    },
  });
  calls.push(request);
  return request;
}

function answered(request: ClientRequest): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    request.once('response', resolve);
    request.once('error', reject);
  });
}

function* blocks(total: number): Generator<Buffer> {
  for (let left = total; left > 0; left -= BLOCK.length)
    yield BLOCK.subarray(0, Math.min(left, BLOCK.length));
}

/** The same, with a pause before each block: an upload as long as its sender likes. */
async function* slowBlocks(total: number, pause: number): AsyncGenerator<Buffer> {
  for (const block of blocks(total)) {
    await sleep(pause);
    yield block;
  }
}

function digestOf(total: number): string {
  const hash = createHash('sha256');
  for (const block of blocks(total)) hash.update(block);
  return hash.digest('hex');
}

async function down(total: number): Promise<string> {
  const request = call(`/api/bytes/${total}`);
  request.end();
  const hash = createHash('sha256');
  const response = await answered(request);
  expect(response.headers['content-length']).toBe(String(total));
  await pipeline(response, hash);
  return hash.digest('hex');
}

async function up(
  total: number,
  path = '/api/x',
  body: Iterable<Buffer> | AsyncIterable<Buffer> = blocks(total),
): Promise<SeenRequest> {
  const request = call(path, { method: 'POST', length: total });
  const [response] = await Promise.all([answered(request), pipeline(Readable.from(body), request)]);
  response.resume();
  expect(response.statusCode).toBe(200);
  const seen = c.upstream.last;
  if (seen === undefined) throw new Error('nothing arrived');
  return seen;
}

/** Most memory the replica had during the work, above what it had before. */
async function growth(work: () => Promise<void>): Promise<number> {
  const before = c.first.memory();
  let most = before;
  const timer = setInterval(() => {
    most = Math.max(most, c.first.memory());
  }, 25);
  await work().finally(() => {
    clearInterval(timer);
  });
  return most - before;
}

const lastSeen = (): SeenRequest => {
  const seen = c.upstream.last;
  if (seen === undefined) throw new Error('nothing arrived');
  return seen;
};

describe('A-090 bodies stream both ways', () => {
  test('A-090 1 GiB down and 1 GiB up: equal digests, memory grows by less than 64 MiB', async () => {
    // What a process takes once for working at all.
    await down(64 * MiB);
    await up(64 * MiB);
    const digest = digestOf(GiB);
    const grown = await growth(async () => {
      expect(await down(GiB)).toBe(digest);
      const seen = await up(GiB);
      expect(seen.bodyLength).toBe(GiB);
      expect(seen.bodySha256).toBe(digest);
    });
    expect(grown).toBeLessThan(64 * MiB);
  }, 120_000);

  test('A-090 chunked bodies of any size arrive whole both ways', async () => {
    const draw = random('sizes');
    for (const size of [0, 1, 65_535, 65_536, 65_537, draw.int(1, 3 * MiB)]) {
      const body = draw.bytes(Math.min(size, 4096));
      const whole = Buffer.concat(Array.from({ length: Math.ceil(size / 4096) }, () => body)).subarray(
        0,
        size,
      );
      const stream = Readable.from(
        whole.length === 0 ? [] : [whole.subarray(0, size >> 1), whole.subarray(size >> 1)],
      );
      const answer = await client.api('/api/x', { method: 'PUT', body: stream });
      expect(answer.status).toBe(200);
      expect(lastSeen().bodySha256).toBe(createHash('sha256').update(whole).digest('hex'));
      expect((await client.api(`/api/chunked/${size}`)).body).toHaveLength(size);
    }
  });

  test('A-090 a reader that does not read stops the sender, and one that goes on gets everything', async () => {
    c.upstream.bytesSent = 0;
    const request = call(`/api/bytes/${256 * MiB}`);
    request.end();
    const response = await answered(request);
    let sent = -1;
    await eventually(
      () => {
        const stopped = sent === c.upstream.bytesSent;
        sent = c.upstream.bytesSent;
        return stopped;
      },
      { interval: 300, timeout: 20_000 },
    );
    expect(sent).toBeLessThan(64 * MiB);
    let received = 0;
    for await (const chunk of response as AsyncIterable<Buffer>) received += chunk.length;
    expect(received).toBe(256 * MiB);
  });

  test('A-090 an upstream that does not read stops the browser, and one that goes on gets everything', async () => {
    const total = 128 * MiB;
    let go: () => void = () => undefined;
    c.upstream.handler = async () => {
      await new Promise<void>((resolve) => {
        go = resolve;
      });
      return false;
    };
    const request = call('/api/x', { method: 'POST', length: total });
    const response = answered(request);
    let given = 0;
    const source = Readable.from(blocks(total)).on('data', (chunk: Buffer) => {
      given += chunk.length;
    });
    const sending = pipeline(source, request);
    let before = -1;
    await eventually(
      () => {
        const stopped = before === given && given > 0;
        before = given;
        return stopped;
      },
      { interval: 300, timeout: 20_000 },
    );
    expect(given).toBeLessThan(64 * MiB);
    go();
    await sending;
    (await response).resume();
    await eventually(() => lastSeen().answered);
    expect(lastSeen().bodyLength).toBe(total);
  });
});

describe('A-090 nothing is held back', () => {
  test('A-090 an event is seen before the next one is sent', async () => {
    let send: (text: string) => void = () => undefined;
    let end: () => void = () => undefined;
    c.upstream.handler = (_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.flushHeaders();
      send = (text) => response.write(text);
      end = () => response.end();
      return true;
    };
    const stream = await client.open('/api/events');
    expect(stream.status).toBe(200);
    expect(stream.headers['content-type']).toBe('text/event-stream');
    for (let n = 1; n <= 20; n += 1) {
      send(`data: ${n}\n\n`);
      await stream.until(`data: ${n}\n\n`);
    }
    end();
    await expect(stream.until('never')).rejects.toThrow(/ended/);
  });

  // Only a Redis of the tests' own may be killed, frozen or configured; REDIS_URL may be somebody else's.
  (ownRedis ? test : test.skip)('A-090 the last byte comes while Redis hangs', async () => {
    const [drip, events] = [await client.open('/api/drip/20/30'), await client.open('/api/sse/10/50')];
    await Promise.all([drip.until('.'), events.until('"n":1')]);
    c.redis?.pause();
    try {
      let ended = 0;
      let rest = '';
      for (const { stream } of [drip, events]) {
        stream.once('end', () => (ended += 1));
        stream.on('data', (chunk: Buffer) => (rest += chunk.toString()));
        stream.resume();
      }
      await eventually(() => ended === 2, { timeout: 10_000, what: 'both answers to end' });
      expect(rest).toContain('"n":10');
    } finally {
      c.redis?.resume();
    }
    await eventually(async () => (await client.api('/api/x')).status === 200, { timeout: 15_000 });
  });
});

describe('A-091 one side leaves', () => {
  test('A-091 a browser that goes, before, during and after the body, aborts the request at the upstream', async () => {
    const draw = random('leaving');
    for (let round = 0; round < 40; round += 1) {
      c.upstream.clear();
      const kind = draw.pick(['hang', 'bytes', 'upload', 'events']);
      const request =
        kind === 'upload'
          ? call('/api/slow-read/5', { method: 'POST', length: 50 * MiB })
          : call({ hang: '/api/hang', bytes: '/api/bytes/100000000', events: '/api/sse/1000/5' }[kind] ?? '');
      request.on('error', () => undefined);
      request.on('response', (response) => response.on('error', () => undefined).resume());
      if (kind === 'upload') request.write(Buffer.alloc(MiB));
      else request.end();
      await eventually(() => c.upstream.requests.length === 1);
      await sleep(draw.int(0, 30));
      request.destroy();
      await eventually(() => lastSeen().aborted || lastSeen().answered, { what: `the end of ${kind}` });
    }
    expect((await client.api('/api/x')).status).toBe(200);
  });

  test('A-091 an upstream that answers early: the answer comes while the upload goes on', async () => {
    for (let round = 0; round < 10; round += 1) {
      const request = call('/api/early', { method: 'POST', length: 8 * MiB });
      request.on('error', () => undefined);
      request.write(Buffer.alloc(MiB));
      const response = await answered(request);
      expect(response.statusCode).toBe(200);
      response.resume();
      request.end(Buffer.alloc(7 * MiB));
    }
    expect((await up(MiB)).bodyLength).toBe(MiB);
  });

  test('A-091 an upstream that breaks off during an upload: 502 or its own answer, never a hang', async () => {
    for (let round = 0; round < 10; round += 1) {
      const request = call('/api/reset', { method: 'POST', length: 20 * MiB });
      request.on('error', () => undefined);
      const answer = answered(request);
      request.write(Buffer.alloc(MiB));
      expect((await answer).statusCode).toBe(502);
      request.destroy();
    }
  });

  test('A-091 a refusal reaches a browser that is still uploading', async () => {
    for (const headers of [{ 'x-csrf': '0' }, { cookie: '' }]) {
      const request = httpRequest({
        port: c.first.port,
        method: 'POST',
        path: '/api/x',
        agent: false,
        headers: {
          host: 'app.example.test',
          origin: 'https://app.example.test',
          'x-csrf': '1',
          'content-length': 20 * MiB,
          ...headers,
        },
      });
      request.on('error', () => undefined);
      const answer = answered(request);
      request.write(Buffer.alloc(MiB));
      expect((await answer).statusCode).toBe('x-csrf' in headers ? 403 : 401);
      request.destroy();
    }
  });

  test('A-091 an upload that stops coming is given up, one that is merely slow is not', async () => {
    const stalled = await RawConnection.open(c.first.port);
    stalled.write(
      scriptRequest(client, { method: 'POST', target: '/brief/x', headers: ['Content-Length: 9'] }),
    );
    stalled.write('12345');
    const { responses } = await stalled.collect({ timeout: 10_000 });
    expect(responses.map(({ status }) => status)).toEqual([408]);
    await eventually(() => lastSeen().aborted);

    const slow = await RawConnection.open(c.first.port);
    slow.write(scriptRequest(client, { method: 'POST', target: '/brief/x', headers: ['Content-Length: 6'] }));
    for (let n = 0; n < 6; n += 1) {
      await sleep(400);
      slow.write(String(n));
    }
    expect((await slow.collect({ answers: 1, timeout: 5000 })).responses[0]?.status).toBe(200);
    slow.close();
  });

  test('A-091 times of a route bound silence, not length: a long answer and a long upload pass', async () => {
    expect((await client.api('/brief/drip/15/150')).body).toHaveLength(15);
    expect((await client.api('/brief/hang')).status).toBe(504);
    expect((await client.api('/brief/delay/5000')).status).toBe(504);
    const total = 12 * BLOCK.length;
    const seen = await up(total, '/brief/x', slowBlocks(total, 150));
    expect(seen.bodyLength).toBe(total);
  });
});
