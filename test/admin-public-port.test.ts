import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { adminConfig, adminPort, adminToken } from './support/admin-client.js';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { random } from './support/random.js';
import { sendRaw, type RawResponse } from './support/raw.js';
import { freePort } from './support/run-folder.js';
import { scriptRequest } from './support/script-request.js';
import { StoredSession } from './support/stored-session.js';

// From the public port there is no way to the admin listener, not even with a good token.

const DAY = 24 * 3_600_000;
const ender = adminToken('ender', 'end');
const bearer = `Authorization: Bearer ${ender.token}`;
let c: Cloakroom;
let port: number;
let client: BrowserClient;
let handle: string;

beforeAll(async () => {
  port = await freePort();
  c = await startCloakroom({
    replicas: 1,
    config: (file) => ({
      ...file,
      admin: adminConfig([ender], { port }),
      // A slip of the configuration: the admin listener as the upstream of a route.
      routes: [...(file['routes'] as unknown[]), { path: '/ops/', upstream: `http://127.0.0.1:${port}/` }],
    }),
  });
  expect(adminPort(c.first)).toBe(port);
  client = await c.signedIn();
  handle = new StoredSession(c, client).handle;
});

afterAll(async () => {
  await expectLeftClean(c, 32 * DAY);
});

const alive = async (): Promise<boolean> => await new StoredSession(c, client).exists();

const adminPaths = ['/v1/sessions', '/v1/endings', '/v1/epoch', '/v1/openapi.json', '/metrics'];
/** Words that only the admin listener says. */
const foreign =
  /"unauthorized"|"sessions":|"openapi"|cloakroom_sessions_ended|realm="admin"|"reason":"(?:host|role|browser)"/;

beforeEach(async () => {
  expect(await alive()).toBe(true);
});

async function askPublic(bytes: string): Promise<RawResponse[]> {
  const { responses, text } = await sendRaw(c.first.clientPort, bytes, { answers: 1, timeout: 5000 });
  expect(text).not.toMatch(foreign);
  return responses;
}

test('A-109 A-080 the corpus of path tricks around every admin path', async () => {
  const dots = [
    '..',
    '.',
    '%2e%2e',
    '%2E%2E',
    '.%2e',
    '%2e.',
    '..;',
    '.;x',
    '%2e%2e;',
    '..%3b',
    '..%2f',
    '..%5c',
    '..\\',
  ];
  const before = [
    '',
    '/api',
    '/api/x',
    '/auth',
    '/auth/me',
    '/livez',
    '/admin',
    '/_admin',
    '/internal',
    '/manage',
    '//',
    '/@admin',
  ];
  const after = ['', '/', '?', '#', ';', '%00', '%20', '%2f', '.json', '/%2e', '//', '?user=x'];
  const targets = adminPaths.flatMap((path) => [
    ...before.map((prefix) => `${prefix}${path}`),
    ...dots.flatMap((dot) => [`/api/${dot}${path}`, `/${dot}${path}`, `/auth/${dot}${path}`]),
    ...after.map((suffix) => `${path}${suffix}`),
    path.toUpperCase(),
    path.replace('/v1', '/%76%31'),
    path.replace('s', '%73'),
    path.replaceAll('/', '//'),
    path.replaceAll('/', '\\'),
    path.replaceAll('/', '%2f'),
    path.replaceAll('/', '%252f'),
  ]);
  expect(targets.length).toBeGreaterThan(300);
  for (const target of targets) {
    for (const method of ['GET', 'DELETE']) {
      const bytes = scriptRequest(client, { method, target, headers: [bearer] });
      const [answer] = await askPublic(bytes);
      // The routes that exist answer for themselves: /api/… is the upstream's, with its own token.
      expect([target, answer?.status === 200 && !target.startsWith('/api')]).toEqual([target, false]);
    }
  }
  expect(await alive()).toBe(true);
});

test('A-109 random paths', async () => {
  const draw = random('admin paths');
  const pieces = [
    'v1',
    'sessions',
    'endings',
    'metrics',
    '/',
    '//',
    '..',
    '.',
    '%2e',
    '%2f',
    '\\',
    ';',
    '%00',
    'api',
    'auth',
    '?',
    '#',
    '@',
    '%',
  ];
  for (let round = 0; round < 500; round += 1) {
    const target = `/${Array.from({ length: draw.int(1, 8) }, () => draw.pick(pieces)).join('')}`;
    await askPublic(scriptRequest(client, { target, headers: [bearer] }));
  }
});

test('A-109 Host, forwarding headers, overrides, upgrades and absolute targets', async () => {
  const there = `127.0.0.1:${String(port)}`;
  const lines = [
    ...['X-Forwarded-Host', 'X-Original-Host', 'X-Host', 'X-Forwarded-Server'].map(
      (name) => `${name}: ${there}`,
    ),
    ...['X-Original-URL', 'X-Rewrite-URL', 'X-Forwarded-Prefix', 'X-Forwarded-Path'].map(
      (name) => `${name}: /v1/sessions`,
    ),
    `X-Forwarded-Port: ${String(port)}`,
    `Forwarded: host=${there};proto=http;for=127.0.0.1`,
    'X-HTTP-Method-Override: DELETE',
    'Upgrade: h2c',
    'Upgrade: TLS/1.0',
    'Connection: authorization, host',
  ];
  for (const target of ['/v1/sessions', `/v1/sessions/${handle}`, '/metrics', '/', '/auth/me']) {
    for (const line of lines) {
      const bytes = scriptRequest(client, { target, headers: [bearer, line] });
      const [answer] = await askPublic(bytes);
      if (target !== '/auth/me') expect([target, line, answer?.status]).toEqual([target, line, 404]);
    }
    for (const host of [there, 'localhost', `localhost:${String(port)}`, '[::1]', 'admin']) {
      await askPublic(
        scriptRequest(client, { target, without: ['host'], first: [`Host: ${host}`], headers: [bearer] }),
      );
    }
    const absolute = [
      `http://${there}${target}`,
      `//${there}${target}`,
      `${there}${target}`,
      `@${there}${target}`,
    ];
    for (const one of absolute) {
      const [answer] = await askPublic(scriptRequest(client, { target: one, headers: [bearer] }));
      expect([one, answer?.status]).toEqual([one, 400]);
    }
  }
  await askPublic(`CONNECT ${there} HTTP/1.1\r\nHost: ${there}\r\n${bearer}\r\n\r\n`);
  expect(await alive()).toBe(true);
});

test('A-109 not even where a route leads to it by mistake: the token of a browser does not pass', async () => {
  for (const [method, target] of [
    ['GET', '/ops/v1/sessions'],
    ['DELETE', `/ops/v1/sessions/${handle}`],
    ['GET', '/ops/metrics'],
  ]) {
    const bytes = scriptRequest(client, {
      method: String(method),
      target: String(target),
      headers: [bearer],
    });
    const { responses } = await sendRaw(c.first.clientPort, bytes, { answers: 1, timeout: 5000 });
    expect([401, 403]).toContain(responses[0]?.status);
  }
  expect(await alive()).toBe(true);
});
