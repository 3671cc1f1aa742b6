import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Page } from 'playwright-core';
import { launchChromium, type TestBrowser } from './chromium.js';
import { startCloakroom, type Cloakroom, type StartOptions } from './cloakroom.js';
import { startProvider, type FaultProvider } from './fault-provider.js';
import { scratchFolder } from './run-folder.js';
import { TlsFront, type TlsFrontOptions } from './tls-front.js';

/** The application's page: asks who is signed in as soon as it is loaded, and says so. */
const APP = `<!doctype html><meta charset="utf-8"><title>app</title>
<p id="who">…</p><a id="out" href="https://third.test/elsewhere">elsewhere</a>
<script type="module" src="/app.js"></script>`;
const APP_SCRIPT = `const response = await fetch('/auth/me', { headers: { 'X-CSRF': '1' } });
const answer = await response.json();
document.getElementById('who').textContent = response.ok ? answer.claims.sub : answer.type;
`;

/** Cloakroom with a page to show, a provider on another site that asks for a click, and Chromium before it. */
export interface BrowserCluster {
  room: Cloakroom;
  provider: FaultProvider;
  browser: TestBrowser;
  /** With https only. */
  front: TlsFront | undefined;
  close(): Promise<void>;
}

/** Chromium and a TLS front before it, to be shared by clusters that run one after the other. */
export interface BrowserFront {
  browser: TestBrowser;
  front: TlsFront;
}

/** @param hosts names of the front besides `app.example.test` */
export async function startBrowserFront(
  hosts: string[] = [],
  page?: TlsFrontOptions['page'],
): Promise<BrowserFront> {
  const all = ['app.example.test', ...hosts];
  const front = await TlsFront.start(all, { behind: {}, ...(page === undefined ? {} : { page }) });
  const to = `127.0.0.1:${String(front.port)}`;
  const browser = await launchChromium({
    hosts: Object.fromEntries(all.map((host) => [`${host}:443`, to])),
    anyCertificate: true,
  });
  return { browser, front };
}

/**
 * @param options.tls `https://app.example.test` behind a TLS front, as in production; else `http://localhost:<port>`
 * @param options.hosts further host names of the front
 * @param options.shared Chromium and front that somebody else closes
 */
export async function startBrowserCluster({
  tls,
  sameSite = 'strict',
  hosts = [],
  page,
  shared,
  room: more = {},
}: {
  tls: boolean;
  sameSite?: 'strict' | 'lax';
  hosts?: string[];
  page?: TlsFrontOptions['page'];
  shared?: BrowserFront;
  room?: StartOptions;
}): Promise<BrowserCluster> {
  const folder = scratchFolder('app');
  writeFileSync(join(folder, 'index.html'), APP);
  writeFileSync(join(folder, 'app.js'), APP_SCRIPT);
  const provider = await startProvider();
  provider.modes.authorizePage = true;
  const room = await startCloakroom({
    provider,
    local: !tls,
    config: { session: { sameSite }, frontend: { folder } },
    ...more,
  });
  const own = tls && shared === undefined ? await startBrowserFront(hosts, page) : undefined;
  const { browser } = own ?? shared ?? { browser: await launchChromium() };
  const front = tls ? (own ?? shared)?.front : undefined;
  front?.lead('app.example.test', () => room.next().url);
  return {
    room,
    provider,
    browser,
    front,
    async close() {
      if (shared === undefined) await browser.close();
      await room.close();
      await own?.front.close();
      await provider.close();
    },
  };
}

/** Goes to the login from the address bar and gives the provider its click; returns when the page knows who is there. */
export async function signInWith(page: Page, publicUrl: string, returnTo = '/'): Promise<void> {
  await page.goto(`${publicUrl}/auth/login?returnTo=${encodeURIComponent(returnTo)}`);
  await page.locator('#approve').click();
  await page.locator('#who').getByText('alice').waitFor();
}
