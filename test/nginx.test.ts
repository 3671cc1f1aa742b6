import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { BrowserClient, type BrowserResponse, type RequestInit } from './support/browser-client.js';
import { repository, startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { closeLater, eventually } from './support/lifetime.js';
import { intoTls, launchNginx, nginxVersion } from './support/nginx.js';
import { ownRedis } from './support/redis.js';
import { freePort } from './support/run-folder.js';
import { startUpstream } from './support/upstream.js';
import { BrowserSocket, OPCODES, WebSocketUpstream, passUpgrade } from './support/web-socket.js';

// The configurations of docs/nginx/ as they stand there, in a real nginx; only addresses and file names are put in.
// Skipped where there is no nginx: `npm test` says how it looked for one.

const HOST = 'app.example.test';
const describeWithNginx = nginxVersion === undefined ? describe.skip : describe;

/** @returns a plain port that leads to nginx inside TLS */
async function startFromDocs(name: string, addresses: Record<string, string>): Promise<number> {
  const port = await freePort();
  await launchNginx(HOST, port, (_folder, { certificate, key }) => {
    const changes: Record<string, string> = {
      'listen 443 ssl': `listen 127.0.0.1:${String(port)} ssl`,
      'server_name app.example.com': `server_name ${HOST}`,
      '/etc/nginx/app.example.com.pem': certificate,
      '/etc/nginx/app.example.com.key': key,
      ...Object.fromEntries(
        Object.entries(addresses).map(([from, to]) => [`server ${from};`, `server ${to};`]),
      ),
    };
    let text = readFileSync(join(repository, 'docs', 'nginx', name), 'utf8');
    for (const [from, to] of Object.entries(changes)) {
      if (!text.includes(from)) throw new Error(`docs/nginx/${name} does not say ${from}`);
      text = text.replaceAll(from, to);
    }
    return text;
  });
  return intoTls(port, HOST);
}

function browserAt(c: Cloakroom, port: number): BrowserClient {
  return new BrowserClient({
    publicUrl: c.publicUrl,
    replicas: () => [`http://127.0.0.1:${String(port)}`],
  });
}

/** Opens a WebSocket through nginx; what the proxy in front says of itself, nginx says. */
function openSocket(
  client: BrowserClient,
  port: number,
  path: string,
  headers: Record<string, string | undefined> = {},
): Promise<BrowserSocket> {
  const room = { replica: () => ({ clientPort: port }) } as unknown as Cloakroom;
  return BrowserSocket.open(room, client, path, { headers: { 'x-forwarded-proto': undefined, ...headers } });
}

const pair = (client: BrowserClient): string =>
  `${String(client.sessionCookie?.name)}=${String(client.sessionCookie?.value)}`;

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
    port = await startFromDocs('tls.conf', { 'cloakroom:3000': `127.0.0.1:${String(c.first.clientPort)}` });
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

    const socket = await openSocket(client, port, '/api/ws/room', { 'sec-websocket-protocol': 'chat' });
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
    const answer = await openSocket(client, port, '/api/orders', { upgrade: 'h2c', 'x-csrf': '1' });
    expect(answer.status).toBe(200);
    expect(c.upstream.last?.headers['upgrade']).toBeUndefined();
  });
});

interface Seen {
  method: string;
  url: string;
  headers: IncomingMessage['headers'];
  body: string;
}

/** An upstream that knows nothing of Cloakroom, with WebSockets. */
async function startOrders(): Promise<{ port: number; seen: Seen[]; status: number }> {
  const sockets = await WebSocketUpstream.start();
  const orders = { port: 0, seen: [] as Seen[], status: 200 };
  const note = ({ method = '', url = '', headers }: IncomingMessage, body = ''): void => {
    orders.seen.push({ method, url, headers, body });
  };
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString()));
    request.on('end', () => {
      note(request, body);
      // As careless as upstreams are.
      response.writeHead(orders.status, {
        'content-type': 'application/json',
        authorization: request.headers.authorization ?? '',
        'set-cookie': '__Host-cloakroom-session=mine; Secure; Path=/',
      });
      response.end('{"orders":[]}');
    });
  });
  server.on('upgrade', (request, socket, head) => {
    note(request);
    passUpgrade(request, socket, head, sockets.url);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closeLater(() => {
    server.closeAllConnections();
    server.close();
  });
  orders.port = (server.address() as AddressInfo).port;
  return orders;
}

describeWithNginx('an nginx that asks about each request (docs/nginx/forward-auth.conf)', () => {
  let c: Cloakroom;
  let port: number;
  let orders: Awaited<ReturnType<typeof startOrders>>;
  /** Everything that came back over TLS. */
  let received: BrowserResponse[];

  beforeAll(async () => {
    orders = await startOrders();
    const verify = await freePort();
    c = await startCloakroom({
      replicas: 1,
      upstream: await startUpstream(),
      config: {
        forwardAuth: { gateway: 'nginx', peers: ['127.0.0.1'], host: '127.0.0.1', port: verify },
        routes: [
          { path: '/api/', upstream: `http://127.0.0.1:${String(orders.port)}`, websocket: true },
          { path: '/api/read/', upstream: `http://127.0.0.1:${String(orders.port)}`, methods: ['GET'] },
          {
            path: '/api/seldom/',
            upstream: `http://127.0.0.1:${String(orders.port)}`,
            limits: { rate: { requests: 2, per: '1h' } },
          },
          { path: '/api/open/', upstream: `http://127.0.0.1:${String(orders.port)}`, token: 'user-or-none' },
        ],
      },
    });
    port = await startFromDocs('forward-auth.conf', {
      'cloakroom:3000': `127.0.0.1:${String(c.first.clientPort)}`,
      'cloakroom:3020': `127.0.0.1:${String(verify)}`,
      'orders:8080': `127.0.0.1:${String(orders.port)}`,
    });
  });

  beforeEach(() => {
    orders.seen.length = 0;
    orders.status = 200;
    received = [];
  });

  afterAll(async () => {
    await expectLeftClean(c);
  });

  async function signedIn(): Promise<BrowserClient> {
    const client = browserAt(c, port);
    const answer = await client.login();
    expect(answer.status).toBe(303);
    received.push(answer);
    return client;
  }

  async function api(client: BrowserClient, path: string, init: RequestInit = {}): Promise<BrowserResponse> {
    const answer = await client.api(path, init);
    received.push(answer);
    return answer;
  }

  /** Not a token in any head or body that a browser got. */
  function expectNoTokens(...more: string[]): void {
    const text = received.map(({ rawHeaders, body }) => `${rawHeaders.join('\n')}\n${body.toString()}`);
    const tokens = [...c.provider.ledger.accessTokens.keys(), ...c.provider.ledger.refreshTokens.keys()];
    expect(tokens.length).toBeGreaterThan(0);
    for (const one of [...text, ...more]) {
      expect(one).not.toMatch(/bearer/i);
      for (const token of tokens) expect(one.includes(token)).toBe(false);
    }
  }

  test('login, call, upload, WebSocket and logout pass; the upstream sees the token, the browser never', async () => {
    const client = await signedIn();
    received.push(await client.me());
    const answer = await api(client, '/api/orders?x=1', { headers: { authorization: 'Bearer of-mine' } });
    expect([answer.status, answer.text]).toEqual([200, '{"orders":[]}']);
    const [seen] = orders.seen;
    expect([seen?.method, seen?.url]).toEqual(['GET', '/api/orders?x=1']);
    const bearer = seen?.headers.authorization?.slice('Bearer '.length) ?? '';
    expect(c.provider.ledger.validAccessToken(bearer)?.sub).toBeDefined();
    expect(seen?.headers.cookie).toBeUndefined();
    expect(answer.headers['authorization']).toBeUndefined();
    expect(answer.setCookies).toEqual([]);

    expect((await api(client, '/api/orders', { method: 'POST', body: 'a'.repeat(100_000) })).status).toBe(
      200,
    );
    expect([orders.seen[1]?.method, orders.seen[1]?.body.length]).toEqual(['POST', 100_000]);

    const socket = await openSocket(client, port, '/api/room', { 'sec-websocket-protocol': 'chat' });
    expect(socket.status).toBe(101);
    expect(orders.seen[2]?.headers.authorization).toBe(`Bearer ${bearer}`);
    expect(orders.seen[2]?.headers.cookie).toBeUndefined();
    socket.send(OPCODES.text, 'hello');
    await socket.heard('hello');
    socket.socket.destroy();

    const cookie = pair(client);
    const out = await client.logout();
    received.push(out.post);
    expect(out.post.status).toBe(200);
    orders.seen.length = 0;
    const after = await api(client, '/api/orders', { cookie });
    expect([after.status, after.json()]).toEqual([
      401,
      expect.objectContaining({ type: 'session-required', loginUrl: '/auth/login' }),
    ]);
    expect(after.headers['cache-control']).toBe('no-store');
    expect(after.setCookies).toEqual([expect.stringMatching(/^__Host-cloakroom-session=;.*Max-Age=0/)]);
    const refused = await openSocket(client, port, '/api/room', { cookie });
    expect(refused.status).toBe(401);
    expect(orders.seen).toEqual([]);
    expectNoTokens(refused.text, socket.texts.join('\n'), JSON.stringify(socket.headers));
  });

  test('the rules of the routes hold, and nothing that breaks them reaches the upstream', async () => {
    const client = await signedIn();
    const foreign = { headers: { origin: 'https://evil.example' }, site: 'cross-site' } as const;
    const answers = {
      anonymous: await api(browserAt(c, port), '/api/orders'),
      'without the header': await api(client, '/api/orders', { headers: { 'x-csrf': undefined } }),
      'another origin': await api(client, '/api/orders', { ...foreign, cookie: pair(client) }),
      'a method that is not listed': await api(client, '/api/read/x', { method: 'POST', body: 'x' }),
      'an empty segment': await api(client, '/api//orders'),
      'an escaped slash': await api(client, '/api/a%2Fb'),
    };
    expect(Object.entries(answers).map(([what, { status }]) => [what, status])).toEqual([
      ['anonymous', 401],
      ['without the header', 403],
      ['another origin', 403],
      ['a method that is not listed', 403],
      ['an empty segment', 400],
      ['an escaped slash', 400],
    ]);
    const socket = await openSocket(client, port, '/api/room', { origin: 'https://evil.example' });
    expect(socket.status).toBe(403);
    expect((await openSocket(client, port, '/api/read/room')).status).toBe(403);
    expect(orders.seen).toEqual([]);
    expectNoTokens();
  });

  test('where nobody needs to be signed in, nobody is, whatever the client says of itself', async () => {
    const answer = await api(browserAt(c, port), '/api/open/x', {
      headers: { authorization: 'Bearer of-mine' },
    });
    expect(answer.status).toBe(200);
    expect(orders.seen[0]?.headers.authorization).toBeUndefined();
    const client = await signedIn();
    expect((await api(client, '/api/open/x')).status).toBe(200);
    expect(orders.seen[1]?.headers.authorization).toMatch(/^Bearer /);
    expectNoTokens();
  });

  test('requests that come too often are 429', async () => {
    const client = await signedIn();
    const statuses: number[] = [];
    for (let n = 0; n < 3; n += 1) statuses.push((await api(client, '/api/seldom/x')).status);
    expect(statuses).toEqual([200, 200, 429]);
    expect(received.at(-1)?.problem).toBe('too-many-requests');
    expect(orders.seen).toHaveLength(2);
  });

  test("an upstream's own 401, 403 and 500 pass as they are", async () => {
    const client = await signedIn();
    for (const status of [401, 403, 500]) {
      orders.status = status;
      const answer = await api(client, '/api/orders');
      expect([answer.status, answer.text]).toEqual([status, '{"orders":[]}']);
    }
    expect((await client.me()).status).toBe(200);
  });

  test('a browser that asks for what nginx asks gets no token, whatever it says about where it wants to go', async () => {
    const client = await signedIn();
    const headers = {
      'x-original-method': 'GET',
      'x-original-uri': '/api/orders',
      'x-forwarded-method': 'GET',
      'x-forwarded-uri': '/api/orders',
    };
    for (const path of [
      '/auth/verify',
      '/_verify',
      '/auth/verify/api/orders',
      '/auth/verify?x',
      '/auth%2Fverify',
    ]) {
      const answer = await api(client, path, { headers });
      expect([path, [400, 404].includes(answer.status)]).toEqual([path, true]);
    }
    // Nor does it choose another address to be asked about than the one it goes to.
    const answer = await api(browserAt(c, port), '/api/orders', {
      headers: { ...headers, 'x-original-uri': '/api/open/x' },
    });
    expect(answer.status).toBe(401);
    expect(orders.seen).toEqual([]);
    expectNoTokens();
  });

  // Only a Redis of the tests' own may be frozen; REDIS_URL may be somebody else's.
  (ownRedis ? test : test.skip)('without the store it is 503, and nobody is logged out', async () => {
    const client = await signedIn();
    c.redis?.pause();
    try {
      const answer = await api(client, '/api/orders');
      expect([answer.status, answer.problem, answer.headers['retry-after']]).toEqual([
        503,
        'store-unavailable',
        '1',
      ]);
      expect(answer.setCookies).toEqual([]);
    } finally {
      c.redis?.resume();
    }
    await eventually(async () => (await client.api('/api/orders')).status === 200, { timeout: 15_000 });
    expectNoTokens();
  });
});
