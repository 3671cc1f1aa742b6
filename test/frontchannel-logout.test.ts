import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserResponse } from './support/browser-client.js';
import { runCloakroom, startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { startProvider, type FaultProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { deliver, isAlive, logoutToken, person, type Person } from './support/logout-tokens.js';

const env = { REVOCATION_SECRET: randomBytes(32).toString('hex') };

let room: Cloakroom;
let provider: FaultProvider;
let other: FaultProvider;
let closed: FaultProvider;

beforeAll(async () => {
  [provider, other, closed] = await Promise.all([
    startProvider({ path: '/realms/shop' }),
    startProvider(),
    startProvider(),
  ]);
  room = await startCloakroom({
    provider,
    providers: { main: provider, other, closed },
    env,
    config: {
      secrets: { revocation: [{ env: 'REVOCATION_SECRET' }] },
      providers: {
        main: { frontchannelLogout: true },
        other: { frontchannelLogout: true, revokeOnBackchannelLogout: true },
      },
    },
  });
});

beforeEach(() => {
  for (const one of [provider, other, closed]) one.reset();
});

afterAll(async () => {
  await expectLeftClean(room, 26 * 3600 * 1000);
  await room.close();
});

/** As a frame of the provider's page loads it: another site's navigation inside a page, without Strict cookies. */
async function frame(
  query: Record<string, string> | string,
  { by = room.client(), path = '/auth/frontchannel-logout', method = 'GET' } = {},
): Promise<BrowserResponse> {
  const search = typeof query === 'string' ? query : new URLSearchParams(query).toString();
  return await by.navigate(`${path}?${search}`, {
    method,
    site: 'cross-site',
    headers: { 'sec-fetch-dest': 'iframe', referer: `${provider.origin}/` },
  });
}

function expectPage(answer: BrowserResponse, from: FaultProvider = provider): void {
  expect(answer.status).toBe(200);
  expect(answer.headers['content-type']).toMatch(/^text\/html\b/);
  expect(answer.headers['content-security-policy']).toBe(
    `default-src 'none'; frame-ancestors ${from.origin}`,
  );
  expect(answer.headers['x-frame-options']).toBeUndefined();
  expect(answer.headers['cache-control']).toBe('no-store');
  expect(answer.setCookies).toEqual([]);
}

function expectRefused(answer: BrowserResponse, status: number): void {
  expect(answer.status).toBe(status);
  expect(answer.headers['x-frame-options']).toBe('DENY');
  expect(answer.headers['content-security-policy']).toContain("frame-ancestors 'none'");
  expect(answer.headers['cache-control']).toBe('no-store');
}

describe('A-107 front-channel logout', () => {
  test.each([
    'oidcc-client-test-rp-frontchannel-opinitlogout: the session ends, without its cookie',
    'oidcc-client-test-rp-frontchannel-rpinitlogout: after a logout that began here, too',
  ])('A-107 %s', async (name) => {
    const alice = await person(room);
    const bystander = await person(room);
    if (name.includes('rpinitlogout')) await alice.client.logout();
    expectPage(await frame({ iss: provider.issuer, sid: alice.sid }, { by: alice.client.clone() }));
    expect(await isAlive(room, alice)).toBe(false);
    expect(await isAlive(room, bystander)).toBe(true);
  });

  test('A-107 each provider has its own address, and only its own pages may frame the answer', async () => {
    const alice = await person(room, undefined, { provider: other, name: 'other' });
    const query = { iss: other.issuer, sid: alice.sid };
    expectRefused(await frame(query), 400);
    expect(await isAlive(room, alice)).toBe(true);
    expectPage(await frame(query, { path: '/auth/frontchannel-logout/other' }), other);
    expect(await isAlive(room, alice)).toBe(false);
  });

  test.each<[string, (who: Person) => string]>([
    ['no parameters', () => ''],
    ['sid alone', ({ sid }) => `sid=${sid}`],
    ['iss alone', () => `iss=${encodeURIComponent(provider.issuer)}`],
    ['another iss', ({ sid }) => `iss=${encodeURIComponent(`${provider.issuer}/`)}&sid=${sid}`],
    ['an empty sid', () => `iss=${encodeURIComponent(provider.issuer)}&sid=`],
    ['two iss', ({ sid }) => `iss=${encodeURIComponent(provider.issuer)}&iss=x&sid=${sid}`],
    ['two sid', ({ sid }) => `iss=${encodeURIComponent(provider.issuer)}&sid=${sid}&sid=${sid}`],
    ['a sid of control characters', () => `iss=${encodeURIComponent(provider.issuer)}&sid=%00%0a`],
    ['a list', ({ sid }) => `iss=${encodeURIComponent(provider.issuer)}&sid[]=${sid}`],
  ])('A-107 only with matching iss and sid: %s', async (_name, query) => {
    const alice = await person(room);
    expectRefused(await frame(query(alice)), 400);
    expect(await isAlive(room, alice)).toBe(true);
  });

  test('A-107 a sid that nobody has ends nobody and leaves nothing in the store', async () => {
    const alice = await person(room);
    const before = await room.redis?.keys(`${room.prefix}:*`);
    for (let i = 0; i < 20; i += 1) {
      expectPage(await frame({ iss: provider.issuer, sid: `guess-${String(i)}` }));
    }
    expect((await room.redis?.keys(`${room.prefix}:*`))?.sort()).toEqual(before?.sort());
    expect(await isAlive(room, alice)).toBe(true);
  });

  test.each<[string, (sid: string) => string]>([
    ['encoded', encodeURIComponent],
    ['as it is', (sid) => sid],
  ])('A-107 a sid with plus signs and slashes, %s', async (name, write) => {
    const sid = `a+b/c+/${name.length.toString()}==`;
    provider.modes.claims = () => ({ sid });
    const alice = await person(room);
    expectPage(await frame(`iss=${encodeURIComponent(provider.issuer)}&sid=${write(sid)}`));
    expect(await isAlive(room, alice)).toBe(false);
  });

  test('A-107 is an option: without frontchannelLogout there is nothing', async () => {
    const alice = await person(room, undefined, { provider: closed, name: 'closed' });
    const answer = await frame(
      { iss: closed.issuer, sid: alice.sid },
      { path: '/auth/frontchannel-logout/closed' },
    );
    expectRefused(answer, 404);
    expect(await isAlive(room, alice)).toBe(true);
  });

  test('A-107 HEAD, which link checkers send, ends nothing; POST is not there', async () => {
    const alice = await person(room);
    const query = { iss: provider.issuer, sid: alice.sid };
    expect((await frame(query, { method: 'HEAD' })).status).toBe(405);
    expect((await frame(query, { method: 'POST' })).status).toBe(404);
    expect(await isAlive(room, alice)).toBe(true);
  });

  test('cloakroom check names the address to register', async () => {
    const { stdout } = await runCloakroom(['check', '--config', room.first.configFile], { env });
    expect(stdout).toContain(`${room.publicUrl}/auth/frontchannel-logout,`);
    expect(stdout).toContain(`${room.publicUrl}/auth/frontchannel-logout/other,`);
    expect(stdout).not.toContain('/auth/frontchannel-logout/closed');
  });
});

describe('A-107 what a logout by the provider leaves', () => {
  test('A-107 streams of events are cut, answers already running are finished', async () => {
    const alice = await person(room);
    const stream = await alice.client.open('/api/sse/1000/20', { replica: 0 });
    const running = await alice.client.open('/api/drip/40/50', { replica: 1 });
    expect(stream.status).toBe(200);
    await stream.until('data');
    expect((await deliver(room, await logoutToken(provider, alice))).status).toBe(200);
    const cut = new Promise<void>((resolve) => stream.stream.once('close', resolve));
    stream.stream.resume();
    await cut;
    let bytes = 0;
    for await (const chunk of running.stream as AsyncIterable<Buffer>) bytes += chunk.length;
    expect(running.stream.complete).toBe(true);
    expect(bytes).toBeGreaterThan(0);
    expect(await isAlive(room, alice)).toBe(false);
  });

  test('A-107 refresh tokens that outlive the provider’s session are revoked by revokeOnBackchannelLogout', async () => {
    const alice = await person(room, undefined, { provider: other, name: 'other' });
    const bystander = await person(room, undefined, { provider: other, name: 'other' });
    const path = '/auth/backchannel-logout/other';
    expect((await deliver(room, await logoutToken(other, alice), { path })).status).toBe(200);
    await eventually(() => other.ledger.liveRefreshTokens({ sub: alice.sub }).length === 0, {
      timeout: 40_000,
      what: 'the revocation',
    });
    expect(other.ledger.liveRefreshTokens({ sub: bystander.sub })).toHaveLength(1);
  });

  test('A-107 and are left to the provider without it', async () => {
    const alice = await person(room);
    const before = provider.ledger.count('revocation');
    expect((await deliver(room, await logoutToken(provider, alice))).status).toBe(200);
    expect(await isAlive(room, alice)).toBe(false);
    expect(provider.ledger.count('revocation')).toBe(before);
  });
});
