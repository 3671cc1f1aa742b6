import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { inParallel, type BrowserClient } from './support/browser-client.js';
import { runCloakroom, startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { faults, type FaultProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { sleep } from './support/lifetime.js';
import { withRoutes } from './support/routes.js';
import { startUpstream } from './support/upstream.js';

let c: Cloakroom;
let provider: FaultProvider;

beforeAll(async () => {
  c = await startCloakroom({
    replicas: 1,
    upstream: await startUpstream({}),
    config: withRoutes((upstream) => [
      { path: '/api/', upstream },
      { path: '/critical/', upstream, introspect: '1s' },
      { path: '/minute/', upstream, introspect: '1m' },
      { path: '/orders/', upstream, introspect: '1m', audience: 'https://orders.example' },
    ]),
  });
  ({ provider } = c);
});

beforeEach(() => {
  provider.reset();
  provider.ledger.resetCounts();
  c.upstream.clear();
});

afterAll(async () => {
  await expectLeftClean(c);
});

const asked = (): number => provider.ledger.count('introspection');

function revokeAccessTokens(): void {
  for (const record of provider.ledger.accessTokens.values()) record.revokedAt ??= Date.now();
}

function manyAtOnce(client: BrowserClient, path: string): Promise<number[]> {
  return inParallel(
    Array.from({ length: 100 }, () => async () => (await client.api(path)).status),
    50,
  );
}

test('RFC 7662 the provider is asked about the token that goes along, once for 100 calls at once', async () => {
  const client = await c.signedIn();
  provider.always('introspection', { delay: 50 });
  expect(new Set(await manyAtOnce(client, '/minute/x'))).toEqual(new Set([200]));
  expect(asked()).toBe(1);
  const [hit] = provider.ledger.hitsOf('introspection');
  expect(hit?.params.get('token')).toBe(c.upstream.last?.bearer);
  expect(hit?.params.get('token_type_hint')).toBe('access_token');
  await client.api('/orders/x');
  expect(provider.ledger.hitsOf('introspection')[1]?.params.get('token')).toBe(c.upstream.last?.bearer);
  await client.api('/api/x');
  expect(asked()).toBe(2);
});

test('an answer is used for as long as the route says, and no longer', async () => {
  const client = await c.signedIn();
  for (let i = 0; i < 5; i += 1) await client.api('/critical/x');
  expect(asked()).toBe(1);
  await sleep(1100);
  await client.api('/critical/x');
  expect(asked()).toBe(2);
});

test('a token that is not active is refreshed once, and the new one asked about before it goes along', async () => {
  const client = await c.signedIn();
  revokeAccessTokens();
  expect((await client.api('/critical/x')).status).toBe(200);
  expect([asked(), provider.ledger.count('refresh')]).toEqual([2, 1]);
  expect(provider.ledger.validAccessToken(c.upstream.last?.bearer ?? '')).toBeDefined();
  expect(c.upstream.requests).toHaveLength(1);
});

test('one that is still not active is 401, the session stays, and no further refresh is tried for a while', async () => {
  const client = await c.signedIn();
  provider.always('introspection', { mutate: () => ({ active: false }) });
  for (let i = 0; i < 5; i += 1) {
    const answer = await client.api('/critical/x');
    expect([answer.status, answer.problem]).toEqual([401, 'session-required']);
    expect(answer.json()).toMatchObject({ reason: 'token-inactive', loginUrl: '/auth/login' });
    expect(answer.setCookies).toEqual([]);
  }
  expect(provider.ledger.count('refresh')).toBe(1);
  expect(c.upstream.requests).toEqual([]);
  expect((await client.api('/api/x')).status).toBe(200);
});

test('where the refresh is refused the session is over', async () => {
  const client = await c.signedIn();
  provider.revokeEverything();
  const answer = await client.api('/critical/x');
  expect([answer.status, answer.problem]).toEqual([401, 'session-ended']);
  expect(client.sessionCookie).toBeUndefined();
});

test.each([
  ['is away', faults.unavailable],
  ['cuts the connection', faults.reset],
  ['does not let us ask', { status: 403, body: '' }],
  ['does not know us', faults.invalidClient],
  ['answers a page', faults.html],
  ['does not say active', { mutate: () => ({ sub: 'alice' }) }],
  ['says active: "true"', { mutate: () => ({ active: 'true' }) }],
])('B-17 a provider that %s is 503, reaches no upstream and costs no session', async (_what, fault) => {
  const client = await c.signedIn();
  provider.always('introspection', fault);
  const answer = await client.api('/critical/x');
  expect([answer.status, answer.problem]).toEqual([503, 'idp-unavailable']);
  expect(answer.headers['retry-after']).toBeDefined();
  expect(c.upstream.requests).toEqual([]);
  expect(provider.ledger.count('refresh')).toBe(0);
  expect((await client.api('/api/x')).status).toBe(200);
});

test('a refresh does not wait for an introspection endpoint that is down', async () => {
  provider.always('token', { mutate: (answer) => ({ ...answer, expires_in: 0.001 }) });
  provider.always('introspection', faults.reset);
  const people = await Promise.all(Array.from({ length: 8 }, () => c.signedIn()));
  for (const client of people) expect((await client.api('/critical/x')).status).toBe(503);
  expect(asked()).toBeLessThanOrEqual(6);
  const late = await c.signedIn();
  expect((await late.api('/api/x')).status).toBe(200);
});

test('check and start complain of a provider that cannot be asked', async () => {
  const without = await startCloakroom({
    replicas: 1,
    upstream: await startUpstream({}),
    config: withRoutes((upstream) => [{ path: '/api/', upstream, introspect: '5s' }]),
  });
  const { stdout } = await runCloakroom(['check', '--config', without.first.configFile]);
  expect(stdout).toMatch(/introspection_endpoint http:/);
  expect(stdout).toMatch(/\/api\/ .*user introspected every 5s/);
  without.provider.modes.metadata = ({ introspection_endpoint, ...rest }) =>
    introspection_endpoint === undefined ? {} : rest;
  const broken = await runCloakroom(['check', '--config', without.first.configFile]);
  expect([broken.code, broken.stderr]).toEqual([
    78,
    expect.stringContaining('no introspection_endpoint, but routes have introspect'),
  ]);
  await without.first.restart();
  await without.waitForEvent('introspection_impossible');
  const client = await without.signedIn();
  expect((await client.api('/api/x')).status).toBe(503);
  expect(without.upstream.requests.filter(({ method }) => method === 'GET')).toEqual([]);
});
