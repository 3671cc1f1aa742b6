import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { providerFetch } from '../src/oidc/provider-fetch.js';
import { runCloakroom, startCloakroom, writeConfig, type Cloakroom } from './support/cloakroom.js';
import {
  faults,
  startProvider,
  type Behaviour,
  type FaultProvider,
  type Json,
} from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { refusedLogin } from './support/refused-login.js';
import { startSink, type Sink } from './support/upstream.js';

let sink: Sink;

beforeAll(async () => {
  sink = await startSink();
});

afterAll(() => {
  expect(sink.connections).toBe(0);
});

describe('a replica that never read acceptable metadata', () => {
  let provider: FaultProvider;
  let room: Cloakroom;

  beforeAll(async () => {
    provider = await startProvider({ path: '/realms/shop' });
    await provider.stop();
    room = await startCloakroom({
      provider,
      replicas: 1,
      ready: false,
      config: { providers: { main: { metadataTimeout: '500ms' } } },
    });
  });

  beforeEach(() => {
    provider.reset();
    provider.ledger.resetCounts();
  });

  afterAll(async () => {
    await expectLeftClean(room);
    await room.close();
  });

  async function expectUnusable(): Promise<void> {
    const { status, response } = await refusedLogin(room);
    expect(status).toBe(503);
    const wait = Number(response.headers['retry-after']);
    expect(wait).toBeGreaterThanOrEqual(1);
    expect(wait).toBeLessThanOrEqual(30);
    expect(provider.ledger.hits.filter((hit) => hit.endpoint !== 'discovery')).toEqual([]);
  }

  test('B-16 it starts without the provider: live, ready but degraded, login a 503 page', async () => {
    await room.first.waitReady();
    const client = room.client();
    expect((await client.fetch('/livez')).json()).toEqual({ status: 'ok' });
    expect((await client.fetch('/readyz')).json()).toMatchObject({ status: 'degraded' });
    expect((await client.me()).status).toBe(401);
    await expectUnusable();
    await provider.start();
  });

  const change = (member: string, value: (metadata: Json) => unknown): ((metadata: Json) => Json) => {
    return (metadata) => ({ ...metadata, [member]: value(metadata) });
  };
  const issuer = (value: (issuer: string) => unknown): ((metadata: Json) => Json) =>
    change('issuer', (metadata) => value(String(metadata['issuer'])));
  const endpoint = (member: string, value: (url: string) => unknown): ((metadata: Json) => Json) =>
    change(member, (metadata) => value(String(metadata[member])));

  test.each<[string, (metadata: Json) => Json]>([
    ['A-040 oidcc-client-test-discovery-issuer-mismatch', issuer((own) => `${own}1`)],
    ['A-040 issuer with a trailing slash', issuer((own) => `${own}/`)],
    ['A-040 issuer in other case', issuer((own) => own.replace('shop', 'SHOP'))],
    ['A-040 issuer of another tenant', issuer((own) => own.replace('shop', 'bank'))],
    ['A-040 issuer localhost for 127.0.0.1', issuer((own) => own.replace('127.0.0.1', 'localhost'))],
    ['A-040 issuer with a percent-encoded letter', issuer((own) => own.replace('shop', 'sho%70'))],
    ['A-040 no issuer', issuer(() => undefined)],
    ['A-040 issuer in a list', issuer((own) => [own])],
    ['A-040 no authorization_endpoint', change('authorization_endpoint', () => undefined)],
    ['A-040 no token_endpoint', change('token_endpoint', () => undefined)],
    ['A-040 no jwks_uri', change('jwks_uri', () => undefined)],
    ['A-040 token_endpoint null', change('token_endpoint', () => null)],
    ['A-040 token_endpoint a relative address', change('token_endpoint', () => '/realms/shop/token')],
    ['A-040 token_endpoint a number', change('token_endpoint', () => 1)],
    ['A-040 PKCE not advertised', change('code_challenge_methods_supported', () => undefined)],
    ['A-040 PKCE with plain only', change('code_challenge_methods_supported', () => ['plain'])],
    ['A-040 PKCE methods as text', change('code_challenge_methods_supported', () => 'S2567')],
    [
      'A-041 token_endpoint at a link-local address',
      change('token_endpoint', () => 'http://169.254.169.254/latest'),
    ],
    ['A-041 token_endpoint on another port of this machine', change('token_endpoint', () => sink.url)],
    ['A-041 token_endpoint with https', endpoint('token_endpoint', (url) => url.replace('http:', 'https:'))],
    [
      'A-041 token_endpoint at localhost',
      endpoint('token_endpoint', (url) => url.replace('127.0.0.1', 'localhost')),
    ],
    [
      'A-041 token_endpoint in IPv6',
      endpoint('token_endpoint', (url) => url.replace('127.0.0.1', '[::ffff:127.0.0.1]')),
    ],
    [
      'A-041 token_endpoint with credentials',
      endpoint('token_endpoint', (url) => url.replace('//', '//user:pass@')),
    ],
    ['A-041 jwks_uri elsewhere', change('jwks_uri', () => `${sink.url}/jwks`)],
    ['A-041 jwks_uri a file', change('jwks_uri', () => 'file:///etc/passwd')],
    ['A-041 jwks_uri data', change('jwks_uri', () => 'data:application/json,{"keys":[]}')],
    [
      'A-041 authorization_endpoint elsewhere',
      change('authorization_endpoint', () => 'https://login.example.net/'),
    ],
    ['A-041 authorization_endpoint a script', change('authorization_endpoint', () => 'javascript:alert(1)')],
    ['A-041 userinfo_endpoint elsewhere', change('userinfo_endpoint', () => sink.url)],
    ['A-041 revocation_endpoint elsewhere', change('revocation_endpoint', () => sink.url)],
    [
      'A-041 end_session_endpoint elsewhere',
      change('end_session_endpoint', () => 'https://evil.example.net/'),
    ],
  ])('%s: not used', async (_name, metadata) => {
    provider.modes.metadata = metadata;
    await expectUnusable();
    expect(provider.ledger.count('discovery')).toBeGreaterThan(0);
  });

  test.each<[string, () => Behaviour]>([
    ['A-040 metadata that is HTML', () => faults.html],
    [
      'A-040 metadata that is a list',
      () => ({ body: '[]', headers: { 'content-type': 'application/json' } }),
    ],
    ['A-040 metadata that is half a JSON text', () => ({ half: true })],
    ['A-040 metadata of 2 MiB', () => ({ pad: 2 * 1024 * 1024 })],
    ['A-040 metadata as a gzip bomb', () => ({ gzipBomb: 64 * 1024 * 1024 })],
    [
      'A-041 metadata behind a redirect',
      () => ({ redirect: `${sink.url}/.well-known/openid-configuration` }),
    ],
    ['A-041 metadata behind a 307', () => ({ redirect: sink.url, status: 307 })],
    ['B-16 metadata that answers 404', () => ({ status: 404, body: '' })],
    ['B-16 metadata that answers 500', () => faults.serverError],
    ['B-16 metadata that never comes', () => faults.hang],
    ['B-16 metadata that is cut', () => faults.reset],
  ])('%s: not used', async (_name, behaviour) => {
    provider.always('discovery', behaviour());
    await expectUnusable();
    expect(provider.ledger.count('discovery')).toBeGreaterThan(0);
  });

  test('A-041 nothing that the metadata pointed at was ever connected to', () => {
    expect(sink.connections).toBe(0);
  });

  test('A-040 oidcc-client-test-discovery-openid-config: good metadata is used at the next login, endpoints as it names them', async () => {
    provider.modes.metadata = (metadata) => {
      const from = (name: string): Json => ({ [name]: `${String(metadata[name])}?from=metadata` });
      return {
        ...metadata,
        ...from('authorization_endpoint'),
        ...from('jwks_uri'),
        ...from('token_endpoint'),
      };
    };
    await room.signedIn();
    const [authorize] = provider.ledger.hitsOf('authorize');
    expect(authorize?.params.get('from')).toBe('metadata');
    expect(authorize?.params.get('client_id')).toBe(provider.clientId);
    // oidcc-client-test-discovery-jwks-uri-keys
    expect(provider.ledger.hitsOf('jwks')[0]?.params.get('from')).toBe('metadata');
    // One line for each change of state, however often it was tried.
    await room.logged('provider_available', 1);
    expect(room.events('provider_unavailable')).toHaveLength(1);
    expect(room.events('provider_available')).toHaveLength(1);
    expect((await room.client().fetch('/readyz')).json()).toMatchObject({ status: 'ok' });
  });

  test('A-041 keys behind a redirect are not fetched there', async () => {
    await provider.rotateKeys({ dropOld: true });
    provider.next('jwks', { redirect: sink.url });
    expect((await refusedLogin(room)).status).toBe(503);
    expect(sink.connections).toBe(0);
    await room.signedIn();
  });
});

describe('replicas with sessions and good metadata', () => {
  let provider: FaultProvider;
  let room: Cloakroom;

  beforeAll(async () => {
    provider = await startProvider();
    room = await startCloakroom({ provider });
  });

  beforeEach(() => {
    provider.reset();
  });

  afterAll(async () => {
    await expectLeftClean(room);
    await room.close();
  });

  test('B-16 a replica that starts while the provider is down serves the sessions there are, and heals by itself', async () => {
    const client = await room.signedIn({ user: 'bob' });
    await provider.stop();
    await room.replica(1).restart();
    for (const replica of [0, 1]) {
      const answer = await client.api('/api/echo', { replica });
      expect(answer.status).toBe(200);
      expect((await client.me({ replica })).json()).toMatchObject({ claims: { sub: 'bob' } });
    }
    expect((await refusedLogin(room, { replica: 1 })).status).toBe(503);
    // The other one knows where to send the browser.
    expect((await room.client().beginLogin({ replica: 0 })).response.status).toBe(303);
    const from = room.replica(1).mark();
    await provider.start();
    // Nobody asks for anything meanwhile.
    await room.replica(1).waitForEvent('provider_available', { from, timeout: 15_000 });
    expect((await room.client().login({ replica: 1 })).status).toBe(303);
    expect((await client.me()).status).toBe(200);
  });

  test('B-16 the tries to read metadata grow apart', async () => {
    await provider.stop();
    await provider.start();
    provider.always('discovery', faults.unavailable);
    provider.ledger.resetCounts();
    await room.replica(1).restart();
    await eventually(() => provider.ledger.count('discovery') >= 4, { timeout: 15_000, what: 'four tries' });
    const at = provider.ledger.hitsOf('discovery').map((hit) => hit.at);
    const gaps = at.slice(1).map((time, index) => time - (at[index] ?? 0));
    // A second, two, four: a quarter less at most, as the jitter has it.
    expect(gaps[0]).toBeGreaterThan(700);
    expect(gaps[1]).toBeGreaterThan(1450);
    expect(gaps[2]).toBeGreaterThan(2950);
  });

  test('B-16 the last good metadata stays in use when the provider suddenly says something unacceptable', async () => {
    expect((await room.client().login({ replica: 0 })).status).toBe(303);
    provider.modes.metadata = (metadata) => ({ ...metadata, issuer: 'https://evil.example.net' });
    // The provider does not know the client: metadata is read again.
    provider.next('token', faults.invalidClient);
    const from = room.first.mark();
    expect(await refusedLogin(room, { replica: 0 })).toMatchObject({
      status: 503,
      event: 'client_misconfigured',
    });
    await room.first.waitForEvent('provider_unavailable', { from });
    expect((await room.client().login({ replica: 0 })).status).toBe(303);
  });

  test('A-041 an endpoint on another host is used only where the configuration lists that host', async () => {
    provider.modes.metadata = (metadata) => ({
      ...metadata,
      token_endpoint: String(metadata['token_endpoint']).replace('127.0.0.1', 'localhost'),
    });
    const host = new URL(provider.issuer).host.replace('127.0.0.1', 'localhost');
    const listed = await startCloakroom({
      provider,
      replicas: 1,
      config: { providers: { main: { endpointHosts: [host] } } },
    });
    await listed.signedIn();
    await listed.close();
  });

  test('A-040 the configured issuer must be the one in the metadata to the letter', async () => {
    const slash = await startCloakroom({
      provider,
      replicas: 1,
      config: { providers: { main: { issuer: `${provider.issuer}/` } } },
    });
    expect((await refusedLogin(slash)).status).toBe(503);
    await slash.close();
  });
});

describe('A-041 where a request may go', () => {
  const { allows } = providerFetch('https://id.example.com/realms/shop', [
    'keys.example.net',
    'login.example.org:8443',
  ]);

  test.each([
    'https://id.example.com/token',
    'https://id.example.com:443/token?a=b',
    'https://ID.example.com/token',
    'https://keys.example.net/jwks',
    'https://login.example.org:8443/authorize',
  ])('A-041 %s: allowed', (url) => {
    expect(allows(url)).toBe(true);
  });

  test.each([
    'http://id.example.com/token',
    'http://id.example.com:443/token',
    'http://localhost/token',
    'https://localhost/token',
    'https://169.254.169.254/latest/meta-data',
    'https://[::1]/token',
    'https://example.com/token',
    'https://evil-id.example.com/token',
    'https://id.example.com.evil.net/token',
    'https://id.example.com@evil.net/token',
    'https://user@id.example.com/token',
    'https://user:pass@id.example.com/token',
    'https://evil.net/id.example.com',
    'https://evil.net#id.example.com',
    'https://id.example.com./token',
    'https://login.example.org/authorize',
    'https://login.example.org:8444/authorize',
    'https:id.example.net',
    '//id.example.com/token',
    '/token',
    'file:///etc/passwd',
    'data:application/json,{}',
    'ftp://id.example.com/',
    'ws://id.example.com/',
    'javascript:alert(1)',
    '',
  ])('A-041 %s: not allowed', (url) => {
    expect(allows(url)).toBe(false);
  });

  test('A-040 an issuer with plain http is a fault of the configuration, except on loopback', async () => {
    const config = (issuer: string): string =>
      writeConfig({
        publicUrl: 'http://localhost:3000',
        store: 'memory',
        secrets: { cookie: [{ env: 'TEST_COOKIE' }], seal: [{ env: 'TEST_SEAL' }] },
        providers: { main: { issuer, clientId: 'shop', clientSecret: { env: 'TEST_CLIENT' } } },
        routes: [{ path: '/api/', upstream: sink.url }],
      });
    const env = {
      TEST_COOKIE: 'c'.repeat(20) + 'ookie-key-of-a-test',
      TEST_SEAL: 's'.repeat(20) + 'eal-key-of-a-test-run',
      TEST_CLIENT: 'client-key-of-a-test-run',
    };
    const { code, stderr, stdout } = await runCloakroom(
      ['start', '--config', config('http://id.example.com')],
      { env },
    );
    expect(code).toBe(78);
    expect(stderr + stdout).toContain('providers.main.issuer');
  });
});
