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

/**
 * @param options.tls `https://app.example.test` behind a TLS front, as in production; else `http://localhost:<port>`
 * @param options.hosts further host names of the front
 */
export async function startBrowserCluster({
  tls,
  sameSite = 'strict',
  hosts = [],
  page,
  room: more = {},
}: {
  tls: boolean;
  sameSite?: 'strict' | 'lax';
  hosts?: string[];
  page?: TlsFrontOptions['page'];
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
  const front = tls
    ? await TlsFront.start(['app.example.test', ...hosts], {
        behind: { 'app.example.test': () => room.next().url },
        ...(page === undefined ? {} : { page }),
      })
    : undefined;
  const to = front === undefined ? '' : `127.0.0.1:${String(front.port)}`;
  const browser = await launchChromium({
    hosts: Object.fromEntries(
      front === undefined ? [] : ['app.example.test', ...hosts].map((host) => [`${host}:443`, to]),
    ),
    anyCertificate: tls,
  });
  return {
    room,
    provider,
    browser,
    front,
    async close() {
      await browser.close();
      await room.close();
      await front?.close();
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
