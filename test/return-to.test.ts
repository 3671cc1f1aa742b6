import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserClient, BrowserResponse } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';

/** Values that may be kept, and where a browser that follows the answer must end. */
const kept: Array<[string, string]> = [
  ['/', '/'],
  ['/orders', '/orders'],
  ['/orders/12/lines/', '/orders/12/lines/'],
  ['/orders?page=2&sort=name', '/orders?page=2&sort=name'],
  ['/orders?a=1&a=2', '/orders?a=1&a=2'],
  ['/orders#line-3', '/orders#line-3'],
  ['/orders?x=1#y', '/orders?x=1#y'],
  ['/search?q=https://evil.example/', '/search?q=https://evil.example/'],
  ['/search?next=//evil.example', '/search?next=//evil.example'],
  ['/search?q=a%26b%3Dc', '/search?q=a%26b%3Dc'],
  ['/search?q=100%25', '/search?q=100%25'],
  ['/search?q=a+b', '/search?q=a+b'],
  ['/#//evil.example', '/#//evil.example'],
  ['/a/./b', '/a/b'],
  ['/a/../b', '/b'],
  ['/../../b', '/b'],
  ['/@evil.example', '/@evil.example'],
  ['/:80', '/:80'],
  ['/javascript:alert(1)', '/javascript:alert(1)'],
  ['/;/evil.example', '/;/evil.example'],
  ['/grüße', '/gr%C3%BC%C3%9Fe'],
  ['/／evil.example', '/%EF%BC%8Fevil.example'],
  ['/。evil.example', '/%E3%80%82evil.example'],
  ['/authors', '/authors'],
  ['/.well-known/x', '/.well-known/x'],
];

/** Values that must become `/`. */
const dropped: string[] = [
  '/https://evil.example',
  '/%2f%2fevil.example',
  '/%5cevil.example',
  '/%09/evil.example',
  '/%00',
  '/a//b',
  '',
  ' ',
  'orders',
  './orders',
  '../orders',
  '?x=1',
  '#x',
  '.',
  '..',
  '*',
  '@evil.example',
  ':80',
  'evil.example',
  'www.evil.example/x',
  '//evil.example',
  '//evil.example/',
  '//evil.example:443/',
  '//user@evil.example/',
  '//app.example.test@evil.example/',
  '//app.example.test/',
  '//app.example.test.evil.example/',
  '//[::1]/',
  '//127.0.0.1/',
  '//2130706433/',
  '//0x7f000001/',
  '///evil.example',
  '////evil.example',
  '/////evil.example/',
  '//%65vil.example/',
  '//evil%2eexample/',
  '//evil。example/',
  '//ｅvil.example/',
  '/\\evil.example',
  '/\\/evil.example',
  '/\\\\evil.example',
  '\\/evil.example',
  '\\\\evil.example',
  '\\evil.example',
  '//\\evil.example',
  '/orders\\..\\..\\\\evil.example',
  '/a\\b',
  '/\t/evil.example',
  '/\t\\evil.example',
  '\t//evil.example',
  '/\n/evil.example',
  '/\r/evil.example',
  '/\r\n/evil.example',
  '\r\n//evil.example',
  '/\v/evil.example',
  '/\f/evil.example',
  '/ /evil.example',
  ' //evil.example',
  ' /orders',
  '/\u0000/evil.example',
  '\u0000//evil.example',
  '/\u0001',
  '/\u007f/evil.example',
  '/orders\r\nSet-Cookie: a=b',
  '/orders\r\nLocation: https://evil.example/',
  '/orders\n\n<script>',
  '/.//evil.example',
  '/..//evil.example',
  '/a/..//evil.example',
  '/a/../..//evil.example',
  '/././/evil.example',
  '/.//.//evil.example',
  '/%2e//evil.example',
  '/%2E//evil.example',
  '/%2e%2e//evil.example',
  '/.%2e//evil.example',
  '/a/%2e%2e//evil.example',
  '/a/%2E%2E//evil.example/x?y#z',
  'http://evil.example',
  'https://evil.example',
  'https://evil.example/',
  'HTTPS://EVIL.EXAMPLE/',
  'https:evil.example',
  'https:/evil.example',
  'https:///evil.example',
  'https:\\\\evil.example',
  'https:\\/\\/evil.example',
  'http:evil.example',
  'http:/\\evil.example',
  'hTtPs:////evil.example',
  'https://app.example.test/',
  'https://app.example.test/orders',
  'http://app.example.test/orders',
  'https://app.example.test:444/',
  'https://app.example.test.evil.example/',
  'https://app.example.test@evil.example/',
  'https://app.example.test%40evil.example/',
  'https://app.example.test%2eevil.example/',
  'https://app.example.test\\@evil.example/',
  'https://app.example.test#@evil.example/',
  'https://app.example.test?@evil.example/',
  'https://app.example.test:pass@evil.example/',
  'https://app.example.test\u0000.evil.example/',
  'https://evil.example/app.example.test',
  'https://evil.example#app.example.test',
  'https://evil.example?app.example.test',
  'https://sub.app.example.test/',
  'https://example.test/',
  'https://APP.EXAMPLE.TEST/',
  'https://app.example.test./',
  'ftp://evil.example/',
  'file:///etc/passwd',
  'javascript:alert(1)',
  'javascript://app.example.test/%0aalert(1)',
  'JaVaScRiPt:alert(1)',
  'java\tscript:alert(1)',
  '\u0001javascript:alert(1)',
  'jav&#x09;ascript:alert(1)',
  'data:text/html,<script>alert(1)</script>',
  'data:text/html;base64,PHNjcmlwdD4=',
  'vbscript:x',
  'blob:https://app.example.test/x',
  'about:blank',
  'view-source:https://evil.example/',
  'ws://evil.example/',
  'mailto:x@evil.example',
  'intent://evil.example/#Intent;scheme=https;end',
  '<script>alert(1)</script>',
  '"><img src=x>',
  '%2F%2Fevil.example',
  '%2Forders',
  '%5C%5Cevil.example',
  '%09//evil.example',
  'https%3A%2F%2Fevil.example',
  '\ufeff//evil.example',
  '\u00a0//evil.example',
  '\u2028//evil.example',
  '\u3000//evil.example',
  '〱evil.example',
  '／／evil.example',
  '⁄⁄evil.example',
  '。/evil.example',
  '/auth',
  '/auth/',
  '/auth/logout',
  '/auth/login',
  '/auth/login?returnTo=/auth/login',
  '/auth/callback?code=x&state=y',
  '/x/../auth/logout',
  '/./auth/me',
  '/%2e/auth/me',
  `/${'x'.repeat(2048)}`,
  `/?${'x'.repeat(2048)}`,
  'null',
  'undefined',
  '[object Object]',
];

/** The same tricks as they stand in a request line, past any encoding of ours. */
const asTheyAre: string[] = [
  '/%2fevil.example',
  '%2f/evil.example',
  '%2f%2fevil.example',
  '/%5cevil.example',
  '%5c%5cevil.example',
  '/%09/evil.example',
  '/%0d/evil.example',
  '/%0a/evil.example',
  '/%00/evil.example',
  '/%20/evil.example',
  '+//evil.example',
  '/+/evil.example',
  '/%c0%afevil.example',
  '/%e0%80%afevil.example',
  '/%ff%feevil.example',
  '/%u002fevil.example',
  '/%%32%66evil.example',
  '/%zz',
  '/%',
  '/.%2f/evil.example',
  '/%2e%2f/evil.example',
  '/%252fevil.example',
  '/%25252fevil.example',
  '/%ef%bc%8fevil.example',
  '/%e2%80%a8/evil.example',
  '//evil.example',
  '/orders%0d%0aSet-Cookie:%20a=b',
];

let c: Cloakroom;

beforeAll(async () => {
  c = await startCloakroom({ replicas: 2 });
});

beforeEach(() => {
  c.provider.reset();
});

afterAll(async () => {
  await expectLeftClean(c);
});

/** Where a browser that follows this answer ends (WHATWG URL), as path, query and fragment of our own origin. */
function place(answer: BrowserResponse, at: string): string {
  expect(answer.status).toBe(303);
  const { location = '' } = answer;
  expect(location).toMatch(/^\/(?![/\\])[\x21-\x7e]*$/);
  const { origin, protocol, username, password, host, href } = new URL(location, c.publicUrl + at);
  expect({ origin, protocol, username, password, host }).toEqual({
    origin: c.publicUrl,
    protocol: 'https:',
    username: '',
    password: '',
    host: 'app.example.test',
  });
  const names = answer.rawHeaders.filter((_, index) => index % 2 === 0).map((name) => name.toLowerCase());
  expect(names.filter((name) => name === 'location')).toHaveLength(1);
  expect(answer.setCookies.every((line) => /^__Host-cloakroom-/.test(line))).toBe(true);
  return href.slice(c.publicUrl.length);
}

/** Every way an application may say where to go; the places where each ends. */
async function everyWay(raw: string): Promise<Record<string, string>> {
  const client = c.client();
  const ends: Record<string, string> = {};
  const signIn = async (): Promise<BrowserResponse> => {
    const answer = await client.navigate(`/auth/login?returnTo=${raw}`, { site: 'same-origin' });
    const callback = (await client.foreign(answer.location ?? '')).location ?? '';
    return await client.navigate(client.pathOf(callback), { site: 'cross-site' });
  };
  ends['login'] = place(await signIn(), '/auth/callback');
  ends['post, provider'] = await throughProvider(
    client,
    (await client.api(`/auth/logout?returnTo=${raw}`, { method: 'POST' })).json<{ logoutUrl: string }>()
      .logoutUrl,
  );
  const nobody = await client.api(`/auth/logout?returnTo=${raw}`, { method: 'POST' });
  const { logoutUrl } = nobody.json<{ logoutUrl: string }>();
  expect(logoutUrl).toMatch(/^\/(?![/\\])[\x21-\x7e]*$/);
  ends['post, nobody signed in'] = new URL(logoutUrl, c.publicUrl).href.slice(c.publicUrl.length);

  await signIn();
  const token = (await client.me()).json<{ logoutUrl: string }>().logoutUrl;
  ends['link, provider'] = await throughProvider(client, `${token}&returnTo=${raw}`);
  ends['link, nobody signed in'] = place(await client.navigate(`${token}&returnTo=${raw}`), '/auth/logout');

  c.provider.next('authorize', { error: 'login_required', when: (query) => query.get('prompt') === 'none' });
  const silent = await client.navigate(`/auth/login?prompt=none&returnTo=${raw}`);
  const back = (await client.foreign(silent.location ?? '')).location ?? '';
  ends['silent, refused'] = place(
    await client.navigate(client.pathOf(back), { site: 'cross-site' }),
    '/auth/callback',
  );
  ends['silent, not asked again'] = place(
    await client.navigate(`/auth/login?prompt=none&returnTo=${raw}`),
    '/auth/login',
  );
  return ends;
}

async function throughProvider(client: BrowserClient, logoutUrl: string): Promise<string> {
  const away = await client.navigate(logoutUrl, { site: 'same-origin' });
  expect(new URL(away.location ?? '').origin).toBe(c.provider.origin);
  const url = new URL(away.location ?? '');
  expect(url.searchParams.get('post_logout_redirect_uri')).toBe(`${c.publicUrl}/auth/logout`);
  const back = (await client.foreign(url.href)).location ?? '';
  return place(await client.navigate(client.pathOf(back), { site: 'cross-site' }), '/auth/logout');
}

const WAYS = [
  'login',
  'post, provider',
  'post, nobody signed in',
  'link, provider',
  'link, nobody signed in',
  'silent, refused',
  'silent, not asked again',
];
const all = (end: string): Record<string, string> => Object.fromEntries(WAYS.map((way) => [way, end]));

describe(`login and logout with ${String(kept.length + dropped.length + asTheyAre.length)} redirect targets`, () => {
  test.each(kept)('A-002 returnTo %s is kept', async (value, end) => {
    expect(await everyWay(encodeURIComponent(value))).toEqual(all(end));
  });

  test.each(dropped.map((value) => [value]))('A-002 returnTo %j becomes "/"', async (value) => {
    expect(await everyWay(encodeURIComponent(value))).toEqual(all('/'));
  });

  test.each(asTheyAre.map((value) => [value]))(
    'A-002 returnTo=%s in the request line stays here',
    async (raw) => {
      // place() looks at each of them.
      expect(Object.keys(await everyWay(raw))).toEqual(WAYS);
    },
  );
});

test('A-002 there are at least 120 lines of our own, none twice', () => {
  const lines = [...kept.map(([value]) => value), ...dropped];
  expect(new Set(lines).size).toBe(lines.length);
  expect(lines.length).toBeGreaterThanOrEqual(120);
});

test('A-002 no returnTo at all means "/"', async () => {
  const client = c.client();
  expect(place(await client.login(), '/auth/callback')).toBe('/');
});

test.each([
  'RelayState',
  'redirect',
  'redirect_uri',
  'next',
  'rd',
  'target_link_uri',
  'returnto',
  'returnTo[]',
])('A-002 the parameter %s is nobody’s way out', async (name) => {
  const client = c.client();
  const answer = await client.login({ params: { [name]: 'https://evil.example/' } });
  expect(place(answer, '/auth/callback')).toBe('/');
});

test('A-002 a provider that answers the logout with a state of its own leads to "/" and nowhere else', async () => {
  c.provider.modes.endSession = { available: true, status: 302, state: 'other' };
  const client = await c.signedIn();
  const steps = await client.logout({ returnTo: '/bye' });
  expect(steps.back?.location).toBe('/');
  for (const query of ['?state=x', '?state=', '?state=x&returnTo=//evil.example', '?returnTo=/x', '']) {
    expect(place(await c.client().navigate(`/auth/logout${query}`), '/auth/logout')).toBe('/');
  }
});
