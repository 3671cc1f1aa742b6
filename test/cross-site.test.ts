import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserContext, Page } from 'playwright-core';
import { signInWith, startBrowserCluster, type BrowserCluster } from './support/browser-cluster.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import type { FrontRequest } from './support/tls-front.js';

const APP = 'https://app.example.test';
const LOOK_ALIKES = [
  'app.example.test.evil.test',
  'evilapp.example.test',
  'xapp.example.test',
  'sub.app.example.test',
];
const SESSION = '__Host-cloakroom-session';

/** Script of the attacker's page. `at` is the address under attack; `post` builds a form and sends it off. */
const TOOLS = `
const post = (at, { type = 'application/x-www-form-urlencoded', fields = { amount: '1000' }, target = '_self' } = {}) => {
  const form = document.body.appendChild(document.createElement('form'));
  Object.assign(form, { method: 'post', action: at, enctype: type, target });
  for (const [name, value] of Object.entries(fields)) {
    form.append(Object.assign(document.createElement('input'), { type: 'hidden', name, value }));
  }
  form.submit();
};
const add = (tag, attributes) => document.body.append(Object.assign(document.createElement(tag), attributes));
`;

interface Trick {
  name: string;
  script: string;
  method?: string;
  /** Cross-site, Chromium does not even ask, or leaves cookies at home whatever their SameSite. */
  anonymous?: boolean;
}

/** Requests that a browser sends for a foreign page without asking first (no preflight). */
const TRICKS: Trick[] = [
  { name: 'a form', method: 'POST', script: 'post(at)' },
  {
    name: 'a form in a frame',
    method: 'POST',
    script: `add('iframe', { name: 'x' }); post(at, { target: 'x' })`,
  },
  { name: 'a multipart form', method: 'POST', script: `post(at, { type: 'multipart/form-data' })` },
  {
    name: 'JSON as text/plain',
    method: 'POST',
    script: `post(at, { type: 'text/plain', fields: { '{"amount":1000,"x":"': '"}' } })`,
  },
  {
    name: 'a method override',
    method: 'POST',
    script: `post(at + '?_method=DELETE&X-CSRF=1', { fields: { _method: 'DELETE', 'X-CSRF': '1', 'X-HTTP-Method-Override': 'DELETE' } })`,
  },
  { name: 'sendBeacon', method: 'POST', script: `navigator.sendBeacon(at, '{"amount":1000}')` },
  {
    name: 'a POST by fetch with a simple content type',
    method: 'POST',
    script: `fetch(at, { method: 'POST', body: '{}', credentials: 'include' }).catch(() => {})`,
  },
  {
    name: 'a POST by fetch, no-cors and keepalive',
    method: 'POST',
    script: `fetch(at, { method: 'POST', mode: 'no-cors', keepalive: true, body: '{}', credentials: 'include' })`,
  },
  { name: 'a GET by fetch, no-cors', script: `fetch(at, { mode: 'no-cors', credentials: 'include' })` },
  { name: 'a GET by fetch, cors', script: `fetch(at, { credentials: 'include' }).catch(() => {})` },
  { name: 'an image', script: `add('img', { src: at })` },
  { name: 'a script', script: `add('script', { src: at })` },
  { name: 'a style sheet', script: `add('link', { rel: 'stylesheet', href: at })` },
  { name: 'a frame', script: `add('iframe', { src: at })` },
  { name: 'an object', script: `add('object', { data: at })` },
  { name: 'a video', script: `add('video', { src: at, preload: 'auto' })` },
  { name: 'EventSource', script: `new EventSource(at, { withCredentials: true })` },
  { name: 'a prefetch', script: `add('link', { rel: 'prefetch', href: at })` },
  { name: 'a navigation', script: `location.href = at` },
  {
    name: 'a form with GET',
    script: `post(at); document.forms[0].method = 'get'; document.forms[0].submit()`,
  },
  {
    name: 'an XMLHttpRequest',
    script: `const x = new XMLHttpRequest(); x.withCredentials = true; x.open('GET', at); x.send()`,
  },
];

let cluster: BrowserCluster;
let context: BrowserContext;
let home: Page;
let counter = 0;
const tabs = new Map<string, Page>();
/** Has the shape of a logout token. */
const forged = `${'A'.repeat(43)}.${'B'.repeat(43)}`;

beforeAll(async () => {
  cluster = await startBrowserCluster({
    tls: true,
    hosts: ['evil.example.test', 'evil.other.test', ...LOOK_ALIKES],
  });
  context = await cluster.browser.browser.newContext();
  home = await context.newPage();
  await signInWith(home, APP);
});

beforeEach(() => {
  cluster.room.upstream.clear();
});

afterAll(async () => {
  await expectLeftClean(cluster.room);
  await cluster.close();
});

const front = (): FrontRequest[] => cluster.front?.requests ?? [];
const keys = async (kind: string): Promise<string[]> =>
  (await cluster.room.redis?.keys(`${cluster.room.prefix}:*:${kind}`)) ?? [];

/**
 * Runs script in a fresh document of that origin and waits until all it makes the browser ask of Cloakroom is answered.
 * The tab is the same for all of an origin: to open and close one takes longer than the rest.
 */
async function attack(origin: string, script: string, path: string): Promise<FrontRequest[]> {
  const page = tabs.get(origin) ?? (await context.newPage());
  tabs.set(origin, page);
  await page.goto(`${origin}/`);
  const from = front().length;
  // Later, so that a script that leaves the page has an answer to give before.
  await page.evaluate(
    `setTimeout(() => { const at = ${JSON.stringify(APP + path)}; ${TOOLS} ${script} }); undefined`,
  );
  const asked = await eventually(
    () => {
      const found = front()
        .slice(from)
        .filter(({ host, url }) => host === 'app.example.test' && url.startsWith(path));
      return found.length > 0 && found.every(({ status }) => status > 0) && found;
    },
    { what: `the request for ${path} of ${script}`, timeout: 15_000 },
  );
  // The next document must not be overtaken by one that is still on its way.
  const left = asked.some(({ headers }) => headers['sec-fetch-dest'] === 'document');
  if (left) await page.waitForURL((url) => url.origin === APP);
  return asked;
}

const cookiesOf = (request: FrontRequest | undefined): string[] =>
  (request?.headers.cookie ?? '').split('; ').map((pair) => pair.split('=', 1)[0] ?? '');

/** The session is alive, the same as before, and its person can work. */
async function expectUnharmed(): Promise<void> {
  const answer = await home.evaluate(`fetch('/api/after', { headers: { 'X-CSRF': '1' } })
    .then(async (response) => [response.status, (await response.json()).user])`);
  expect(answer).toEqual([200, 'alice']);
  expect(await keys('session')).toHaveLength(1);
}

describe.each([
  ['another site', 'https://evil.other.test', 'cross-site'],
  ['a sibling subdomain', 'https://evil.example.test', 'same-site'],
])('from %s', (_, origin, site) => {
  test.each(TRICKS)(
    'A-096 A-097 $name is refused before the upstream',
    async ({ script, method = 'GET' }) => {
      counter += 1;
      const requests = await attack(origin, script, `/api/orders/${String(counter)}`);
      expect(requests.map(({ status }) => status)).toEqual(requests.map(() => 403));
      expect(requests.map((one) => one.method)).toContain(method);
      expect(new Set(requests.map(({ headers }) => headers['sec-fetch-site']))).toEqual(new Set([site]));
      // SameSite does not tell a sibling from ourselves: there the cookie comes along and only the header is missing.
      const cookies = requests.flatMap(cookiesOf);
      expect(cookies.includes(SESSION)).toBe(site === 'same-site');
      expect(cluster.room.upstream.requests).toEqual([]);
      await expectUnharmed();
    },
  );

  test('A-097 A-098 the header itself needs a preflight, which is refused and never reaches the upstream', async () => {
    const page = await context.newPage();
    await page.goto(`${origin}/`);
    const path = `/api/preflight/${String((counter += 1))}`;
    for (const init of [
      `{ headers: { 'X-CSRF': '1' } }`,
      `{ headers: { 'X-CSRF': '1' }, credentials: 'include' }`,
      `{ method: 'DELETE', credentials: 'include' }`,
      `{ method: 'POST', headers: { 'Content-Type': 'application/json' }, body: '{}', credentials: 'include' }`,
    ]) {
      const answer = await page.evaluate(
        `fetch('${APP}${path}', ${init}).then(() => 'readable', (error) => error.name)`,
      );
      expect(answer).toBe('TypeError');
    }
    const asked = cluster.front?.seen('app.example.test', path) ?? [];
    expect(asked.map((one) => one.method)).toEqual(['OPTIONS', 'OPTIONS', 'OPTIONS', 'OPTIONS']);
    expect(asked.filter(({ status }) => status < 400)).toEqual([]);
    expect(cluster.room.upstream.requests).toEqual([]);
    await page.close();
    await expectUnharmed();
  });

  test('A-098 no answer of ours can be read there, whoever is signed in', async () => {
    const page = await context.newPage();
    await page.goto(`${origin}/`);
    for (const path of ['/auth/me', '/api/orders', '/', '/app.js', '/readyz', '/auth/logout']) {
      const answer = await page.evaluate(
        `fetch('${APP}${path}', { credentials: 'include' }).then((response) => response.text(), (error) => error.name)`,
      );
      expect([path, answer]).toEqual([path, 'TypeError']);
    }
    // As a classic script or an image it could be sensed, if not read: Cross-Origin-Resource-Policy.
    const loaded = await page.evaluate(`new Promise((resolve) => {
      const script = document.createElement('script');
      script.onload = () => resolve('loaded');
      script.onerror = () => resolve('blocked');
      script.src = '${APP}/app.js';
      document.head.append(script);
    })`);
    // Same-origin is stricter than same-site: a sibling is kept out too.
    expect(loaded).toBe('blocked');
    await page.close();
  });

  test.each([
    ['a form', '/auth/logout', 'post(at)'],
    ['sendBeacon', '/auth/logout', 'navigator.sendBeacon(at)'],
    ['an image', '/auth/logout', `add('img', { src: at })`],
    ['an image with a token', '/auth/logout?token=x', `add('img', { src: at })`],
    ['a navigation', '/auth/logout', 'location.href = at'],
    ['a navigation with a token', `/auth/logout?token=${forged}`, 'location.href = at'],
  ])('A-097 nobody else can sign the person out by %s', async (_name, path, script) => {
    await attack(origin, script, path);
    await expectUnharmed();
    expect((await context.cookies(APP)).map(({ name }) => name)).toContain(SESSION);
    expect(cluster.provider.ledger.count('revocation')).toBe(0);
  });

  test('A-003 a login begins in no frame, image, fetch or prefetch: nothing is stored and no cookie set', async () => {
    const before = (await context.cookies(APP)).map(({ name }) => name).sort();
    for (const script of [
      `add('iframe', { src: at })`,
      `add('img', { src: at })`,
      `add('script', { src: at })`,
      `add('object', { data: at })`,
      `add('link', { rel: 'stylesheet', href: at })`,
      `add('link', { rel: 'prefetch', href: at })`,
      `fetch(at, { mode: 'no-cors', credentials: 'include' })`,
      `fetch(at, { credentials: 'include' }).catch(() => {})`,
    ]) {
      const asked = await attack(origin, script, '/auth/login');
      expect([script, ...asked.map(({ status }) => status)]).toEqual([script, ...asked.map(() => 403)]);
    }
    expect((await context.cookies(APP)).map(({ name }) => name).sort()).toEqual(before);
    expect(await keys('login')).toEqual([]);
    await expectUnharmed();
  });

  test('a link to the login is no attack: the person ends up signed in', async () => {
    const page = await context.newPage();
    await page.goto(`${origin}/`);
    await page.evaluate(`location.href = '${APP}/auth/login?returnTo=/from-afar'`);
    await page.locator('#approve').click();
    await page.locator('#who').getByText('alice').waitFor();
    expect(page.url()).toBe(`${APP}/from-afar`);
    await page.close();
    await expectUnharmed();
  });
});

test.each(LOOK_ALIKES)('A-098 %s, which looks like us, may no more than the others', async (host) => {
  const page = await context.newPage();
  await page.goto(`https://${host}/`);
  for (const init of [
    `{}`,
    `{ credentials: 'include' }`,
    `{ headers: { 'X-CSRF': '1' }, credentials: 'include' }`,
  ]) {
    const answer = await page.evaluate(
      `fetch('${APP}/api/orders', ${init}).then((one) => one.text(), (error) => error.name)`,
    );
    expect(answer).toBe('TypeError');
  }
  await page.close();
  expect(cluster.room.upstream.requests).toEqual([]);
  await expectUnharmed();
});

test('A-003 neither does one begin from our own pages other than by a navigation', async () => {
  for (const script of [
    `fetch('/auth/login').catch(() => {})`,
    `document.body.append(Object.assign(document.createElement('img'), { src: '/auth/login' }))`,
    `document.body.append(Object.assign(document.createElement('iframe'), { src: '/auth/login' }))`,
    `document.head.append(Object.assign(document.createElement('link'), { rel: 'prefetch', href: '/auth/login' }))`,
  ]) {
    const page = await context.newPage();
    await page.goto(APP);
    const from = front().length;
    await page.evaluate(`{ ${script}; undefined }`);
    const asked = await eventually(() =>
      front()
        .slice(from)
        .find(({ url, status }) => url === '/auth/login' && status > 0),
    );
    expect([script, asked.status]).toEqual([script, 403]);
    await page.close();
  }
  expect(await keys('login')).toEqual([]);
});

test('A-048 our pages show in nobody’s frame, not even our own', async () => {
  for (const origin of ['https://evil.other.test', 'https://evil.example.test', APP]) {
    const page = await context.newPage();
    await page.goto(origin);
    await page.evaluate(`{ const at = '${APP}/'; ${TOOLS} add('iframe', { src: at, id: 'f' }); undefined }`);
    const frame = await eventually(() => page.frames().find((one) => one !== page.mainFrame()));
    await eventually(() => frame.url() !== '' && frame.url() !== 'about:blank', { what: 'the frame' });
    expect(frame.url()).toBe('chrome-error://chromewebdata/');
    await page.close();
  }
});

test.each([
  ['the cookie itself', (real: string) => `${SESSION}=${real}; Domain=example.test; Secure`],
  ['a secure cookie of its own choice', () => `${SESSION}=evil; Domain=example.test; Path=/; Secure`],
  ['a longer path', () => `${SESSION}=evil; Domain=example.test; Path=/api; Secure`],
  ['another case', () => `__host-cloakroom-session=evil; Domain=example.test; Secure`],
  ['no prefix', () => `cloakroom-session=evil; Domain=example.test; Secure`],
  ['no name', () => `=${SESSION}=evil; Domain=example.test; Secure`],
  ['only a value', () => `${SESSION}; Domain=example.test; Secure`],
  ['U+2000 before the name', () => `\u2000${SESSION}=evil; Domain=example.test; Secure`],
  ['U+00A0 before the name', () => `\u00a0${SESSION}=evil; Domain=example.test; Secure`],
  ['a comma and quotes', () => `x="; ${SESSION}=evil"; Domain=example.test; Secure`],
  ['$Version', () => `$Version=1; Domain=example.test; Secure`],
  ['a companion', () => `__Host-cloakroom-last=evil; Domain=example.test; Secure`],
  ['a companion without prefix', () => `cloakroom-last=evil; Domain=example.test; Secure`],
])('A-052 A-048 a sibling subdomain that sets %s changes nothing', async (_, cookie) => {
  const evil = await context.newPage();
  await evil.goto('https://evil.example.test/');
  const real = (await context.cookies(APP)).find(({ name }) => name === SESSION)?.value ?? '';
  await evil.evaluate(`document.cookie = ${JSON.stringify(cookie(real))}`);
  await expectUnharmed();
  const sent = cluster.front?.seen('app.example.test', '/api/after').at(-1)?.headers.cookie ?? '';
  expect(sent.split(`${SESSION}=${real}`)).toHaveLength(2);
  // That Chromium does hand a sibling's cookies to us, or this would prove nothing.
  if (cookie(real).startsWith('cloakroom-')) expect(sent).toContain(cookie(real).split(';', 1)[0]);
  await evil.evaluate(`cookieStore.getAll().then((all) => Promise.all(all.map(({ name, domain, path }) =>
    cookieStore.delete({ name, domain: domain ?? undefined, path })))).catch(() => {})`);
  const ours = (await context.cookies(APP)).filter(({ name }) => name === SESSION);
  expect(ours.map(({ value, domain }) => [value, domain])).toEqual([[real, 'app.example.test']]);
  await evil.close();
});
