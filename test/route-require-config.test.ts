import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { stringify } from 'yaml';
import { loadConfig } from '../src/config/load.js';
import { runCloakroom, writeConfig } from './support/cloakroom.js';

const folder = mkdtempSync(join(tmpdir(), 'cloakroom-require-'));

beforeAll(() => {
  for (const name of ['cookie', 'seal', 'client'])
    writeFileSync(join(folder, name), randomBytes(36).toString('base64'));
});

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** A faultless file but for what its first route and the sessions want. */
function file(route: object, session: object = {}, more: object[] = []): Record<string, unknown> {
  return {
    publicUrl: 'https://app.example.com',
    store: { redis: { url: 'redis://127.0.0.1:1' } },
    secrets: { cookie: [{ file: join(folder, 'cookie') }], seal: [{ file: join(folder, 'seal') }] },
    providers: {
      main: {
        issuer: 'http://127.0.0.1:1',
        clientId: 'shop',
        clientSecret: { file: join(folder, 'client') },
        scopes: ['openid', 'orders:read'],
      },
    },
    session,
    routes: [{ path: '/api/', upstream: 'http://127.0.0.1:1', ...route }, ...more],
  };
}

function load(tree: object, env: NodeJS.ProcessEnv = {}): ReturnType<typeof loadConfig> {
  const path = join(folder, 'cloakroom.yaml');
  writeFileSync(path, stringify(tree));
  return loadConfig({ file: path, env, cwd: folder });
}

function faults(...wishes: Parameters<typeof file>): string[] {
  const loaded = load(file(...wishes));
  if (!('faults' in loaded)) return [];
  return loaded.faults.map(({ path, problem, remedy }) => `${path}: ${problem}; ${remedy}`);
}

const ELEVATE = { scope: 'payments:approve', for: '5m' };

test.each<[string, Parameters<typeof file>, RegExp]>([
  ['an empty requirement', [{ require: {} }], /^routes\[0\]\.require: requires nothing; write scopes/],
  [
    "an elevated token beside the application's own",
    [{ token: 'client', elevate: ELEVATE }],
    /^routes\[0\]\.elevate: brings an access token of its own, and so does token: client; write one of them/,
  ],
  [
    'an elevated token beside one of an audience',
    [{ audience: 'https://orders.example.com', elevate: ELEVATE }],
    /^routes\[0\]\.elevate: brings an access token of its own, and so does audience/,
  ],
  ['an unknown requirement', [{ require: { roles: ['x'], acr: ['mfa'] } }], /^routes\[0\]\.require\.roles: /],
  [
    'a scope that no login asks for',
    [{ require: { scopes: ['openid', 'orders:write'] } }],
    /^routes\[0\]\.require\.scopes\[1\]: "orders:write" is asked for by no login, .*; add it to the scopes of a provider/,
  ],
  ['two scopes in one', [{ require: { scopes: ['a b'] } }], /scopes\[0\]: "a b" is not a scope; write each/],
  ['a scope twice', [{ require: { scopes: ['openid', 'openid'] } }], /scopes: names "openid" twice/],
  ['no scope', [{ require: { scopes: [] } }], /scopes: is empty/],
  ['an acr with a space', [{ require: { acr: ['mfa phr'] } }], /acr\[0\]: "mfa phr" is not an acr/],
  ['a claim without values', [{ require: { claims: { roles: [] } } }], /claims\.roles: is empty/],
  ['a claim that is no list', [{ require: { claims: { roles: 'staff' } } }], /claims\.roles: /],
  ['no claim', [{ require: { claims: {} } }], /claims: names no claim/],
  [
    'a sign-in age of no time',
    [{ require: { maxAuthAge: '1s' } }],
    /maxAuthAge: 1s is too short; .*30s and 30d/,
  ],
  [
    'a requirement where nobody needs to be signed in',
    [{ token: 'none', require: { scopes: ['openid'] } }],
    /^routes\[0\]\.require: holds for a session, and with token: none requests pass without one; write token: user/,
  ],
  [
    'a requirement where somebody may be signed in',
    [{ token: 'user-or-none', require: { scopes: ['openid'] } }],
    /^routes\[0\]\.require: .*token: user-or-none/,
  ],
  [
    'elevation without a session',
    [{ token: 'none', elevate: ELEVATE }],
    /^routes\[0\]\.elevate: holds for a session/,
  ],
  [
    'elevation by a scope that everybody has',
    [{ elevate: { scope: 'orders:read' } }],
    /^routes\[0\]\.elevate\.scope: "orders:read" is among the scopes of providers\.main/,
  ],
  [
    'two times for one scope',
    [
      { elevate: ELEVATE },
      {},
      [{ path: '/x/', upstream: 'http://127.0.0.1:1', elevate: { ...ELEVATE, for: '1m' } }],
    ],
    /^routes\[1\]\.elevate\.for: differs from that of routes\[0\]/,
  ],
  ['elevation for a day', [{ elevate: { ...ELEVATE, for: '1d' } }], /elevate\.for: 1d is too long/],
  [
    'session times that shorten nothing',
    [{}, { lifetimes: [{ claims: { roles: ['admin'] } }] }],
    /^session\.lifetimes\[0\]: shortens nothing; write idle or absolute/,
  ],
  [
    'session times without claims',
    [{}, { lifetimes: [{ idle: '5m' }] }],
    /^session\.lifetimes\[0\]\.claims: is missing/,
  ],
  [
    'session times that are longer',
    [{}, { lifetimes: [{ claims: { roles: ['admin'] }, idle: '5m', absolute: '12h' }] }],
    /^session\.lifetimes\[0\]\.absolute: is not shorter than session\.absolute, .*; write less than 12h/,
  ],
])('A-112 %s is a fault that says what to write', (_, wishes, expected) => {
  const found = faults(...wishes);
  expect(found).toHaveLength(1);
  expect(found[0]).toMatch(expected);
});

test('A-112 requirements and session times come from the environment as well', () => {
  const loaded = load(file({}), {
    CLOAKROOM_ROUTES__0__REQUIRE__CLAIMS: '{ realm_access.roles: [staff] }',
    CLOAKROOM_ROUTES__0__REQUIRE__ACR: '[mfa]',
    CLOAKROOM_ROUTES__0__REQUIRE__MAX_AUTH_AGE: '15m',
    CLOAKROOM_ROUTES__0__ELEVATE__SCOPE: 'payments:approve',
    CLOAKROOM_SESSION__LIFETIMES: '[{ claims: { roles: [admin] }, idle: 5m }]',
  });
  if ('faults' in loaded) throw new Error(JSON.stringify(loaded.faults));
  const [route] = loaded.config.routes;
  expect(route?.require).toEqual({
    claims: { 'realm_access.roles': ['staff'] },
    acr: ['mfa'],
    maxAuthAge: 900_000,
  });
  expect(route?.elevate).toEqual({ scope: 'payments:approve', for: 300_000 });
  expect(loaded.config.session.lifetimes).toEqual([{ claims: { roles: ['admin'] }, idle: 300_000 }]);
});

test('A-112 cloakroom check shows what each route requires, and whose sessions are shorter', async () => {
  const require = {
    scopes: ['orders:read'],
    claims: { roles: ['staff', 'admin'] },
    acr: ['mfa'],
    maxAuthAge: '15m',
  };
  const tree = file(
    { require, elevate: ELEVATE },
    { lifetimes: [{ claims: { roles: ['admin'] }, idle: '5m' }] },
  );
  const { stdout } = await runCloakroom(['check', '--config', writeConfig(tree)]);
  expect(stdout).toContain(
    'scope orders:read, roles=staff|admin, acr mfa, signed in 15m ago at most, elevates payments:approve for 5m',
  );
  expect(stdout).toMatch(/session of roles=admin +idle 5m, absolute 12h/);
});
