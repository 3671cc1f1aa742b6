import { createHash } from 'node:crypto';
import { mkdirSync, renameSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { BrowserClient, BrowserResponse } from './support/browser-client.js';
import { launchChromium } from './support/chromium.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { sendRaw } from './support/raw.js';
import { scratchFolder } from './support/run-folder.js';

const PLAIN = '<!doctype html><title>plain</title>';
const NONCED =
  '<!doctype html><script nonce="__CSP_NONCE__">1</script><style nonce="__CSP_NONCE__">a{}</style>';
const IMMUTABLE = 'public, max-age=31536000, immutable';

let folder: string;
let c: Cloakroom;
let listed: Cloakroom;
let browser: BrowserClient;

function put(path: string, content: string | Buffer): void {
  const file = join(folder, path);
  mkdirSync(join(file, '..'), { recursive: true });
  writeFileSync(file, content);
}

beforeAll(async () => {
  const scratch = scratchFolder('site');
  folder = join(scratch, 'public');
  mkdirSync(folder);
  put('index.html', NONCED);
  put('about.html', PLAIN);
  put('docs/index.html', PLAIN);
  put('app.js', 'export {};');
  put('assets/index-BxK3d9Qz.js', 'export {};');
  put('assets/logo.svg', '<svg xmlns="http://www.w3.org/2000/svg"/>');
  put('main.8f3a9c1b.css', 'a{}');
  put('big.bin', Buffer.alloc(300_000, 'x'));
  put('a b/ü.txt', 'odd');
  put('.env', 'SECRET=1');
  put('.git/config', 'SECRET=1');
  put('sub/.hidden', 'SECRET=1');
  put('..data/page.html', PLAIN);
  writeFileSync(join(scratch, 'outside.txt'), 'SECRET=1');
  mkdirSync(join(scratch, 'public-secret'));
  writeFileSync(join(scratch, 'public-secret', 'x.txt'), 'SECRET=1');
  symlinkSync('../outside.txt', join(folder, 'escape.txt'));
  symlinkSync('..', join(folder, 'up'));
  symlinkSync('../public-secret', join(folder, 'beside'));
  symlinkSync('loop', join(folder, 'loop'));
  symlinkSync('..data/page.html', join(folder, 'mounted.html'));
  symlinkSync('app.js', join(folder, 'inside.js'));
  const options = (frontend: object) => ({
    replicas: 1,
    redis: 'memory' as const,
    config: (file: Record<string, unknown>) => ({ ...file, frontend }),
  });
  const site = join(scratch, 'current');
  symlinkSync('public', site);
  [c, listed] = await Promise.all([
    startCloakroom(options({ folder: site })),
    startCloakroom(
      options({
        folder,
        fallback: 'none',
        immutable: ['/assets/'],
        csp: "default-src 'self'; frame-ancestors https://portal.example.com",
      }),
    ),
  ]);
  browser = c.client();
});

afterAll(async () => {
  await expectLeftClean(c);
});

const get = (path: string, headers: Record<string, string | undefined> = {}): Promise<BrowserResponse> =>
  browser.fetch(path, { headers });
const csp = (answer: BrowserResponse): string => String(answer.headers['content-security-policy']);
const cache = (answer: BrowserResponse): string | undefined => answer.headers['cache-control'];

describe('the front end', () => {
  test('serves files with their types, and the start page at the root', async () => {
    for (const [path, type] of [
      ['/', 'text/html; charset=utf-8'],
      ['/index.html', 'text/html; charset=utf-8'],
      ['/docs/', 'text/html; charset=utf-8'],
      ['/app.js', 'text/javascript; charset=utf-8'],
      ['/main.8f3a9c1b.css', 'text/css; charset=utf-8'],
      ['/assets/logo.svg', 'image/svg+xml'],
      ['/a%20b/%C3%BC.txt', 'text/plain; charset=utf-8'],
      ['/inside.js', 'text/javascript; charset=utf-8'],
      ['/mounted.html', 'text/html; charset=utf-8'],
    ] as const) {
      const answer = await get(path);
      expect([path, answer.status, answer.headers['content-type']]).toEqual([path, 200, type]);
      const head = await browser.fetch(path, { method: 'HEAD' });
      expect([path, head.status, head.headers['content-length'], head.body.length]).toEqual([
        path,
        200,
        String(answer.body.length),
        0,
      ]);
    }
  });

  test('gives the start page to whoever navigates to a path that is no file', async () => {
    for (const path of ['/orders', '/orders/7', '/orders/7/', '/orders?x=/a.js', '/docs', '/Auth/x']) {
      const answer = await browser.navigate(path);
      expect([path, answer.status, answer.text.includes('<script nonce=')]).toEqual([path, 200, true]);
    }
    // Browsers that do not say what a request is for.
    const old = { 'sec-fetch-mode': undefined, accept: 'text/html,*/*;q=0.8' };
    expect((await get('/orders', old)).status).toBe(200);
  });

  test.each<[string, string, Record<string, string | undefined>]>([
    ['a script', '/orders', { accept: '*/*' }],
    ['a script that would take HTML', '/orders', { accept: 'text/html' }],
    ['an old client that would take anything', '/orders', { 'sec-fetch-mode': undefined, accept: '*/*' }],
    ['a navigation to a file that is not there', '/none.js', { 'sec-fetch-mode': 'navigate' }],
    ['a navigation to an old bundle', '/assets/index-OLDq9Qz1.js', { 'sec-fetch-mode': 'navigate' }],
    ['a navigation to a hidden file', '/.env', { 'sec-fetch-mode': 'navigate' }],
    ['a navigation below a hidden folder', '/.git/HEAD', { 'sec-fetch-mode': 'navigate' }],
    ['a navigation to an unknown endpoint', '/auth/unknown', { 'sec-fetch-mode': 'navigate' }],
    ['a navigation to /auth', '/auth', { 'sec-fetch-mode': 'navigate' }],
  ])('gives no page to %s', async (_what, path, headers) => {
    const answer = await get(path, headers);
    expect([answer.status, answer.problem]).toEqual([404, 'not-found']);
    expect([cache(answer), answer.headers.etag]).toEqual(['no-store', undefined]);
  });

  test('gives no page in the place of a route', async () => {
    const answer = await browser.navigate('/api/orders');
    expect([answer.status, answer.problem]).toEqual([403, 'csrf']);
  });

  test('gives no page to a method that is no reading', async () => {
    for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS']) {
      expect([method, (await browser.navigate('/', { method })).status]).toEqual([method, 404]);
    }
  });

  test.each([
    '/.env',
    '/.git/config',
    '/sub/.hidden',
    '/..data/page.html',
    '/escape.txt',
    '/up/outside.txt',
    '/up/',
    '/beside/x.txt',
    '/loop',
    '/sub',
    '/sub/',
    '/assets/',
    '/app.js/',
    '/app.js/x',
    `/${'x'.repeat(300)}`,
  ])('does not serve %s', async (path) => {
    const answer = await get(path);
    expect([answer.status, answer.problem]).toEqual([404, 'not-found']);
    expect(answer.text).not.toContain('SECRET');
  });

  test.each([
    '/../outside.txt',
    '/%2e%2e/outside.txt',
    '/..%2foutside.txt',
    '/..%5coutside.txt',
    '/assets/..%2f..%2foutside.txt',
    '//etc/passwd',
    '/%00',
    '/app.js%00.html',
    '/%2e%2e%2f%2e%2e%2fetc/passwd',
  ])('refuses %s', async (path) => {
    const host = 'Host: app.example.test\r\nAccept: text/html\r\n\r\n';
    const { responses } = await sendRaw(c.first.clientPort, `GET ${path} HTTP/1.1\r\n${host}`, {
      answers: 1,
    });
    expect([path, responses[0]?.status]).toEqual([path, 400]);
  });

  test('lets files be kept for a year whose name has a hash of the content, and has all others asked for again', async () => {
    for (const path of ['/assets/index-BxK3d9Qz.js', '/main.8f3a9c1b.css']) {
      expect([path, cache(await get(path))]).toEqual([path, IMMUTABLE]);
    }
    for (const path of ['/app.js', '/assets/logo.svg', '/about.html', '/inside.js']) {
      expect([path, cache(await get(path))]).toEqual([path, 'no-cache']);
    }
  });

  test('tells two versions of a file apart that have the same size and time', async () => {
    const at = new Date('2020-01-01T00:00:00Z');
    const version = async (content: string): Promise<string> => {
      put('next.js', content);
      utimesSync(join(folder, 'next.js'), at, at);
      renameSync(join(folder, 'next.js'), join(folder, 'same.js'));
      const answer = await get('/same.js');
      expect(answer.text).toBe(content);
      return String(answer.headers.etag);
    };
    const [first, second] = [await version('one'), await version('two')];
    expect(first).toMatch(/^"[\w-]{27}"$/);
    expect(second).not.toBe(first);
    const stale = await get('/same.js', { 'if-none-match': first, 'if-modified-since': at.toUTCString() });
    expect([stale.status, stale.text]).toEqual([200, 'two']);
    const fresh = await get('/same.js', { 'if-none-match': second });
    expect([fresh.status, fresh.text, fresh.headers.etag]).toEqual([304, '', second]);
    expect(await version('one')).toBe(first);
  });

  test('serves ranges, of the version that the browser has', async () => {
    const whole = await get('/big.bin');
    expect(createHash('sha256').update(whole.body).digest('hex')).toBe(
      createHash('sha256').update(Buffer.alloc(300_000, 'x')).digest('hex'),
    );
    const etag = String(whole.headers.etag);
    const part = await get('/big.bin', { range: 'bytes=299999-', 'if-range': etag });
    expect([part.status, part.headers['content-range'], part.text]).toEqual([
      206,
      'bytes 299999-299999/300000',
      'x',
    ]);
    expect((await get('/big.bin', { range: 'bytes=0-9', 'if-range': '"other"' })).status).toBe(200);
    expect((await get('/big.bin', { range: 'bytes=300000-' })).status).toBe(416);
    expect((await get('/big.bin', { 'if-match': '"other"' })).status).toBe(412);
  });
});

describe('A-099 the Content-Security-Policy', () => {
  test('has another nonce in each answer, which stands in the page, and nobody keeps such a page', async () => {
    const seen = new Set<string>();
    for (const path of ['/', '/', '/index.html', '/orders/7']) {
      const answer = await browser.navigate(path);
      const nonce = /script-src 'self' 'nonce-([A-Za-z0-9+/=]{24,})'/.exec(csp(answer))?.[1] ?? '';
      expect(nonce).not.toBe('');
      expect(answer.text.split(`nonce="${nonce}"`)).toHaveLength(3);
      expect(answer.text).not.toContain('__CSP_NONCE__');
      expect([cache(answer), answer.headers.etag, answer.headers['last-modified']]).toEqual([
        'no-store',
        undefined,
        undefined,
      ]);
      seen.add(nonce);
    }
    expect(seen.size).toBe(4);
    const conditional = await get('/', {
      'if-none-match': '*',
      'if-modified-since': new Date().toUTCString(),
    });
    expect(conditional.status).toBe(200);
  });

  test('in Chromium lets the scripts and styles of the page run, and nothing that was put into it', async () => {
    put(
      'nonce/index.html',
      `${NONCED.replace('>1<', '>window.own = true<')}<script>window.injected = true</script>
      <script nonce="guessed">window.injected = true</script><img src="data:," onerror="window.injected = true">
      <script src="/app.js" onload="window.injected = true"></script><script src="/loaded.js"></script>`,
    );
    const local = await startCloakroom({
      local: true,
      redis: 'memory',
      config: { frontend: { folder: join(folder, 'nonce'), fallback: 'none' } },
    });
    put('nonce/loaded.js', 'window.loaded = true');
    put('nonce/app.js', '');
    const chromium = await launchChromium();
    const page = await chromium.page();
    await page.goto(`${local.publicUrl}/`);
    await page.waitForFunction('window.loaded');
    expect(await page.evaluate('[window.own, window.injected]')).toEqual([true, undefined]);
    await chromium.close();
    await local.close();
  });

  test('has none where the page does not ask for one', async () => {
    for (const path of ['/about.html', '/app.js', '/assets/logo.svg']) {
      const answer = await get(path);
      expect([path, csp(answer)]).toEqual([
        path,
        expect.stringContaining("script-src 'self'; style-src 'self';"),
      ]);
      expect(csp(answer)).not.toContain('nonce');
      const again = await get(path, { 'if-none-match': String(answer.headers.etag) });
      expect([path, again.status]).toEqual([path, 304]);
    }
  });

  test('is strict unless told', async () => {
    const policy = csp(await get('/about.html'));
    for (const part of [
      "default-src 'self'",
      "object-src 'none'",
      "base-uri 'self'",
      "frame-ancestors 'none'",
    ]) {
      expect(policy).toContain(part);
    }
    expect(policy).not.toMatch(/unsafe|\*/);
  });
});

describe('told otherwise', () => {
  test('the policy is the one that was written, without a nonce the page is as it is', async () => {
    const answer = await listed.client().navigate('/');
    expect(csp(answer)).toBe("default-src 'self'; frame-ancestors https://portal.example.com");
    expect([answer.text, cache(answer)]).toEqual([NONCED, 'no-cache']);
  });

  test('what is in the listed folders is kept, and nothing else', async () => {
    const at = listed.client();
    expect(cache(await at.fetch('/assets/logo.svg'))).toBe(IMMUTABLE);
    expect(cache(await at.fetch('/main.8f3a9c1b.css'))).toBe('no-cache');
    expect(cache(await at.fetch('/assets/none.svg'))).toBe('no-store');
  });

  test('a path that is no file is 404 to everybody', async () => {
    expect((await listed.client().navigate('/orders')).status).toBe(404);
    expect((await listed.client().navigate('/about.html')).status).toBe(200);
  });
});
