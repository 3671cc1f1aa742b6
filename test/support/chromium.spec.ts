import { expect, test } from '@jest/globals';
import { chromiumPath, launchChromium } from './chromium.js';
import { startUpstream } from './upstream.js';

// Without a browser there is nothing to start; the test command looks for one first.
(chromiumPath === undefined ? test.skip : test)(
  'Chromium reaches this machine and nothing else',
  async () => {
    const upstream = await startUpstream();
    const browser = await launchChromium();
    const page = await browser.page();
    await page.goto(`http://localhost:${String(upstream.port)}/x`);
    expect(await page.textContent('body')).toContain('"method":"GET"');
    const reached = await page.evaluate(() =>
      fetch('http://example.test/').then(
        () => true,
        () => false,
      ),
    );
    expect(reached).toBe(false);
    expect(browser.blocked).toEqual(['http://example.test/']);
    await browser.close();
    await upstream.close();
  },
);
