import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { BrowserContext, Page, Request } from 'playwright-core';
import {
  signInWith,
  startBrowserCluster,
  startBrowserFront,
  type BrowserCluster,
  type BrowserFront,
} from './support/browser-cluster.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';

const cases = [
  { tls: true, sameSite: 'strict' },
  { tls: true, sameSite: 'lax' },
  { tls: false, sameSite: 'strict' },
  { tls: false, sameSite: 'lax' },
] as const;

interface Sent {
  path: string;
  query: URLSearchParams;
  cookies: string[];
  site: string | undefined;
}

/** What this page asks of Cloakroom, with the cookies that really went along. */
function watch(page: Page, publicUrl: string): Promise<Sent>[] {
  const seen: Promise<Sent>[] = [];
  page.on('request', (request) => {
    if (request.url().startsWith(`${publicUrl}/`)) seen.push(sent(request));
  });
  return seen;
}

async function sent(request: Request): Promise<Sent> {
  // The raw headers are known when the answer is there.
  await request.response();
  const headers = await request.allHeaders();
  const { pathname, searchParams } = new URL(request.url());
  const cookies = (headers['cookie'] ?? '').split('; ').map((pair) => pair.split('=', 1)[0] ?? '');
  return { path: pathname, query: searchParams, cookies, site: headers['sec-fetch-site'] };
}

let shared: BrowserFront;

beforeAll(async () => {
  shared = await startBrowserFront(['third.test']);
});

afterAll(async () => {
  await shared.browser.close();
});

describe.each(cases)('$sameSite cookie, https: $tls', ({ tls, sameSite }) => {
  const name = (what: string): string => `${tls ? '__Host-' : ''}cloakroom-${what}`;
  let started: BrowserCluster | undefined;
  let cluster: BrowserCluster;
  let context: BrowserContext;

  const start = async (): Promise<{ page: Page; url: string; seen: Promise<Sent>[] }> => {
    cluster = started ??= await startBrowserCluster({ tls, sameSite, shared });
    context = await cluster.browser.browser.newContext();
    const page = await context.newPage();
    return { page, url: cluster.room.publicUrl, seen: watch(page, cluster.room.publicUrl) };
  };
  const sessions = (): Promise<string[]> =>
    cluster.room.redis?.keys(`${cluster.room.prefix}:*:session`) ?? Promise.resolve([]);

  afterEach(async () => {
    await context.close();
    await cluster.room.redis?.clear();
  });

  afterAll(async () => {
    await expectLeftClean(cluster.room);
    await cluster.close();
  });

  test('A-024 the first page after the login works: its own requests carry the session cookie', async () => {
    const { page, url, seen } = await start();
    await signInWith(page, url, '/start?tab=1');
    expect(page.url()).toBe(`${url}/start?tab=1`);
    const requests = await Promise.all(seen);
    const callback = requests.find(({ path }) => path === '/auth/callback');
    expect(callback?.site).toBe('cross-site');
    expect(callback?.cookies.filter((one) => one.startsWith(name('login-')))).toHaveLength(1);
    const landing = requests.find(({ path }) => path === '/start');
    // The way here began at the provider, and Strict cookies stay at home until the page itself asks.
    expect(landing?.cookies.includes(name('session'))).toBe(sameSite === 'lax');
    const me = requests.find(({ path }) => path === '/auth/me');
    expect([me?.site, me?.cookies.includes(name('session'))]).toEqual(['same-origin', true]);
    await page.reload();
    await page.locator('#who').getByText('alice').waitFor();
  });

  test('A-024 A-048 Chromium really stores the cookies, with these attributes', async () => {
    const { page, url } = await start();
    await page.goto(`${url}/auth/login`);
    const attempt = (await context.cookies(url)).filter((one) => one.name.startsWith(name('login-')));
    expect(attempt).toHaveLength(1);
    expect(attempt[0]).toMatchObject({ secure: tls, httpOnly: true, sameSite: 'Lax', path: '/' });
    await page.locator('#approve').click();
    await page.locator('#who').getByText('alice').waitFor();

    const cookies = await context.cookies(url);
    expect(cookies.map((one) => one.name).sort()).toEqual([name('last'), name('session')]);
    const session = cookies.find((one) => one.name === name('session'));
    expect(session).toMatchObject({
      // Without a dot in front: this very host, not those below it.
      domain: new URL(url).hostname,
      path: '/',
      secure: tls,
      httpOnly: true,
      sameSite: sameSite === 'strict' ? 'Strict' : 'Lax',
    });
    const companion = cookies.find((one) => one.name === name('last'));
    expect(companion).toMatchObject({ path: '/', secure: tls, httpOnly: true, sameSite: 'Lax' });
    for (const one of cookies) expect(one.name.length + one.value.length).toBeLessThan(512);
    expect(await page.evaluate('document.cookie')).toBe('');
  });

  test('A-024 a second login ends the first session, wherever the cookie stayed on the way', async () => {
    const { page, url, seen } = await start();
    await signInWith(page, url);
    const [first] = await sessions();
    const old = await context.storageState();
    seen.length = 0;
    await signInWith(page, url);
    const callback = (await Promise.all(seen)).find(({ path }) => path === '/auth/callback');
    expect(callback?.cookies.includes(name('session'))).toBe(sameSite === 'lax');
    const now = await sessions();
    expect(now).toHaveLength(1);
    expect(now).not.toContain(first);
    const other = await cluster.browser.browser.newContext({ storageState: old });
    const stale = await other.newPage();
    await stale.goto(url);
    await stale.locator('#who').getByText('session-required').waitFor();
    await other.close();
  });

  test('A-024 a second login that a link on another site begins ends the first session too', async () => {
    const { page, url } = await start();
    await signInWith(page, url);
    const [first] = await sessions();
    // Any page of another site will do: there the provider's is one.
    await page.goto(`${cluster.provider.issuer}/.well-known/openid-configuration`);
    await page.evaluate(`location.href = ${JSON.stringify(`${url}/auth/login`)}`);
    await page.locator('#approve').click();
    await page.locator('#who').getByText('alice').waitFor();
    const now = await sessions();
    expect(now).toHaveLength(1);
    expect(now).not.toContain(first);
  });

  test('A-024 logging out is complete: no session, no cookie, and the provider is told', async () => {
    const { page, url } = await start();
    await signInWith(page, url);
    await page.evaluate(`fetch('/auth/logout', { method: 'POST', headers: { 'X-CSRF': '1' } })
      .then((response) => response.json()).then(({ logoutUrl }) => location.assign(logoutUrl))`);
    await page.locator('#who').getByText('session-required').waitFor();
    expect(page.url()).toBe(`${url}/`);
    expect(await sessions()).toEqual([]);
    expect(await context.cookies(url)).toEqual([]);
    expect(cluster.provider.ledger.count('end_session')).toBe(1);
  });

  test('A-023 no code stays behind: not in the address, not in the history, and no Referer tells anybody', async () => {
    const { page, url, seen } = await start();
    await signInWith(page, url, '/start?tab=1');
    const line = await context.newCDPSession(page);
    const { entries } = (await line.send('Page.getNavigationHistory')) as { entries: { url: string }[] };
    expect(entries.map((entry) => entry.url).filter((one) => one.startsWith(url))).toEqual([
      `${url}/start?tab=1`,
    ]);
    expect(
      entries.filter((entry) => /[?&](?:code|state)=/.test(entry.url) && entry.url.startsWith(url)),
    ).toEqual([]);
    expect(await page.evaluate('document.referrer')).toBe('');
    // Back and forth again: the callback is not asked a second time.
    seen.length = 0;
    await page.goBack();
    await page.goForward();
    await page.locator('#who').getByText('alice').waitFor();
    expect((await Promise.all(seen)).filter(({ path }) => path === '/auth/callback')).toEqual([]);

    const { front } = cluster;
    if (front === undefined) return;
    await page.locator('#out').click();
    await page.waitForURL('https://third.test/elsewhere');
    const [visit] = await eventually(() => {
      const visits = front.seen('third.test', '/elsewhere');
      return visits.length > 0 && visits;
    });
    expect(visit?.headers.referer).toBeUndefined();
  });
});
