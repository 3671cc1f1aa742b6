import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { BrowserContext, Page } from 'playwright-core';
import { parse } from 'yaml';
import { AdminClient, adminConfig, adminToken } from './support/admin-client.js';
import {
  signInWith,
  startBrowserCluster,
  startBrowserFront,
  type BrowserCluster,
  type BrowserFront,
} from './support/browser-cluster.js';
import { repository, type ConfigFile } from './support/cloakroom.js';
import { DemoApi } from './support/demo-api.js';
import { expectLeftClean } from './support/left-clean.js';
import { closeLater, eventually } from './support/lifetime.js';
import { freePort } from './support/run-folder.js';

// The demo's page, its routes and its API, as in demo/cloakroom.yaml, and what pages of other origins can do to them.

const SESSION = '__Host-cloakroom-session';

/** In a page. `at` is the address that is tried; `outcome` is what the page can tell of it. */
const TOOLS = `
const heard = (target, good, bad) => new Promise((resolve) => {
  target.addEventListener(good, () => resolve('works'), { once: true });
  target.addEventListener(bad, () => resolve('refused'), { once: true });
});
const add = (tag, attributes) => document.body.appendChild(Object.assign(document.createElement(tag), attributes));
const fetched = (init) => fetch(at, { credentials: 'include', ...init })
  .then((response) => response.ok ? response.arrayBuffer().then(() => 'works') : 'refused', () => 'refused');
const body = () => new Blob([new Uint8Array(300_000)], { type: 'application/octet-stream' });
const framed = () => {
  const name = 'frame' + Math.random();
  add('iframe', { name });
  return name;
};
`;

interface Way {
  name: string;
  path: string;
  /** A promise of what came of it, `works` or `refused`; of `asked` where a page cannot tell. */
  script: string;
  /** Our own pages are refused that as well: the route wants the header. */
  wantsHeader?: true;
}

const WAYS: Way[] = [
  {
    name: 'EventSource with credentials',
    path: '/api/live/events',
    script: `(() => {
      const source = new EventSource(at, { withCredentials: true });
      return heard(source, 'open', 'error').finally(() => source.close());
    })()`,
  },
  {
    name: 'WebSocket',
    path: '/api/live/counter',
    script: `(() => {
      const socket = new WebSocket(at.replace(/^http/, 'ws'));
      return heard(socket, 'message', 'close').finally(() => socket.close());
    })()`,
  },
  {
    name: 'an image',
    path: '/api/files/coat.svg',
    script: `heard(add('img', { src: at }), 'load', 'error')`,
  },
  {
    name: 'an image with credentials',
    path: '/api/files/coat.svg',
    script: `heard(add('img', { crossOrigin: 'use-credentials', src: at }), 'load', 'error')`,
  },
  { name: 'fetch of a download', path: '/api/files/orders.csv', script: `fetched()` },
  {
    name: 'fetch of a download without asking to read it',
    path: '/api/files/orders.csv',
    script: `fetched({ mode: 'no-cors' })`,
  },
  {
    name: 'a download link in a frame',
    path: '/api/files/orders.csv',
    script: `(add('a', { href: at, target: framed() }).click(), 'asked')`,
  },
  {
    name: 'a download link in a new tab',
    path: '/api/files/catalogue.csv',
    script: `(add('a', { href: at, target: '_blank', rel: 'noopener' }).click(), 'asked')`,
  },
  {
    name: 'an upload by fetch',
    path: '/api/upload',
    script: `fetched({ method: 'POST', headers: { 'X-CSRF': '1' }, body: body() })`,
  },
  {
    name: 'an upload by XMLHttpRequest with progress',
    path: '/api/upload',
    script: `(() => {
      const request = new XMLHttpRequest();
      let progress = 0;
      request.upload.onprogress = () => (progress += 1);
      request.open('POST', at);
      request.withCredentials = true;
      request.setRequestHeader('X-CSRF', '1');
      const over = new Promise((resolve) => request.addEventListener('loadend', resolve));
      request.send(body());
      return over.then(() => {
        if (request.status !== 200) return 'refused';
        return progress > 0 && JSON.parse(request.responseText).size === 300_000 ? 'works' : 'something else';
      });
    })()`,
  },
  {
    name: 'an upload by fetch that needs no preflight',
    path: '/api/upload',
    script: `fetched({ method: 'POST', mode: 'no-cors', body: 'x' })`,
    wantsHeader: true,
  },
  {
    name: 'an upload by a form',
    path: '/api/upload',
    script: `(() => {
      const form = add('form', { method: 'post', action: at, enctype: 'multipart/form-data', target: framed() });
      form.append(Object.assign(document.createElement('textarea'), { name: 'file', value: 'x' }));
      form.submit();
      return 'asked';
    })()`,
    wantsHeader: true,
  },
  {
    name: 'an upload by sendBeacon',
    path: '/api/upload',
    script: `(navigator.sendBeacon(at, 'x'), 'asked')`,
    wantsHeader: true,
  },
];

const operator = adminToken('operator', 'end');

interface World {
  cluster: BrowserCluster;
  api: DemoApi;
  context: BrowserContext;
  home: Page;
}

/** Cloakroom with what `npm run demo` starts it with, and somebody who is signed in. */
async function startWorld(tls: boolean, shared: BrowserFront): Promise<World> {
  const demo = parse(readFileSync(join(repository, 'demo/cloakroom.yaml'), 'utf8')) as {
    me: ConfigFile;
    routes: ConfigFile[];
    session: ConfigFile;
  };
  const port = await freePort();
  const upstream = `http://127.0.0.1:${String(port)}`;
  const cluster = await startBrowserCluster({
    tls,
    shared,
    room: {
      config: {
        me: demo.me,
        session: demo.session,
        admin: adminConfig([operator]),
        frontend: { folder: join(repository, 'demo/spa') },
        routes: demo.routes.map((route) => ({ ...route, upstream })),
      },
    },
  });
  cluster.provider.modes.accessTokens = 'jwt';
  const api = await DemoApi.start({ port, issuer: cluster.provider.issuer, audience: 'api' });
  const context = await cluster.browser.browser.newContext();
  const home = await context.newPage();
  await signInWith(home, cluster.room.publicUrl);
  await home.getByTestId('call-result').waitFor();
  return { cluster, api, context, home };
}

/** An origin with an empty page, on a port of its own. */
async function startPages(): Promise<number> {
  const server = createServer((_request, response) => {
    response.setHeader('content-type', 'text/html');
    response.end('<!doctype html><title>page</title>');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closeLater(() => {
    server.closeAllConnections();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

let shared: BrowserFront;

beforeAll(async () => {
  shared = await startBrowserFront(['evil.example.test', 'evil.other.test']);
});

afterAll(async () => {
  await shared.browser.close();
});

describe.each([
  ['https', true],
  ['http on this machine', false],
])('%s', (_, tls) => {
  let world: World;
  let port: number;

  beforeAll(async () => {
    world = await startWorld(tls, shared);
    port = await startPages();
  });

  afterAll(async () => {
    await expectLeftClean(world.cluster.room, 32 * 24 * 3600 * 1000);
    await world.context.close();
    await world.cluster.close();
  });

  const origin = {
    own: () => world.cluster.room.publicUrl,
    sibling: () => (tls ? 'https://evil.example.test' : `http://localhost:${String(port)}`),
    foreign: () => (tls ? 'https://evil.other.test' : `http://127.0.0.1:${String(port)}`),
  };
  const attempt = (page: Page, { path, script }: Way): Promise<string> =>
    page.evaluate<string>(
      `(async () => { const at = '${origin.own()}${path}'; ${TOOLS} return ${script}; })()`,
    );

  describe('A-093 A-096 from our own page', () => {
    test.each(WAYS)('$name', async (way) => {
      const from = world.api.seen.length;
      const refusals = refused(world);
      const outcome = await attempt(world.home, way);
      if (outcome !== 'asked') expect(outcome).toBe(way.wantsHeader ? 'refused' : 'works');
      if (way.wantsHeader) {
        await eventually(() => refused(world) > refusals, { what: 'the refusal in the log' });
        expect(world.api.seen.slice(from)).toEqual([]);
        return;
      }
      const seen = await eventually(() => {
        const asked = world.api.seen.slice(from).filter((one) => one.endsWith(` ${way.path}`));
        return asked.length > 0 && asked;
      });
      expect(seen).toHaveLength(1);
      expect(refused(world)).toBe(refusals);
    });
  });

  describe.each(['sibling', 'foreign'] as const)('A-093 A-096 A-097 from a %s origin', (who) => {
    let page: Page;
    let downloads = 0;
    let before = 0;
    const reached = (): string[] => world.api.seen.slice(before);

    beforeAll(async () => {
      before = world.api.seen.length;
      page = await world.context.newPage();
      world.context.on('page', (other) => other.on('download', () => (downloads += 1)));
      page.on('download', () => (downloads += 1));
      await page.goto(`${origin[who]()}/`);
    });

    afterAll(async () => {
      for (const other of world.context.pages()) if (other !== world.home) await other.close();
      // The session is as good as before.
      await world.home.getByTestId('call-api').click();
      await eventually(() => reached().length > 0);
      expect(reached()).toEqual(['GET /api/hello']);
      expect(await world.home.getByTestId('banner').isVisible()).toBe(false);
      expect(downloads).toBe(0);
    });

    test.each(WAYS)('$name is refused before the upstream', async (way) => {
      const from = world.cluster.front?.requests.length ?? 0;
      const refusals = refused(world);
      expect(['refused', 'asked']).toContain(await attempt(page, way));
      await eventually(() => refused(world) > refusals, { what: 'the refusal in the log' });
      const asked = (world.cluster.front?.requests ?? [])
        .slice(from)
        .filter(({ host, url }) => host === 'app.example.test' && url === way.path);
      await eventually(() => asked.every(({ status }) => status > 0), { what: 'the answers' });
      expect(reached()).toEqual([]);
      expect(asked.map(({ status }) => status)).toEqual(asked.map(() => 403));
      if (way.path === '/api/live/counter' && tls) {
        expect(asked[0]?.headers).toMatchObject({ upgrade: 'websocket', origin: origin[who]() });
        // SameSite does not tell a sibling from ourselves.
        expect((asked[0]?.headers.cookie ?? '').includes(SESSION)).toBe(who === 'sibling');
      }
    });
  });

  describe('A-094 in the page', () => {
    /** Opens both kinds in the page itself, beside those of its buttons. */
    const openAll = async (page: Page): Promise<void> => {
      await page.getByTestId('talk-toggle').click();
      await page.locator('[data-testid=talk-state][data-state=live]').waitFor();
      await page.evaluate(`
        window.ends = [];
        const socket = new WebSocket(location.origin.replace('http', 'ws') + '/api/live/counter');
        socket.onclose = ({ code, reason, wasClean }) => window.ends.push(['socket', code, reason, wasClean]);
        const source = new EventSource('/api/live/events');
        source.addEventListener('session-ended', ({ data }) => {
          source.close();
          window.ends.push(['events', JSON.parse(data).reason]);
        });
        Promise.all([socket, source].map((one) => new Promise((resolve) => (one.onopen = resolve))))
      `);
      await eventually(() => world.api.sockets === 2);
    };

    const expectEnded = async (page: Page, reason: string, text: string): Promise<void> => {
      await page.getByTestId('banner-socket').getByText('code 4401').waitFor();
      expect(await page.getByTestId('banner').textContent()).toContain(text);
      await page.getByTestId('view-signed-out').waitFor();
      const ends = await eventually(async () => {
        const found = await page.evaluate<unknown[][]>('window.ends');
        return found.length === 2 && found;
      });
      expect(ends.sort()).toEqual([
        ['events', reason],
        ['socket', 4401, reason, true],
      ]);
      await eventually(() => world.api.sockets === 0, { what: 'the upstream to be rid of them' });
      // Nothing of the person is on the page, and nobody gets another socket.
      expect(await page.getByTestId('coat').getAttribute('src')).toBeNull();
      const seen = world.api.seen.length;
      expect(await attempt(page, required(WAYS.find(({ name }) => name === 'WebSocket')))).toBe('refused');
      expect(world.api.seen).toHaveLength(seen);
    };

    test('a second login in another tab closes every socket, and the page goes on with the new session', async () => {
      const { home, cluster, context } = world;
      await openAll(home);
      const old = await home.locator('[data-current=true]').getAttribute('data-handle');
      const other = await context.newPage();
      await signInWith(other, cluster.room.publicUrl);
      await eventually(async () => (await home.evaluate<unknown[]>('window.ends')).length === 2);
      await home.getByTestId('view-signed-in').waitFor();
      await eventually(async () => {
        const now = home.locator('[data-current=true]');
        return (await now.count()) === 1 && (await now.getAttribute('data-handle')) !== old;
      });
      expect(await home.getByTestId('view-signed-in').isVisible()).toBe(true);
      const ends = await home.evaluate<unknown[][]>('window.ends');
      expect(ends).toContainEqual(['socket', 4401, 'replaced', true]);
      await other.close();
    });

    test('an operator’s end closes every socket with 4401, and the page says so', async () => {
      const { home, cluster } = world;
      await openAll(home);
      const handle = await home.locator('[data-current=true]').getAttribute('data-handle');
      const answer = await new AdminClient(cluster.room, operator).post('/v1/endings', {
        filter: { handle },
        reason: 'test',
      });
      expect(answer.status).toBe(200);
      await expectEnded(home, 'operator', 'An operator ended your session.');
    });

    test('a logout in another tab closes every socket with 4401, and the page says so', async () => {
      const { home, cluster, context } = world;
      await signInWith(home, cluster.room.publicUrl);
      await openAll(home);
      const other = await context.newPage();
      await other.goto(origin.own());
      await other.getByTestId('logout').click();
      await other.getByTestId('view-signed-out').waitFor();
      await expectEnded(home, 'user', 'You signed out in another tab.');
    });
  });
});

/** Requests that were refused because of where they came from. */
function refused({ cluster }: World): number {
  return cluster.room.events('csrf_rejected').length;
}

function required<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('not there');
  return value;
}
