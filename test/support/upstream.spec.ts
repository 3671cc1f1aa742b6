import { createHash, randomBytes } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { BrowserClient } from './browser-client.js';
import { pipeline, RawConnection, sendRaw } from './raw.js';
import { startRawUpstream, startUpstream, type Echo, type Upstream } from './upstream.js';

let upstream: Upstream;

beforeAll(async () => {
  upstream = await startUpstream({ identify: (bearer) => (bearer === 'good' ? 'alice' : undefined) });
});

afterAll(() => upstream.close());

const browser = (): BrowserClient =>
  new BrowserClient(
    { publicUrl: 'http://localhost', replicas: () => [upstream.url] },
    { headers: { authorization: 'Bearer good' } },
  );

test('the echo shows the request and keeps the token', async () => {
  const body = randomBytes(100_000);
  const answer = await browser().api('/x/y?z=%20', { method: 'POST', body });
  const echo = answer.json<Echo>();
  expect(echo).toMatchObject({ method: 'POST', url: '/x/y?z=%20', user: 'alice', bodyLength: 100_000 });
  expect(echo.bodySha256).toBe(createHash('sha256').update(body).digest('hex'));
  expect(answer.text).not.toContain('Bearer');
  expect(upstream.last).toMatchObject({ bearer: 'good', complete: true });
  expect((await browser().api('/x', { headers: { authorization: undefined } })).status).toBe(401);
});

test('events, lengths, resets, interim answers', async () => {
  const client = browser();
  const events = await client.open('/x/sse/3/20');
  expect(await events.until('"n":2')).toContain('"n":1');
  events.abort();
  expect((await client.api('/x/bytes/1000000')).body).toHaveLength(1_000_000);
  expect((await client.api('/x/chunked/70000')).body).toHaveLength(70_000);
  await expect(client.api('/x/reset/1000')).rejects.toThrow();
  await expect(client.api('/x/reset', { method: 'POST', body: 'x' })).rejects.toThrow();
  const interim = await sendRaw(
    upstream.port,
    'GET /x/interim/3 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n\r\n',
    {
      answers: 1,
    },
  );
  expect(interim.responses.map((response) => response.status)).toEqual([103, 103, 103, 200]);
});

test('the raw upstream shows framing as it was sent', async () => {
  const raw = await startRawUpstream();
  const sent =
    'POST /a HTTP/1.1\r\nhOST: a\r\nX-A:  1\r\nTransfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n0\r\nX-T: 1\r\n\r\n';
  const result = await pipeline(raw.port, [sent, 'GET /b HTTP/1.1\r\nHost: b\r\n\r\n']);
  expect(result.responses.map((response) => response.body.toString())).toEqual(['ok', 'ok']);
  expect(raw.requests.map((request) => request.target)).toEqual(['/a', '/b']);
  expect(raw.requests[0]?.bytes.toString('latin1')).toBe(sent);
  expect(raw.requests[0]?.headers[0]).toEqual(['hOST', 'a']);
  raw.handler = () => ({ bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort', close: 'reset' });
  const broken = await sendRaw(raw.port, 'GET / HTTP/1.1\r\n\r\n');
  expect(broken.end).toBe('reset');
  expect(broken.text).toContain('short');
  const half = await RawConnection.open(raw.port);
  half.write('GET /never');
  expect(await half.collect({ timeout: 50 })).toMatchObject({ end: 'timeout' });
  half.close();
});

test('stopped and started it listens on the same port', async () => {
  const { port } = upstream;
  await upstream.stop();
  await expect(browser().api('/x')).rejects.toThrow();
  await upstream.start();
  expect(upstream.port).toBe(port);
  expect((await browser().api('/x')).status).toBe(200);
});
