import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { chromium, type Browser, type BrowserContext, type Page } from 'playwright-core';
import { closeLater } from './lifetime.js';

function findChromium(): string | undefined {
  const given = process.env['CLOAKROOM_TEST_CHROMIUM'] ?? process.env['CHROMIUM_PATH'];
  if (given !== undefined && given !== '') return given;
  for (const name of ['chromium', 'chromium-browser', 'google-chrome']) {
    for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
      if (folder !== '' && existsSync(join(folder, name))) return join(folder, name);
    }
  }
  return undefined;
}

/** The browser tests use this one; undefined when the machine has none. */
export const chromiumPath = findChromium();

export interface ChromiumOptions {
  /**
   * Where further names lead: `{ 'app.example.test:443': '127.0.0.1:40123' }`. A pattern may have a `*` and a port;
   * the first that fits counts.
   */
  hosts?: Record<string, string>;
  /** Take certificates that nobody vouches for. */
  anyCertificate?: boolean;
}

export class TestBrowser {
  private readonly forget: () => void;
  /** Requests to hosts that are not this machine; all were blocked. */
  readonly blocked: string[] = [];

  private constructor(readonly browser: Browser) {
    this.forget = closeLater(() => this.close());
  }

  static async launch({ hosts = {}, anyCertificate = false }: ChromiumOptions = {}): Promise<TestBrowser> {
    if (chromiumPath === undefined) throw new Error('no Chromium: set CHROMIUM_PATH');
    // No EXCLUDE for localhost: it would win over a rule of the test for one of its ports.
    const rules = [
      ...Object.entries(hosts).map(([name, target]) => `MAP ${name} ${target}`),
      ...['localhost', '*.localhost'].map((name) => `MAP ${name} 127.0.0.1`),
      ...['127.0.0.1', '::1'].map((address) => `EXCLUDE ${address}`),
      'MAP * ~NOTFOUND',
    ];
    const browser = await chromium.launch({
      executablePath: chromiumPath,
      headless: true,
      args: [
        '--no-sandbox',
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
        '--disable-dev-shm-usage',
        ...(anyCertificate ? ['--ignore-certificate-errors'] : []),
        `--host-resolver-rules=${rules.join(', ')}`,
      ],
    });
    return new TestBrowser(browser);
  }

  /**
   * A fresh profile: own cookies and storage. Every request is looked at, which costs Chromium its HTTP cache; a test
   * that must not interfere takes `browser.newContext()`, where other hosts cannot be resolved either.
   */
  async context(): Promise<BrowserContext> {
    const context = await this.browser.newContext();
    await context.route('**/*', (route) => {
      const { hostname, protocol } = new URL(route.request().url());
      const here =
        hostname === 'localhost' ||
        hostname.endsWith('.localhost') ||
        hostname === '127.0.0.1' ||
        hostname === '[::1]';
      if (here || protocol === 'data:' || protocol === 'blob:') return route.continue();
      this.blocked.push(route.request().url());
      return route.abort();
    });
    return context;
  }

  async page(): Promise<Page> {
    return await (await this.context()).newPage();
  }

  async close(): Promise<void> {
    this.forget();
    await this.browser.close();
  }
}

export function launchChromium(options?: ChromiumOptions): Promise<TestBrowser> {
  return TestBrowser.launch(options);
}
