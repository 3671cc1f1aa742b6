import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import type { BrowserContext, Page } from 'playwright-core';
import { launchChromium, type TestBrowser } from './support/chromium.js';
import { Demo } from './support/demo.js';
import { eventually } from './support/lifetime.js';
import { startRedis } from './support/redis.js';
import { describeFinding, searchForSecrets } from './support/tap.js';

/** A tab, and everything in it that a person would call broken. */
interface Tab {
  page: Page;
  faults: string[];
}

let demo: Demo;
let browser: TestBrowser;
let aliceContext: BrowserContext;
let alice: Tab;

beforeAll(async () => {
  demo = await Demo.start();
  browser = await launchChromium({ hosts: demo.hosts });
  aliceContext = await browser.browser.newContext();
  alice = await openTab(aliceContext);
});

afterAll(async () => {
  await browser.close();
});

async function openTab(context: BrowserContext, url = demo.url): Promise<Tab> {
  const page = await context.newPage();
  const tab: Tab = { page, faults: [] };
  page.on('pageerror', (error) => tab.faults.push(error.message));
  page.on('console', (message) => {
    // A wrong password is answered with 400, which Chromium puts on the console too.
    if (message.type() === 'error' && !message.location().url.startsWith(demo.issuer)) {
      tab.faults.push(`${message.text()} ${message.location().url}`);
    }
  });
  await page.goto(url);
  return tab;
}

const submit = async (page: Page, name: string, password = name): Promise<void> => {
  await page.getByLabel('User name').fill(name);
  await page.getByLabel('Password').fill(password);
  await page.getByTestId('provider-login').click();
};

/** The provider asks a person once for consent; another tab may have given it a moment ago. */
const consent = async (page: Page): Promise<void> => {
  const button = page.getByTestId('provider-consent');
  await button.or(page.getByTestId('view-signed-in')).waitFor();
  if (await button.isVisible()) await button.click();
  await page.getByTestId('view-signed-in').waitFor();
};

const signIn = async (page: Page, name: string): Promise<void> => {
  await page.getByTestId('login').click();
  await submit(page, name);
  await consent(page);
};

const shown = async (page: Page, id: string): Promise<string> =>
  (await page.getByTestId(id).textContent())?.trim() ?? '';

/** Everything script can reach that outlives the page. */
const stock = async (page: Page): Promise<unknown> =>
  await page.evaluate(`(async () => ({
    cookie: document.cookie,
    local: localStorage.length,
    session: sessionStorage.length,
    databases: (await indexedDB.databases()).length,
    caches: (await caches.keys()).length,
    workers: (await navigator.serviceWorker.getRegistrations()).length,
    cookieStore: (await cookieStore.getAll()).length,
    name: window.name,
    history: history.state,
  }))()`);
const EMPTY = {
  cookie: '',
  local: 0,
  session: 0,
  databases: 0,
  caches: 0,
  workers: 0,
  cookieStore: 0,
  name: '',
  history: null,
};

test('the demo runs without Redis and prints one line when it is ready, with the URL and the users', () => {
  const lines = demo.stdout.trimEnd().split('\n');
  expect(lines).toHaveLength(1);
  expect(lines[0]).toContain(`open ${demo.url} `);
  expect(lines[0]).toMatch(/alice \(password alice\) or bob \(password bob\)/);
  expect(lines[0]).toContain('sessions in memory');
  expect(demo.stderr).toBe('');
});

test('a wrong password is told on the page; the right one leads back, and the page says who and until when', async () => {
  const { page } = alice;
  await page.getByTestId('login').click();
  expect(new URL(page.url()).origin).toBe(demo.issuer);
  await submit(page, 'alice', 'wrong');
  expect(await page.getByRole('alert').textContent()).toContain('not the password of alice');
  await submit(page, 'nobody');
  expect(await page.getByRole('alert').textContent()).toContain('Nobody has that name');
  await submit(page, 'alice');
  await page.getByTestId('provider-consent').click();
  await page.getByTestId('view-signed-in').waitFor();

  expect(page.url()).toBe(`${demo.url}/`);
  expect(await shown(page, 'user-name')).toBe('Alice Albers');
  expect(await shown(page, 'session-email')).toBe('alice@example.com');
  const until = async (id: string): Promise<number> =>
    (Date.parse((await page.getByTestId(id).getAttribute('datetime')) ?? '') - Date.now()) / 60_000;
  expect(Math.round(await until('idle-at'))).toBe(30);
  expect(Math.round(await until('absolute-at'))).toBe(720);
  expect(await shown(page, 'idle-left')).toMatch(/^(?:30:00|29:\d\d)$/);
  // From here on the page calls by itself: the test of the refresh, further down, looks at what came of it.
  await page.getByTestId('auto-call').check();
});

test('the page calls the API without a token, and shows that the API received one, and no cookie', async () => {
  const { page } = alice;
  await page.getByTestId('call-api').click();
  await page.getByTestId('call-result').waitFor();
  expect(await shown(page, 'call-message')).toBe('Hello alice, this is the API.');
  expect(await shown(page, 'got-authorization')).toBe('Authorization with an access token');
  expect(await shown(page, 'got-cookie')).toBe('no Cookie');
  expect(await shown(page, 'got-subject')).toBe('a token for alice');
  const raw = JSON.parse(await shown(page, 'call-raw')) as { request: { headers: Record<string, string> } };
  expect(raw.request.headers).toHaveProperty('authorization');
  expect(raw.request.headers).not.toHaveProperty('cookie');
  const fingerprint = await shown(page, 'token-fingerprint');
  const tokens = demo.secrets('access_token').map(digest);
  expect(tokens.map((hash) => hash.slice(0, 8))).toContain(fingerprint);
});

test('an upload shows its progress and arrives byte for byte', async () => {
  const { page } = alice;
  await page.evaluate(`
    window.percents = [];
    const shown = document.getElementById('upload-percent');
    new MutationObserver(() => window.percents.push(parseInt(shown.textContent, 10)))
      .observe(shown, { childList: true });
  `);
  // A slow line, so that there is progress to be seen on any machine.
  const line = await aliceContext.newCDPSession(page);
  const slow = { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput: 16 * 1024 * 1024 };
  await line.send('Network.emulateNetworkConditions', slow);
  await page.getByTestId('upload-sample').click();
  await page.getByTestId('upload-match').getByText('the same, byte for byte').waitFor();
  await line.send('Network.emulateNetworkConditions', { ...slow, uploadThroughput: -1 });
  expect(await page.getByTestId('upload-size').getAttribute('data-bytes')).toBe(String(25 * 1024 * 1024));
  const percents = await page.evaluate<number[]>('window.percents');
  expect(percents.filter((percent) => percent > 0 && percent < 100).length).toBeGreaterThan(0);
  expect(percents).toEqual([...percents].sort((a, b) => a - b));

  const buffer = randomBytes(300_001);
  await page.getByTestId('upload-file').setInputFiles({ name: 'photo.png', mimeType: 'image/png', buffer });
  await page.getByTestId('upload-hash').getByText(digest(buffer)).waitFor();
  expect(await page.getByTestId('upload-size').getAttribute('data-bytes')).toBe('300001');
});

test('live events arrive one by one while they happen, and stop when told to', async () => {
  const { page } = alice;
  await page.getByTestId('stream-toggle').click();
  const newest = page.getByTestId('stream-event').first();
  for (const id of ['1', '2', '3']) {
    await page.locator(`[data-testid=stream-event][data-id="${id}"]`).waitFor();
    expect(Number(await newest.getAttribute('data-id'))).toBeLessThanOrEqual(Number(id) + 1);
  }
  expect(await shown(page, 'stream-state')).toBe('live');
  await page.getByTestId('stream-toggle').click();
  await eventually(async () => (await shown(page, 'stream-state')) === 'off', { what: 'the stream to stop' });
});

test('a WebSocket: what is said comes back, the API says something by itself, and hanging up is the end of it', async () => {
  const { page } = alice;
  const row = (kind: string) => page.locator(`[data-testid=talk-row][data-kind=${kind}]`).first();
  expect(await page.getByTestId('talk-send').isDisabled()).toBe(true);
  await page.getByTestId('talk-toggle').click();
  await row('hello').waitFor();
  expect(await row('hello').textContent()).toContain('The counter is open, alice.');
  expect(await shown(page, 'talk-state')).toBe('live');
  await page.getByTestId('talk-text').fill('Is my coat <b>there</b>? 🧥');
  await page.getByTestId('talk-send').click();
  await row('echo').getByText('Is my coat <b>there</b>? 🧥').waitFor();
  await row('tick').waitFor();
  await page.getByTestId('talk-toggle').click();
  await row('closed').getByText('closed with 1000').waitFor();
  expect(await shown(page, 'talk-state')).toBe('ended');
});

test('the image is there and is one’s own; the links download files, small and large', async () => {
  const { page } = alice;
  const image = page.getByTestId('coat');
  await eventually(() => page.evaluate<boolean>(`document.getElementById('coat').complete`));
  expect(await page.evaluate(`document.getElementById('coat').naturalWidth`)).toBe(160);
  expect(await image.getAttribute('src')).toMatch(/^\/api\/files\/coat\.svg\?of=/);
  const download = async (id: string): Promise<[name: string, text: string]> => {
    const [file] = await Promise.all([page.waitForEvent('download'), page.getByTestId(id).click()]);
    return [file.suggestedFilename(), readFileSync(await file.path(), 'utf8')];
  };
  const [name, orders] = await download('download-orders');
  expect(name).toBe('orders.csv');
  expect(orders.split('\r\n')).toHaveLength(5);
  expect(orders).toContain('"A-1042","Wool overcoat, charcoal"');
  const [, catalogue] = await download('download-catalogue');
  const lines = catalogue.split('\r\n');
  expect([lines.length, lines.at(-1)]).toEqual([60_002, '']);
  expect(lines[60_000]).toMatch(/^"C-060000",/);
  expect(page.url()).toBe(`${demo.url}/`);
});

test('two tabs log in at once, and both are signed in', async () => {
  const context = await browser.browser.newContext();
  const tabs = [await openTab(context), await openTab(context)];
  await Promise.all(tabs.map(({ page }) => page.getByTestId('login').click()));
  await Promise.all(tabs.map(({ page }) => page.getByLabel('Password').waitFor()));
  // One after the other from here, as one person types: both logins are under way by now.
  for (const { page } of tabs) {
    await submit(page, 'alice');
    await consent(page);
    await page.getByTestId('call-result').waitFor();
  }
  for (const { page, faults } of tabs) {
    expect(page.url()).toBe(`${demo.url}/`);
    await page.reload();
    await page.getByTestId('order-row').first().waitFor();
    expect(await shown(page, 'user-name')).toBe('Alice Albers');
    expect(faults).toEqual([]);
  }
  const names = (await context.cookies(demo.url)).map(({ name }) => name);
  expect(names.filter((name) => name.startsWith('cloakroom-login-'))).toEqual([]);
  await context.close();
});

test('bob is bob: his name, his orders; logging out ends his session here and at the provider, and nobody else’s', async () => {
  const context = await browser.browser.newContext();
  const { page, faults } = await openTab(context);
  const second = await openTab(context);
  await signIn(page, 'bob');
  await page.getByTestId('order-row').first().waitFor();
  expect(await shown(page, 'user-name')).toBe('Bob Bakker');
  expect(await page.getByTestId('order-row').first().textContent()).toContain('B-2210');
  await second.page.reload();
  await second.page.getByTestId('talk-toggle').click();
  await second.page.getByTestId('talk-row').first().waitFor();
  expect(await shown(second.page, 'user-name')).toBe('Bob Bakker');
  expect(await stock(page)).toEqual(EMPTY);

  await page.getByTestId('logout').click();
  await page.getByTestId('view-signed-out').waitFor();
  expect(page.url()).toBe(`${demo.url}/`);
  expect(await context.cookies(demo.url)).toEqual([]);
  expect(await stock(page)).toEqual(EMPTY);
  // The other tab learns of it in the same moment, by itself.
  await second.page.getByTestId('view-signed-out').waitFor();
  expect(await shown(second.page, 'banner')).toContain('You signed out in another tab.');
  await second.page.getByTestId('banner-socket').getByText('code 4401').waitFor();
  // At the provider too: it asks for the password again.
  await page.getByTestId('login').click();
  await page.getByLabel('Password').waitFor();
  expect(faults).toEqual([]);
  await context.close();

  await alice.page.getByTestId('call-api').click();
  expect(await shown(alice.page, 'user-name')).toBe('Alice Albers');
});

test('one’s own sessions are listed; one ended from another browser says so at once, and shows nothing any more', async () => {
  const contexts = [await browser.browser.newContext(), await browser.browser.newContext()] as const;
  const [desk, phone] = [await openTab(contexts[0]), await openTab(contexts[1])];
  await signIn(desk.page, 'bob');
  await desk.page.getByTestId('session-row').waitFor();
  expect(await desk.page.getByTestId('end-others').isVisible()).toBe(false);
  await signIn(phone.page, 'bob');
  await phone.page.getByTestId('session-row').nth(1).waitFor();
  const rows = await phone.page.getByTestId('session-row').all();
  expect(await Promise.all(rows.map((row) => row.getAttribute('data-current')))).toEqual(['true', 'false']);
  expect(await rows[0]?.textContent()).toContain('this browser');
  expect(await rows[1]?.textContent()).toMatch(/Chrome on Linux/);

  await phone.page.getByTestId('session-end').click();
  await desk.page.getByTestId('view-signed-out').waitFor();
  expect(await shown(desk.page, 'banner')).toContain('You ended this session from another browser.');
  expect(await desk.page.getByTestId('order-row').count()).toBe(0);
  await eventually(async () => (await phone.page.getByTestId('session-row').count()) === 1);
  expect(await shown(phone.page, 'user-name')).toBe('Bob Bakker');

  // All others, with two tabs of one browser among them; then everywhere, this one included.
  // The provider forgets a consent along with the refresh token that was revoked.
  await desk.page.getByTestId('login').click();
  await consent(desk.page);
  const tab = await openTab(contexts[0]);
  await tab.page.getByTestId('view-signed-in').waitFor();
  await phone.page.reload();
  await phone.page.getByTestId('end-others').click();
  for (const { page } of [desk, tab]) await page.getByTestId('view-signed-out').waitFor();
  expect(await shown(tab.page, 'banner-title')).toBe('You are signed out.');
  await desk.page.getByTestId('login').click();
  await consent(desk.page);
  await desk.page.getByTestId('session-row').nth(1).waitFor();
  await desk.page.getByTestId('logout-everywhere').click();
  await phone.page.getByTestId('view-signed-out').waitFor();
  await desk.page.getByTestId('view-signed-out').waitFor();
  expect(await desk.page.getByTestId('banner').isVisible()).toBe(false);
  expect([...desk.faults, ...phone.faults, ...tab.faults]).toEqual([]);
  for (const context of contexts) await context.close();
});

test('a session that is about to run out counts down, and a click keeps it', async () => {
  const { page, faults } = await openTab(aliceContext);
  await page.getByTestId('view-signed-in').waitFor();
  // What Cloakroom says 90 seconds before the end, without waiting for that.
  const body = 'retry: 600000\n\nevent: expiring\ndata: {"in":90,"kind":"idle"}\n\n';
  await page.route('**/auth/events', (route) => route.fulfill({ contentType: 'text/event-stream', body }));
  await page.reload();
  await page.getByTestId('expiring').waitFor();
  expect(await shown(page, 'expiring-left')).toMatch(/^1:(?:30|2\d)$/);
  const use = page.waitForRequest((request) => request.url() === `${demo.url}/auth/me`);
  await page.getByTestId('stay').click();
  expect((await (await use).response())?.status()).toBe(200);
  expect(faults).toEqual([]);
  await page.close();
});

test.each([
  ['cloakroom', 'DEMO_PORT', 'Cloakroom'],
  ['provider', 'DEMO_PROVIDER_PORT', 'the identity provider'],
  ['api', 'DEMO_API_PORT', 'the API'],
] as const)('a port in use (%s): one clear line, and exit code 1', async (which, variable, what) => {
  const taken = demo.ports[which];
  const second = await Demo.start({ ports: { [which]: taken }, unready: true });
  expect(await second.exited()).toBe(1);
  expect(second.stdout).toBe('');
  expect(second.stderr.trimEnd().split('\n')).toHaveLength(1);
  expect(second.stderr).toMatch(new RegExp(`^Port ${String(taken)} .*in use.* ${what}.* ${variable}=\\d+`));
});

test('with REDIS_URL set the sessions are in that Redis', async () => {
  const redis = await startRedis();
  const other = await Demo.start({ env: { REDIS_URL: redis.url } });
  expect(other.stdout).toContain('sessions in Redis');
  const context = await browser.browser.newContext();
  const { page } = await openTab(context, other.url);
  await signIn(page, 'bob');
  const keys = async (): Promise<string[]> => await redis.keys('cloakroom-demo:*:session');
  expect(await keys()).toHaveLength(1);
  await page.getByTestId('logout').click();
  await page.getByTestId('view-signed-out').waitFor();
  expect(await keys()).toEqual([]);
  await context.close();
  other.interrupt();
  expect(await other.exited()).toBe(0);
  await redis.close();
});

test('a token refresh happens unnoticed: another token at the API, and nothing else changes', async () => {
  const { page, faults } = alice;
  const refreshed = page.getByTestId('token-refreshed').first();
  await refreshed.waitFor({ timeout: 60_000 });
  const rows = await page.getByTestId('call-row').all();
  const statuses = await Promise.all(rows.map((row) => row.getAttribute('data-status')));
  expect(new Set(statuses)).toEqual(new Set(['200']));
  const { from, to } = await page.evaluate<{ from: string; to: string }>(
    `({ ...document.querySelector('[data-testid=token-refreshed]').dataset })`,
  );
  expect(to).not.toBe(from);
  expect(await shown(page, 'token-fingerprint')).not.toBe(from);
  expect(await page.getByTestId('banner').isVisible()).toBe(false);
  expect(await shown(page, 'user-name')).toBe('Alice Albers');
  expect(page.url()).toBe(`${demo.url}/`);
  expect(faults).toEqual([]);
  expect(demo.stderr).toBe('');
}, 80_000);

test('document.cookie and all storage are empty, the page says so, and the cookies are HttpOnly and Strict', async () => {
  const { page } = alice;
  expect(await stock(page)).toEqual(EMPTY);
  expect(await shown(page, 'holds-verdict')).toBe('No token. Nothing a script could read.');
  expect(await shown(page, 'holds-cookie')).toBe('"" (empty)');
  for (const id of ['holds-local', 'holds-session', 'holds-databases'])
    expect(await shown(page, id)).toBe('0 entries');
  const cookies = await aliceContext.cookies(demo.url);
  expect(cookies.every(({ httpOnly, domain }) => httpOnly && domain === 'localhost')).toBe(true);
  expect(cookies.find(({ name }) => name === 'cloakroom-session')?.sameSite).toBe('Strict');
  // The panel is no decoration: it notices.
  await page.evaluate(`localStorage.setItem('token', 'x')`);
  await page.getByTestId('holds-verdict').getByText('Something is stored here.').waitFor();
  await page.evaluate('localStorage.clear()');
});

test('no byte between Chromium and Cloakroom belongs to a token, apart from id_token_hint in the redirect of a logout', async () => {
  expect(demo.secrets('access_token').length).toBeGreaterThanOrEqual(5);
  expect(demo.secrets('refresh_token').length).toBeGreaterThanOrEqual(5);
  expect(demo.secrets('id_token').length).toBeGreaterThanOrEqual(5);
  expect(demo.secrets('verifier').length).toBeGreaterThanOrEqual(4);
  const { findings, scanned } = await searchForSecrets(demo.recordings);
  expect(findings.map(describeFinding)).toEqual([]);
  expect(scanned).toBeGreaterThan(100_000);
  // The recording is of the real thing: the one exception is in it, once for each of the two logouts.
  const recorded = readFileSync(demo.tap.file, 'latin1');
  expect(recorded.split('id_token_hint=').length - 1).toBe(2);
  expect(demo.secrets('id_token').filter((token) => recorded.includes(token))).toHaveLength(2);
});

test('Ctrl-C stops everything cleanly, with a stream and a WebSocket open: exit code 0, and the ports are free', async () => {
  await alice.page.getByTestId('stream-toggle').click();
  await alice.page.getByTestId('stream-event').first().waitFor();
  await alice.page.getByTestId('talk-toggle').click();
  await eventually(async () => (await shown(alice.page, 'talk-state')) === 'live');
  const children = demo.children();
  demo.interrupt();
  expect(await demo.exited()).toBe(0);
  for (const port of [demo.ports.cloakroom, demo.ports.provider, demo.ports.api]) await listenOnce(port);
  for (const pid of children) expect(() => process.kill(pid, 0)).toThrow('ESRCH');
  // Besides the ready line only who ended what, which is written down whatever the level.
  const [, ...lines] = demo.stdout.trimEnd().split('\n');
  expect(lines.filter((line) => !line.includes('"log":"audit"'))).toEqual([]);
  expect(demo.stderr).toBe('');
});

function digest(bytes: string | Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** Rejects when somebody still has the port. */
async function listenOnce(port: number): Promise<void> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  await new Promise((resolve) => server.close(resolve));
}
