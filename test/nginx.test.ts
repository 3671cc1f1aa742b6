import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { browserAt, openSocketAt } from './support/gateway.js';
import { expectLeftClean } from './support/left-clean.js';
import { nginxFromDocs, nginxVersion } from './support/nginx.js';
import { OPCODES, WebSocketUpstream } from './support/web-socket.js';

// docs/nginx/tls.conf as it stands there, in a real nginx.
// Skipped where there is no nginx: `npm test` says how it looked for one.

const HOST = 'app.example.test';
const describeWithNginx = nginxVersion === undefined ? describe.skip : describe;

describeWithNginx('behind an nginx that ends TLS (docs/nginx/tls.conf)', () => {
  let c: Cloakroom;
  let port: number;
  let sockets: WebSocketUpstream;

  beforeAll(async () => {
    sockets = await WebSocketUpstream.start();
    c = await startCloakroom({
      replicas: 1,
      config: (file) => ({
        ...file,
        routes: [
          ...(file['routes'] as object[]),
          { path: '/api/ws/', upstream: sockets.url, websocket: true },
        ],
      }),
    });
    port = await nginxFromDocs('tls.conf', HOST, {
      'cloakroom:3000': `127.0.0.1:${String(c.first.clientPort)}`,
    });
  });

  afterAll(async () => {
    await expectLeftClean(c);
  });

  test('login, call, upload, WebSocket, event stream and logout pass', async () => {
    const client = browserAt(c, port);
    expect((await client.login({ returnTo: '/orders?page=2' })).location).toBe('/orders?page=2');
    expect(client.sessionCookie?.secure).toBe(true);
    expect((await client.me()).json()).toMatchObject({ authenticated: true });

    const answer = await client.api('/api/orders/%5B7%5D?x=%2F');
    expect(answer.status).toBe(200);
    expect(answer.headers['strict-transport-security']).toMatch(/^max-age=/);
    const seen = c.upstream.last;
    expect(c.provider.ledger.validAccessToken(seen?.bearer ?? '')?.sub).toBeDefined();
    expect(seen?.url).toBe('/api/orders/%5B7%5D?x=%2F');
    expect(seen?.headers).toMatchObject({ 'x-forwarded-for': '127.0.0.1', 'x-forwarded-proto': 'https' });
    const body = Buffer.alloc(3_000_000, 'x');
    expect((await client.api('/api/upload', { method: 'POST', body })).status).toBe(200);

    const socket = await openSocketAt(port, client, '/api/ws/room', { 'sec-websocket-protocol': 'chat' });
    expect(socket.status).toBe(101);
    socket.send(OPCODES.text, 'hello');
    await socket.heard('hello');
    const events = await client.open('/api/sse/100000/100');
    await events.until('data:');

    const out = await client.logout();
    expect([out.post.status, out.back?.status]).toEqual([200, 303]);
    await socket.ended();
    expect(socket.closing?.[0]).toBe(4401);
    await events.until('event: session-ended');
    expect((await client.api('/api/orders')).problem).toBe('session-required');
  });

  test('no other protocol than WebSocket is changed to', async () => {
    const client = browserAt(c, port);
    await client.login();
    const answer = await openSocketAt(port, client, '/api/orders', { upgrade: 'h2c', 'x-csrf': '1' });
    expect(answer.status).toBe(200);
    expect(c.upstream.last?.headers['upgrade']).toBeUndefined();
  });
});
