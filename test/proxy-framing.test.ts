import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { FRAMING_CASES, SMUGGLED, type FramingCase } from './support/framing-cases.js';
import { expectLeftClean } from './support/left-clean.js';
import { sleep } from './support/lifetime.js';
import { random } from './support/random.js';
import { RawConnection, sendRaw } from './support/raw.js';
import { scriptRequest, sessionPair } from './support/script-request.js';
import { startRawUpstream, type RawRequest, type RawUpstream } from './support/upstream.js';

let c: Cloakroom;
let upstream: RawUpstream;
let attacker: BrowserClient;
let victim: BrowserClient;
let usual: string;

beforeAll(async () => {
  upstream = await startRawUpstream(echo);
  // One process: both clients' requests travel on the same connections to the upstream.
  c = await startCloakroom({ replicas: 1, upstream });
  attacker = await c.signedIn({ user: 'alice' });
  victim = await c.signedIn({ user: 'bob' });
  usual = `Host: app.example.test\r\nCookie: ${sessionPair(attacker)}\r\nX-CSRF: 1\r\nOrigin: https://app.example.test\r\n`;
});

afterAll(async () => {
  await expectLeftClean(c);
});

beforeEach(() => {
  upstream.handler = echo;
  upstream.requests.length = 0;
});

/** Answers with the request line, so that a mixed-up answer is seen. */
function echo({ requestLine, method }: RawRequest): string {
  const body = method === 'HEAD' ? '' : requestLine;
  return `HTTP/1.1 200 OK\r\nContent-Length: ${requestLine.length}\r\n\r\n${body}`;
}

const unchunked = (body: Buffer): string =>
  body
    .toString('latin1')
    .replace(/^[0-9a-f]+\r\n/i, '')
    .replace(/\r\n0\r\n\r\n$/, '');

/** A request as a strict reader takes it: one framing, known names, nothing of the attacker's. */
function expectWellFormed(request: RawRequest, body: string): void {
  const lines = request.head.split('\r\n').slice(1);
  for (const line of lines) expect(line).toMatch(/^[a-z0-9-]+: [\x20-\x7e\x80-\xff]*$/i);
  const names = request.headers.map(([name]) => name.toLowerCase());
  expect(new Set(names).size).toBe(names.length);
  for (const foreign of [
    'upgrade',
    'http2-settings',
    'expect',
    'x-evil',
    'cookie',
    'transfer_encoding',
    'trailer',
  ])
    expect(names).not.toContain(foreign);
  const framing = names.filter((name) => name === 'content-length' || name === 'transfer-encoding');
  expect(framing.length).toBeLessThanOrEqual(1);
  const chunked = request.header('transfer-encoding');
  if (chunked !== undefined) expect(chunked).toBe('chunked');
  expect(chunked === undefined ? request.body.toString('latin1') : unchunked(request.body)).toBe(body);
  expect(request.target).toBe('/api/x');
}

/** What nobody may have touched: the marker of another client, and its answer. */
async function expectVictimUnharmed(name: string): Promise<void> {
  const target = `/api/marker?${encodeURIComponent(name)}`;
  const { responses } = await sendRaw(c.first.clientPort, scriptRequest(victim, { target }), { answers: 1 });
  expect(responses[0]?.status).toBe(200);
  expect(responses[0]?.body.toString()).toBe(`GET ${target} HTTP/1.1`);
}

const isMarker = ({ target }: RawRequest): boolean => target.startsWith('/api/marker');

async function attack(one: FramingCase): Promise<void> {
  // Warm connections to the upstream, so that what follows shares one.
  await expectVictimUnharmed(`before ${one.name}`);
  upstream.requests.length = 0;
  for (const connection of upstream.connections) connection.received = Buffer.alloc(0);
  const pipelined = scriptRequest(attacker, { target: '/api/marker?pipelined' });
  const [result] = await Promise.all([
    sendRaw(c.first.clientPort, one.bytes(usual) + pipelined, {
      timeout: 5000,
      answers: 2,
      head: one.bytes(usual).startsWith('HEAD'),
    }),
    expectVictimUnharmed(`during ${one.name}`),
  ]);
  await expectVictimUnharmed(`after ${one.name}`);

  const final = result.responses.filter(({ status }) => status >= 200);
  const arrived = upstream.requests.filter((request) => !isMarker(request));
  const served = one.expected === 'served' || (one.expected === 'either' && final[0]?.status === 200);
  if (served) {
    expect(final.map(({ status }) => status)[0]).toBe(200);
    expect(arrived).toHaveLength(1);
    if (arrived[0] !== undefined) expectWellFormed(arrived[0], one.body ?? '');
    // Its own second request was read from where the first one ended.
    const next = upstream.requests.filter(({ target }) => target.endsWith('?pipelined'));
    expect(next).toHaveLength(one.last === true ? 0 : 1);
    if (one.last === true) expect(result.end).toBe('closed');
  } else {
    expect(final.map(({ status }) => status)).toEqual([one.expected === 'either' ? 400 : one.expected]);
    expect(result.end).toBe('closed');
    expect(upstream.requests.filter(({ target }) => target.endsWith('?pipelined'))).toHaveLength(0);
    // A body that turns out to be broken may have begun to arrive; a whole request never.
    expect(arrived).toHaveLength(0);
  }
  const everything = upstream.received.toString('latin1');
  if (one.body !== SMUGGLED) expect(everything).not.toContain('/api/smuggled');
  expect(everything).not.toContain('X-Evil: 1\r\nCookie');
  // Every byte belongs to a request that was read whole, or to one whose connection was given up.
  for (const connection of upstream.connections) {
    const markers = connection.requests.filter(isMarker).length;
    if (connection.closed) continue;
    expect(markers + connection.requests.length).toBeGreaterThan(0);
  }
}

test('A-083 the table has the 57 cases of the standard and more', () => {
  expect(FRAMING_CASES.length).toBeGreaterThanOrEqual(57);
  expect(new Set(FRAMING_CASES.map(({ name }) => name)).size).toBe(FRAMING_CASES.length);
});

test.each(FRAMING_CASES.map((one) => [one.name, one] as const))(
  'A-083 %s: refused and closed, or one well-formed request; no other client is touched',
  async (_name, one) => {
    await attack(one);
  },
);

test('A-083 an early answer leaves the rest of the body to nobody', async () => {
  upstream.handler = (request) => (isMarker(request) ? echo(request) : undefined);
  for (let round = 0; round < 20; round += 1) {
    await expectVictimUnharmed(`before ${round}`);
    const connection = await RawConnection.open(c.first.clientPort);
    const seen = upstream.connections.length;
    connection.write(
      `POST /api/x HTTP/1.1\r\n${usual}Content-Length: ${SMUGGLED.length + 10}\r\n\r\n0123456789`,
    );
    // The upstream answers when it has the head, long before the body is whole.
    await sleep(20);
    const open = upstream.connections.find(
      ({ received, closed }) => !closed && received.includes('0123456789'),
    );
    open?.socket.write('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly');
    const first = await connection.collect({ answers: 1, timeout: 5000 });
    expect(first.responses[0]?.body.toString()).toBe('early');
    connection.write(SMUGGLED);
    await expectVictimUnharmed(`after ${round}`);
    // Still the attacker's own body: whatever follows on its connection is read from behind it.
    connection.write(scriptRequest(attacker, { target: '/api/marker?next' }));
    const { responses, end } = await connection.collect({ answers: 2, timeout: 2000 });
    if (end === 'enough') expect(responses[1]?.body.toString()).toBe('GET /api/marker?next HTTP/1.1');
    connection.close();
    expect(upstream.requests.filter(({ target }) => target === '/api/smuggled')).toEqual([]);
    expect(upstream.connections.length).toBeGreaterThanOrEqual(seen);
    upstream.requests.length = 0;
  }
});

test('A-083 Expect and a body held back: refused requests leave no body, accepted ones only their own', async () => {
  const held = await RawConnection.open(c.first.clientPort);
  held.write(`POST /api/x HTTP/1.1\r\n${usual}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n`);
  const interim = await held.collect({ timeout: 300 });
  expect(interim.text).toBe('HTTP/1.1 100 Continue\r\n\r\n');
  held.write('hello');
  const answered = await held.collect({ answers: 1, timeout: 5000 });
  expect(answered.responses.at(-1)?.body.toString()).toBe('POST /api/x HTTP/1.1');
  held.close();

  // Refused before the body: no 100, and what follows must not be read as the next request.
  const anonymous = await sendRaw(
    c.first.clientPort,
    `POST /api/x HTTP/1.1\r\nHost: app.example.test\r\nX-CSRF: 1\r\nOrigin: https://app.example.test\r\nExpect: 100-continue\r\nContent-Length: ${SMUGGLED.length}\r\n\r\n${scriptRequest(attacker, { target: '/api/smuggled' })}`,
    { timeout: 3000 },
  );
  expect(anonymous.text).not.toContain('100 Continue');
  expect(anonymous.responses.map(({ status }) => status)).toEqual([401]);
  expect(anonymous.end).toBe('closed');
  const old = await sendRaw(
    c.first.clientPort,
    `POST /api/x HTTP/1.0\r\n${usual}Expect: 100-continue\r\nContent-Length: 2\r\n\r\nhi`,
    { timeout: 3000 },
  );
  expect(old.text).not.toContain('100 Continue');
  expect(old.responses.map(({ status }) => status)).toEqual([200]);
  expect(upstream.requests.map(({ target }) => target)).toEqual(['/api/x', '/api/x']);
});

test('A-083 the same bytes in any pieces are the same request', async () => {
  const draw = random('pieces');
  for (let round = 0; round < 30; round += 1) {
    const bytes = `POST /api/x HTTP/1.1\r\n${usual}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x\r\n!\r\n0\r\n\r\n`;
    const cuts = Array.from({ length: draw.int(1, 6) }, () => draw.int(1, bytes.length - 1)).sort(
      (a, b) => a - b,
    );
    const pieces = [0, ...cuts].map((cut, at) => bytes.slice(cut, cuts[at] ?? bytes.length));
    const { responses } = await sendRaw(c.first.clientPort, pieces, { answers: 1, pause: 2, timeout: 5000 });
    expect(responses[0]?.status).toBe(200);
  }
  for (const request of upstream.requests) {
    expect(request.body.toString().replace(/[0-9]+\r\n|\r\n/g, '')).toBe('hello!');
  }
});
