import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { FRAMING_CASES, SMUGGLED, type FramingCase } from './support/framing-cases.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { expectedHead, plainHead, unchunked } from './support/plain-head.js';
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

/** Exactly the request that was meant, byte for byte, with one framing and nothing of the attacker's. */
function expectAsMeant(request: RawRequest, one: FramingCase): void {
  const body = one.body ?? '';
  const length = request.header('content-length');
  const framing =
    length !== undefined
      ? `content-length: ${body.length}`
      : request.header('transfer-encoding') !== undefined
        ? 'transfer-encoding: chunked'
        : undefined;
  const [method = ''] = request.requestLine.split(' ');
  expect(plainHead(request)).toEqual(
    expectedHead(upstream.url, { line: `${method} /api/x HTTP/1.1`, passed: one.passed ?? [], framing }),
  );
  expect(framing === undefined && body !== '').toBe(false);
  expect(
    length === undefined && framing !== undefined ? unchunked(request.body) : request.body.toString('latin1'),
  ).toBe(body);
}

/** As {@link expectVictimUnharmed}, on every connection to the upstream that is still open, this attack's among them. */
async function expectConnectionsUnharmed(name: string): Promise<void> {
  const open = upstream.connections.filter(({ closed }) => !closed);
  let arrived = 0;
  let all: () => void = () => undefined;
  const together = new Promise<void>((resolve) => (all = resolve));
  // No answer before all are there: so each of them takes a connection of its own.
  upstream.handler = async (request) => {
    arrived += 1;
    if (arrived >= open.length) all();
    await together;
    return echo(request);
  };
  await Promise.all(open.map((_, at) => expectVictimUnharmed(`${name} ${at}`)));
  upstream.handler = echo;
  for (const { received, requests, closed } of open) {
    if (closed) continue;
    // Every byte belongs to a request that was meant.
    expect(Buffer.concat(requests.map(({ bytes }) => bytes)).equals(received)).toBe(true);
    const last = requests.at(-1);
    expect(last && plainHead(last)).toEqual(expectedHead(upstream.url, { line: last?.requestLine ?? '' }));
    expect(last?.target).toMatch(/^\/api\/marker/);
  }
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
  upstream.connections = upstream.connections.filter(({ closed }) => !closed);
  for (const connection of upstream.connections) {
    connection.received = Buffer.alloc(0);
    connection.requests.length = 0;
  }
  const pipelined = scriptRequest(attacker, { target: '/api/marker?pipelined' });
  const [result] = await Promise.all([
    sendRaw(c.first.clientPort, one.bytes(usual) + pipelined, {
      timeout: 5000,
      answers: one.answers ?? 2,
      head: one.bytes(usual).startsWith('HEAD'),
    }),
    expectVictimUnharmed(`during ${one.name}`),
  ]);
  await expectConnectionsUnharmed(`after ${one.name}`);

  const final = result.responses.filter(({ status }) => status >= 200);
  const arrived = upstream.requests.filter((request) => !isMarker(request));
  const served = one.expected === 'served' || (one.expected === 'either' && final[0]?.status === 200);
  if (served) {
    expect(final.map(({ status }) => status)[0]).toBe(200);
    expect(arrived).toHaveLength(1);
    if (arrived[0] !== undefined) expectAsMeant(arrived[0], one);
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
}

test('A-083 the table has the 57 cases of the standard and more', () => {
  expect(FRAMING_CASES.length).toBeGreaterThanOrEqual(140);
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
    const open = await eventually(() =>
      upstream.connections.find(({ received, closed }) => !closed && received.includes('0123456789')),
    );
    open.socket.write('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly');
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
