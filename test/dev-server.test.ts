import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { launchChromium } from './support/chromium.js';
import { expectLeftClean } from './support/left-clean.js';
import { closeLater, eventually } from './support/lifetime.js';
import { sendRaw } from './support/raw.js';
import { BrowserSocket, OPCODES, WebSocketUpstream, passUpgrade } from './support/web-socket.js';

const PAGE = `<!doctype html><title>dev</title>
<script>window.inline = true; const socket = new WebSocket('ws://' + location.host + '/?token=t', 'vite-hmr');
socket.onmessage = ({ data }) => { document.title = data; };
socket.onopen = () => socket.send('connected');</script><script type="module" src="/src/main.ts"></script>`;

/** Serves as Vite does: a page with a script in it, modules by their sources' paths, and a WebSocket at the root. */
class DevServer {
  readonly seen: { method: string; url: string; headers: IncomingMessage['headers']; raw: string }[] = [];

  private readonly upgraded = new Set<Duplex>();

  private constructor(
    readonly sockets: WebSocketUpstream,
    private readonly server: Server,
  ) {}

  static async start(): Promise<DevServer> {
    const sockets = await WebSocketUpstream.start();
    sockets.answer = (accept) =>
      `HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${accept}\r\nSec-WebSocket-Protocol: vite-hmr\r\n\r\n`;
    const server = createServer((request, response) => {
      dev.note(request);
      const isModule = request.url?.startsWith('/src/') === true;
      response.writeHead(200, {
        'content-type': isModule ? 'text/javascript' : 'text/html',
        'cache-control': 'no-cache',
        'access-control-allow-origin': '*',
        'set-cookie': 'dev=1; Path=/',
      });
      response.end(isModule ? 'window.module = true' : PAGE);
    });
    const dev = new DevServer(sockets, server);
    server.on('upgrade', (request, socket, head) => {
      dev.note(request);
      dev.upgraded.add(socket);
      const onward = passUpgrade(request, socket, head, sockets.url);
      socket.on('end', () => onward.resetAndDestroy());
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    closeLater(() => {
      dev.stop();
    });
    return dev;
  }

  get url(): string {
    return `http://127.0.0.1:${String((this.server.address() as AddressInfo).port)}`;
  }

  /** Once its own sockets are gone too: those that changed their protocol are not the server's any more. */
  stop(): void {
    for (const socket of this.upgraded) socket.destroy();
    this.server.closeAllConnections();
    this.server.close();
  }

  private note({ method = '', url = '', headers, rawHeaders }: IncomingMessage): void {
    this.seen.push({ method, url, headers, raw: rawHeaders.join('\n') });
  }
}

let dev: DevServer;
let c: Cloakroom;
let client: BrowserClient;

beforeAll(async () => {
  dev = await DevServer.start();
  c = await startCloakroom({
    local: true,
    redis: 'memory',
    config: { frontend: { devServer: dev.url } },
  });
  client = await c.signedIn();
});

beforeEach(() => {
  dev.seen.length = 0;
});

afterAll(async () => {
  await expectLeftClean(c);
});

describe('a development server', () => {
  test('gets whatever is neither a route nor an endpoint of ours, without session, token and cookies', async () => {
    for (const path of [
      '/',
      '/orders/7',
      '/src/main.ts?t=1',
      '/@vite/client',
      '/node_modules/.vite/deps/x.js',
    ]) {
      const answer = await client.navigate(path);
      expect([path, answer.status]).toEqual([path, 200]);
      expect(answer.setCookies).toEqual([]);
    }
    expect((await client.fetch('/__open', { method: 'POST', body: 'x' })).status).toBe(200);
    expect(dev.seen.map(({ method, url }) => `${method} ${url}`)).toEqual([
      'GET /',
      'GET /orders/7',
      'GET /src/main.ts?t=1',
      'GET /@vite/client',
      'GET /node_modules/.vite/deps/x.js',
      'POST /__open',
    ]);
    for (const { headers, raw } of dev.seen) {
      expect([headers.cookie, headers.authorization]).toEqual([undefined, undefined]);
      expect(raw).not.toContain(client.sessionCookie?.value);
      expect(headers.host).toBe(new URL(dev.url).host);
      expect(headers['sec-fetch-site']).toBeDefined();
    }
  });

  test('has nothing of ours: routes and endpoints stay here', async () => {
    expect((await client.me()).json()).toMatchObject({ authenticated: true });
    expect((await client.api('/api/x')).status).toBe(200);
    expect((await client.fetch('/api/x')).problem).toBe('csrf');
    expect((await client.navigate('/auth/unknown')).status).toBe(404);
    expect((await client.fetch('/livez')).status).toBe(200);
    expect(dev.seen).toEqual([]);
  });

  test('may have scripts in its pages, keeps its caching headers, and is still for our origin only', async () => {
    const answer = await client.navigate('/');
    expect(answer.headers['content-security-policy']).toBe("frame-ancestors 'none'");
    expect(answer.headers['cache-control']).toBe('no-cache');
    expect(answer.headers['cross-origin-resource-policy']).toBe('same-origin');
    expect(answer.headers['access-control-allow-origin']).toBeUndefined();
  });

  test('is not there for a name of somebody else that leads here', async () => {
    const head = 'Host: rebound.evil.example\r\n\r\n';
    const { responses } = await sendRaw(c.first.clientPort, `GET /src/main.ts HTTP/1.1\r\n${head}`, {
      answers: 1,
    });
    expect(responses[0]?.status).toBe(400);
    expect(responses[0]?.body.toString()).toContain(c.publicUrl);
    expect(dev.seen).toEqual([]);
  });

  test('has its hot reload: a WebSocket of our page, with its subprotocol and without cookies', async () => {
    const socket = await BrowserSocket.open(c, client, '/?token=t', {
      headers: { 'sec-websocket-protocol': 'vite-hmr' },
    });
    expect([socket.status, socket.headers['sec-websocket-protocol']]).toEqual([101, 'vite-hmr']);
    socket.send(OPCODES.text, 'update');
    await socket.heard('update');
    const [seen] = dev.seen;
    expect([seen?.url, seen?.headers.cookie, seen?.headers.authorization]).toEqual([
      '/?token=t',
      undefined,
      undefined,
    ]);
    expect([seen?.headers.host, seen?.headers.origin]).toEqual([new URL(dev.url).host, c.publicUrl]);
    socket.socket.destroy();
    for (const origin of ['https://evil.example', 'null', undefined]) {
      const refused = await BrowserSocket.open(c, client, '/', { headers: { origin } });
      expect([origin, refused.status]).toEqual([origin, 403]);
    }
    expect(dev.seen).toHaveLength(1);
    await eventually(() => dev.sockets.open === 0, { what: 'the development server to see the end' });
  });

  test('has its page and its hot reload in Chromium', async () => {
    const chromium = await launchChromium();
    const page = await chromium.page();
    await page.goto(`${c.publicUrl}/orders/7`);
    await page.waitForFunction("document.title === 'connected' && window.inline && window.module");
    expect(dev.seen.map(({ url }) => url)).toEqual(
      expect.arrayContaining(['/orders/7', '/?token=t', '/src/main.ts']),
    );
    await chromium.close();
  });

  test('that is not running is 502, and our endpoints do not mind', async () => {
    dev.stop();
    expect((await client.navigate('/')).problem).toBe('upstream-unreachable');
    const socket = await BrowserSocket.open(c, client, '/');
    expect(socket.status).toBe(502);
    expect((await client.me()).status).toBe(200);
  });
});
