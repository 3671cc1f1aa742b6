import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserClient, BrowserResponse, RequestInit } from './support/browser-client.js';
import { caddyFromDocs, caddyVersion } from './support/caddy.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { browserAt, openSocketAt } from './support/gateway.js';
import { expectLeftClean } from './support/left-clean.js';
import { closeLater, eventually } from './support/lifetime.js';
import { nginxFromDocs, nginxVersion } from './support/nginx.js';
import { ownRedis } from './support/redis.js';
import { freePort } from './support/run-folder.js';
import { sessionPair } from './support/script-request.js';
import { startUpstream } from './support/upstream.js';
import { OPCODES, WebSocketUpstream, passUpgrade } from './support/web-socket.js';

// The configurations of docs/ as they stand there, each in the real gateway; only addresses and file names are put in.
// One that is not there is skipped: `npm test` says how it looked for it.

const HOST = 'app.example.test';

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

const GATEWAYS = {
  nginx: {
    file: 'docs/nginx/forward-auth.conf',
    start: (addresses: Record<string, string>) => nginxFromDocs('forward-auth.conf', HOST, addresses),
  },
  caddy: {
    file: 'docs/caddy/Caddyfile',
    start: (addresses: Record<string, string>) => caddyFromDocs(HOST, addresses),
  },
};

describe.each([
  ['nginx', nginxVersion === undefined ? describe.skip : describe],
  ['caddy', caddyVersion === undefined ? describe.skip : describe],
] as const)('%s', (name, describeIfThere) => {
  const { file, start } = GATEWAYS[name];
  describeIfThere(`asks about each request (${file})`, () => {
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
          forwardAuth: { gateway: name, peers: ['127.0.0.1'], host: '127.0.0.1', port: verify },
          routes: [
            { path: '/api/', upstream: `http://127.0.0.1:${String(orders.port)}`, websocket: true },
            { path: '/api/read/', upstream: `http://127.0.0.1:${String(orders.port)}`, methods: ['GET'] },
            {
              path: '/api/seldom/',
              upstream: `http://127.0.0.1:${String(orders.port)}`,
              limits: { rate: { requests: 2, per: '1h' } },
            },
            {
              path: '/api/open/',
              upstream: `http://127.0.0.1:${String(orders.port)}`,
              token: 'user-or-none',
            },
          ],
        },
      });
      port = await start({
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

    async function api(
      client: BrowserClient,
      path: string,
      init: RequestInit = {},
    ): Promise<BrowserResponse> {
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

      const socket = await openSocketAt(port, client, '/api/room', { 'sec-websocket-protocol': 'chat' });
      expect(socket.status).toBe(101);
      expect(orders.seen[2]?.headers.authorization).toBe(`Bearer ${bearer}`);
      expect(orders.seen[2]?.headers.cookie).toBeUndefined();
      socket.send(OPCODES.text, 'hello');
      await socket.heard('hello');
      socket.socket.destroy();

      const cookie = sessionPair(client);
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
      const refused = await openSocketAt(port, client, '/api/room', { cookie });
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
        'another origin': await api(client, '/api/orders', { ...foreign, cookie: sessionPair(client) }),
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
      const socket = await openSocketAt(port, client, '/api/room', { origin: 'https://evil.example' });
      expect(socket.status).toBe(403);
      expect((await openSocketAt(port, client, '/api/read/room')).status).toBe(403);
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

    test('a browser that asks for what the gateway asks gets no token, whatever it says about where it wants to go', async () => {
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
});
