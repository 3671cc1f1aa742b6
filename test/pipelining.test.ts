import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { loginsLast } from './support/over-at-once.js';
import { RawConnection, sendRaw } from './support/raw.js';
import { withRoutes } from './support/routes.js';
import { scriptRequest } from './support/script-request.js';
import { startRawUpstream, type RawUpstream } from './support/upstream.js';

let c: Cloakroom;
let client: BrowserClient;
let raw: RawUpstream;

beforeAll(async () => {
  raw = await startRawUpstream();
  c = await startCloakroom({
    replicas: 1,
    config: withRoutes((upstream) => [
      { path: '/api/', upstream, limits: { parallel: 8 } },
      { path: '/calls/', upstream },
      { path: '/ws/', upstream: raw.url, websocket: true },
      { path: '/raw/', upstream: raw.url },
    ]),
  });
  loginsLast(c.provider, 3600);
  client = await c.signedIn();
});

beforeEach(() => {
  c.upstream.clear();
});

afterAll(async () => {
  await expectLeftClean(c);
});

const get = (target: string): string => scriptRequest(client, { target });
const handshake = (target: string, version = '13'): string =>
  scriptRequest(client, {
    target,
    headers: [
      ...['Connection: Upgrade', 'Upgrade: websocket', `Sec-WebSocket-Version: ${version}`],
      'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    ],
  });

describe('A-118 requests of one connection', () => {
  test('those that wait behind another end with their connection: nothing of them goes on at the upstream', async () => {
    for (let round = 0; round < 5; round += 1) {
      c.upstream.clear();
      const connection = await RawConnection.open(c.first.port);
      connection.write(['/api/hang', '/api/sse/10000/10', '/api/hang', '/api/hang'].map(get).join(''));
      await eventually(() => c.upstream.requests.length === 4);
      connection.close();
      await eventually(() => c.upstream.requests.every(({ aborted }) => aborted));
    }
    // Nobody counts them as under way any more.
    expect((await client.api('/api/x')).status).toBe(200);
  });

  test('what its client has left before it was looked at never reaches the upstream', async () => {
    for (let round = 0; round < 100; round += 1) {
      const connection = await RawConnection.open(c.first.port);
      connection.write(Array.from({ length: 6 }, (_, i) => get(`/api/${String(i)}`)).join(''));
      connection.close();
    }
    await client.api('/api/last');
    for (const { headers } of c.upstream.requests) {
      expect(headers['x-forwarded-for']).toMatch(/^[0-9a-f.:]+$/);
    }
  });

  test('a handshake behind several calls waits for all of them, and has an answer of its own', async () => {
    for (let round = 0; round < 20; round += 1) {
      const { responses } = await sendRaw(
        c.first.port,
        `${get('/calls/delay/20')}${get('/calls/1')}${get('/calls/2')}${handshake('/ws/room', '8')}`,
        { answers: 4, timeout: 5000 },
      );
      expect(responses.map(({ status }) => status)).toEqual([200, 200, 200, 400]);
    }
  });

  test.each([
    ['refused by us', '/ws/room', '8', 400],
    ['refused by the upstream', '/ws/room', '13', 403],
  ])(
    'a handshake %s: the connection is closed, though the client would leave it open',
    async (_what, target, version, status) => {
      raw.handler = () => 'HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno';
      const { responses, end } = await sendRaw(c.first.port, handshake(target, version), { timeout: 8000 });
      expect(responses.map((answer) => answer.status)).toEqual([status]);
      expect(end).not.toBe('timeout');
    },
  );

  test('A-091 a reason phrase that cannot be sent on is left out, and the answer passes', async () => {
    for (const reason of ['\xff\xfe', '\x80 odd', 'caf\xc3\xa9', '']) {
      raw.handler = () => Buffer.from(`HTTP/1.1 200 ${reason}\r\nContent-Length: 2\r\n\r\nok`, 'latin1');
      const answer = await client.api('/raw/x', { timeout: 5000 });
      expect([answer.status, answer.text]).toEqual([200, 'ok']);
    }
  });
});
