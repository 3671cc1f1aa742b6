import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import {
  faults,
  startProvider,
  type Behaviour,
  type FaultProvider,
  type Json,
} from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { refusedLogin, sessionCount } from './support/refused-login.js';
import { startSink, type Sink } from './support/upstream.js';

let provider: FaultProvider;
let sink: Sink;
/** Replica of `optional`, and one that insists. */
let room: Cloakroom;
let strict: Cloakroom;

beforeAll(async () => {
  sink = await startSink();
  provider = await startProvider();
  const me = { claims: ['sub', 'name', 'email', 'from_userinfo', 'address'] };
  const providers = { main: { userinfo: 'optional', timeout: '1s' } };
  room = await startCloakroom({ provider, replicas: 1, config: { me, providers } });
  strict = await startCloakroom({
    provider,
    replicas: 1,
    config: { me, providers: { main: { ...providers.main, userinfo: 'required' } } },
  });
});

beforeEach(() => {
  provider.reset({ foreignUrl: sink.url });
  provider.ledger.resetCounts();
});

afterAll(async () => {
  expect(sink.connections).toBe(0);
  await expectLeftClean(room);
  await expectLeftClean(strict);
});

async function claimsOfLogin(which: Cloakroom): Promise<Json> {
  const client = await which.signedIn();
  return (await client.me()).json<{ claims: Json }>().claims;
}

test('A-026 oidcc-client-test-scope-userinfo-claims: claims of the ID token and of userinfo are shown', async () => {
  provider.next('token', { claims: (all) => ({ ...all, email: undefined }) });
  expect(await claimsOfLogin(room)).toEqual({
    sub: 'alice',
    name: 'Alice Example',
    email: 'alice@example.test',
    from_userinfo: true,
  });
});

test('A-026 oidcc-client-test-userinfo-bearer-header: the token goes in the header, and nowhere else', async () => {
  await room.signedIn();
  const [hit] = provider.ledger.hitsOf('userinfo');
  const [token] = [...provider.ledger.accessTokens.keys()].slice(-1);
  expect(hit?.headers['authorization']).toBe(`Bearer ${String(token)}`);
  expect([...(hit?.params ?? [])]).toEqual([]);
  expect(hit?.headers['content-length']).toBeUndefined();
});

test('A-039 oidcc-client-test-userinfo-signed: a signed answer is read', async () => {
  provider.modes.userinfo = 'jwt';
  expect(await claimsOfLogin(room)).toMatchObject({ from_userinfo: true });
  expect(await claimsOfLogin(strict)).toMatchObject({ from_userinfo: true });
});

describe('A-039 an answer about somebody else refuses the login, whatever the option', () => {
  const sub = (value: unknown): Behaviour => ({ mutate: (answer) => ({ ...answer, sub: value }) });

  test.each<[string, Behaviour]>([
    ['oidcc-client-test-userinfo-invalid-sub', sub('alice1')],
    ['no sub', sub(undefined)],
    ['an empty sub', sub('')],
    ['sub in a list', sub(['alice'])],
    ['sub null', sub(null)],
    ['sub in other case', sub('Alice')],
    ['a list', { body: '[{"sub":"alice"}]', headers: { 'content-type': 'application/json' } }],
  ])('A-039 %s', async (_name, behaviour) => {
    for (const which of [room, strict]) {
      const before = await sessionCount(which);
      provider.next('userinfo', behaviour);
      expect(await refusedLogin(which)).toMatchObject({ status: 400, event: 'userinfo_failed' });
      expect(await sessionCount(which)).toBe(before);
    }
  });

  test('A-039 a signed answer about somebody else', async () => {
    provider.modes.userinfo = 'jwt';
    for (const which of [room, strict]) {
      provider.next('userinfo', sub('mallory'));
      expect(await refusedLogin(which)).toMatchObject({ status: 400, event: 'userinfo_failed' });
    }
  });
});

describe('A-039 no usable answer: a login without further claims, or 502 where userinfo is required', () => {
  const jwt = { userinfo: 'jwt' } as const;
  const text = (body: string, type = 'application/json'): Behaviour => ({
    body,
    headers: { 'content-type': type },
  });

  test.each<[string, () => Behaviour]>([
    ['HTML', () => faults.html],
    ['an empty body', () => text('')],
    ['half a JSON text', () => text('{"sub":"alice","fro')],
    ['a JSON number', () => text('7')],
    ['null', () => text('null')],
    [
      '401',
      () => ({ status: 401, body: '', headers: { 'www-authenticate': 'Bearer error="invalid_token"' } }),
    ],
    ['403', () => ({ status: 403, body: { error: 'insufficient_scope' } })],
    ['500', () => faults.serverError],
    ['503', () => faults.unavailable],
    ['204', () => ({ status: 204, body: '' })],
    ['a redirect', () => ({ redirect: sink.url })],
    ['a reset', () => faults.reset],
    ['no answer in time', () => faults.hang],
    ['an answer that breaks off', () => ({ half: true })],
    ['an answer of 2 MiB', () => ({ pad: 2 * 1024 * 1024 })],
    ['a gzip bomb', () => ({ gzipBomb: 64 * 1024 * 1024 })],
    [
      'JSON nested 10 000 deep',
      () => text(`{"sub":"alice","name":${'['.repeat(10_000)}${']'.repeat(10_000)}}`),
    ],
    ['a JWT that is none', () => text('not.a.jwt', 'application/jwt')],
    ['a bare number as a JWT', () => text('7', 'application/jwt')],
  ])('A-039 %s', async (_name, behaviour) => {
    provider.next('userinfo', behaviour());
    const claims = await claimsOfLogin(room);
    expect(claims).toMatchObject({ sub: 'alice', name: 'Alice Example' });
    expect(claims['from_userinfo']).toBeUndefined();

    const before = await sessionCount(strict);
    provider.next('userinfo', behaviour());
    const refused = await refusedLogin(strict);
    expect(refused).toMatchObject({ status: 502, event: 'userinfo_failed' });
    expect(refused.response.text).not.toMatch(/Welcome|bad gateway/);
    expect(await sessionCount(strict)).toBe(before);
  });

  test.each([
    'wrong-key',
    'none',
    'hs256-public-key',
    'hs256-client-secret',
    'jwk',
    'jku',
    'empty-signature',
  ] as const)('A-039 a signed answer with a bad signature (%s) adds no claims', async (signing) => {
    provider.reset({ ...jwt, foreignUrl: sink.url });
    provider.next('userinfo', { signing });
    const client = room.client();
    const answer = await client.login();
    if (answer.status === 303) expect((await client.me()).text).not.toContain('from_userinfo');
    else expect(answer.status).toBe(400);
    provider.next('userinfo', { signing });
    expect([400, 502]).toContain((await refusedLogin(strict)).status);
  });

  test('A-039 a provider without a userinfo endpoint', async () => {
    const plain = await startProvider({
      modes: { metadata: (metadata) => ({ ...metadata, userinfo_endpoint: undefined }) },
    });
    const other = await startCloakroom({
      provider: plain,
      replicas: 1,
      config: { providers: { main: { userinfo: 'optional' } } },
    });
    expect(await claimsOfLogin(other)).toMatchObject({ sub: 'alice' });
    expect(plain.ledger.count('userinfo')).toBe(0);
    await other.close();
  });
});

test('A-039 aggregated and distributed claims are not followed', async () => {
  provider.next('userinfo', {
    mutate: (answer) => ({
      ...answer,
      _claim_names: { address: 'src1' },
      _claim_sources: { src1: { endpoint: `${sink.url}/claims`, access_token: 'at-of-another-source' } },
    }),
  });
  const claims = await claimsOfLogin(room);
  expect(Object.keys(claims).sort()).toEqual(['email', 'from_userinfo', 'name', 'sub']);
  expect(sink.connections).toBe(0);
});
