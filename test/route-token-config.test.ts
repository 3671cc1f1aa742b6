import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from '@jest/globals';
import { stringify } from 'yaml';
import { loadConfig } from '../src/config/load.js';

const folder = mkdtempSync(join(tmpdir(), 'cloakroom-route-tokens-'));
for (const name of ['cookie', 'seal', 'client']) {
  writeFileSync(join(folder, name), randomBytes(36).toString('base64'));
}

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** A faultless file but for its one route and what the provider is given besides. */
function load(route: object, provider: object = {}, env: NodeJS.ProcessEnv = {}) {
  const file = join(folder, 'cloakroom.yaml');
  const main = {
    issuer: 'https://id.example.com',
    clientId: 'shop',
    clientSecret: { file: 'client' },
    ...provider,
  };
  const text = stringify({
    publicUrl: 'https://app.example.com',
    store: { redis: { url: 'redis://127.0.0.1:6379' } },
    secrets: { cookie: [{ file: 'cookie' }], seal: [{ file: 'seal' }] },
    providers: { main },
    routes: [{ path: '/api/', upstream: 'http://orders:8080', ...route }],
  });
  writeFileSync(file, text);
  return loadConfig({ file, env, cwd: folder });
}

function faultsOf(route: object, provider: object = {}): string[] {
  const loaded = load(route, provider);
  if (!('faults' in loaded)) return [];
  return loaded.faults.map(({ path, problem, remedy }) => `${path}: ${problem}; ${remedy}`);
}

const ORDERS = 'https://orders.example.com';

describe('A-067 a route that cannot have the token it wants is refused at the start', () => {
  const cases: [string, object, RegExp][] = [
    [
      'audience and exchange',
      { audience: ORDERS, exchange: { audience: 'orders' } },
      /^routes\[0\]\.exchange: stands beside audience, and only one token can go along; /,
    ],
    [
      'exchange for nothing',
      { exchange: {} },
      /exchange: does not say what to exchange the token for; write some of/,
    ],
    [
      'exchange without a user',
      { token: 'client', exchange: { scope: 'a' } },
      /exchange: is about the token of whoever is signed in, and token is client; remove it/,
    ],
    [
      'exchange of no token',
      { token: 'none', exchange: { scope: 'a' } },
      /exchange: is about the token of whoever is signed in, and token is none/,
    ],
    [
      'an audience of no token',
      { token: 'none', audience: ORDERS },
      /audience: is that of a token, and with token: none/,
    ],
    [
      'introspection of no token',
      { token: 'none', introspect: '5s' },
      /introspect: is about the token of whoever/,
    ],
    [
      'introspection of our own token',
      { token: 'client', introspect: '5s' },
      /introspect: is about the token of whoever is signed in, and token is client/,
    ],
    [
      'introspection all the time',
      { introspect: '500ms' },
      /introspect: 500ms is too short; .*between 1s and 1h/,
    ],
    [
      'a client scope for a user',
      { clientScope: 'orders:read' },
      /clientScope: is asked for with client credentials, and token is not client; .*write token: client/,
    ],
    [
      'scopes with two spaces',
      { token: 'client', clientScope: 'a  b' },
      /clientScope: "a {2}b" is no list of scopes; write scopes with one space/,
    ],
    [
      'an audience that is no URI, by the parameter resource',
      { audience: 'orders' },
      /audience: "orders" is not an absolute URI without a fragment.*set providers\.main\.audienceParameter: audience/,
    ],
    [
      'a resource with a fragment',
      { exchange: { resource: `${ORDERS}#x` } },
      /exchange\.resource: .*without a fragment/,
    ],
    [
      'an audience with a space',
      { exchange: { audience: 'a b' } },
      /exchange\.audience: "a b" names no audience/,
    ],
    ['a token of another word', { token: 'service' }, /token: /],
  ];
  test.each(cases)('%s', (_name, route, expected) => {
    const faults = faultsOf(route);
    expect(faults).toHaveLength(1);
    expect(faults[0]).toMatch(expected);
  });

  test('all faults of a route are told at once', () => {
    expect(faultsOf({ token: 'none', audience: ORDERS, exchange: {}, introspect: '1s' })).toHaveLength(5);
  });
});

test('what the routes want is known of every provider, each audience once and none of the application’s own', () => {
  const loaded = load({ audience: ORDERS, introspect: '5s' });
  if ('faults' in loaded) throw new Error(JSON.stringify(loaded.faults));
  const { routes, providers } = loaded.config;
  expect(routes[0]).toMatchObject({ token: 'user', audience: ORDERS, introspect: 5000 });
  expect(providers[0]).toMatchObject({
    audienceParameter: 'resource',
    wanted: { audiences: [ORDERS], introspection: true, clientCredentials: false, tokenExchange: false },
  });
  const own = load({ token: 'client', audience: 'orders' }, { audienceParameter: 'audience' });
  if ('faults' in own) throw new Error(JSON.stringify(own.faults));
  expect(own.config.providers[0]?.wanted).toEqual({
    audiences: [],
    introspection: false,
    clientCredentials: true,
    tokenExchange: false,
  });
});

test('all of it can come from the environment', () => {
  const loaded = load(
    {},
    {},
    {
      CLOAKROOM_ROUTES__0__EXCHANGE__RESOURCE: ORDERS,
      CLOAKROOM_ROUTES__0__EXCHANGE__SCOPE: 'a b',
      CLOAKROOM_ROUTES__0__INTROSPECT: '2s',
      CLOAKROOM_PROVIDERS__MAIN__AUDIENCE_PARAMETER: 'audience',
    },
  );
  if ('faults' in loaded) throw new Error(JSON.stringify(loaded.faults));
  expect(loaded.config.routes[0]).toMatchObject({
    exchange: { resource: ORDERS, scope: 'a b' },
    introspect: 2000,
  });
  expect(loaded.config.providers[0]?.audienceParameter).toBe('audience');
});
