import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { BrowserClient, BrowserResponse } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { startProvider, type FaultProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { StoredSession } from './support/stored-session.js';

interface OwnSession {
  handle: string;
  current: boolean;
  createdAt: string;
  usedAt: string;
  idleExpiresAt: string;
  absoluteExpiresAt: string;
  browser?: string;
  platform?: string;
  address?: string;
  acr?: string;
}

interface Page {
  sessions: OwnSession[];
  next?: string;
}

const REPLICAS = 3;
const FIREFOX = 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0';
const IPHONE = 'Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) Version/18.5 Safari/604.1';
const ALLOWED = ['handle', 'current', 'createdAt', 'usedAt', 'idleExpiresAt', 'absoluteExpiresAt'];
const OPTIONAL = ['browser', 'platform', 'address', 'acr'];

let c: Cloakroom;
let second: FaultProvider;

beforeAll(async () => {
  second = await startProvider();
  const main = await startProvider();
  c = await startCloakroom({
    replicas: REPLICAS,
    providers: { main, second },
    env: { REVOCATION_KEY: randomBytes(32).toString('hex') },
    config: {
      secrets: { revocation: [{ env: 'REVOCATION_KEY' }] },
      store: { redis: { commandTimeout: '2s' } },
      // Its refresh tokens are not one session's alone.
      providers: { second: { revokeOnLogout: false } },
    },
  });
});

afterAll(async () => {
  await expectLeftClean(c, 25 * 3600 * 1000);
  await second.stop();
});

const handleOf = (client: BrowserClient): string => new StoredSession(c, client).handle;

async function list(client: BrowserClient, query = ''): Promise<Page> {
  const answer = await client.api(`/auth/sessions${query}`);
  expect([answer.status, answer.headers['cache-control']]).toEqual([200, 'no-store']);
  return answer.json<Page>();
}

const end = (client: BrowserClient, handle: string): Promise<BrowserResponse> =>
  client.api(`/auth/sessions/${handle}`, { method: 'DELETE' });

/** What every replica says to this browser. */
async function statuses(client: BrowserClient): Promise<number[]> {
  const each = Array.from({ length: REPLICAS }, (_, replica) => client.clone().me({ replica }));
  return (await Promise.all(each)).map(({ status }) => status);
}

const LIVES = Array.from({ length: REPLICAS }, () => 200);
const OVER = Array.from({ length: REPLICAS }, () => 401);

function liveTokens(provider: FaultProvider, sub: string): number {
  return provider.ledger.liveRefreshTokens({ sub }).length;
}

describe('A-100 the list of one’s own sessions', () => {
  test('A-100 shows what is needed to recognise a browser, marks this one, and holds no token and nobody else', async () => {
    const desk = await c.signedIn({
      user: 'ada',
      userAgent: FIREFOX,
      headers: { 'x-forwarded-for': '198.51.100.23' },
    });
    const phone = await c.signedIn({ user: 'ada', userAgent: IPHONE });
    const stranger = await c.signedIn({ user: 'eve' });
    const { sessions, next } = await list(desk);
    expect(next).toBeUndefined();
    expect(sessions.map(({ handle }) => handle)).toEqual([handleOf(desk), handleOf(phone)]);
    expect(sessions.map(({ current }) => current)).toEqual([true, false]);
    expect(sessions[0]).toMatchObject({ browser: 'Firefox', platform: 'Linux', address: '198.51.100.0/24' });
    expect(sessions[1]).toMatchObject({ browser: 'Safari', platform: 'iOS' });
    for (const session of sessions) {
      const names = Object.keys(session);
      expect(names.filter((name) => ![...ALLOWED, ...OPTIONAL].includes(name))).toEqual([]);
      expect(names).toEqual(expect.arrayContaining(ALLOWED));
      for (const name of ['createdAt', 'usedAt', 'idleExpiresAt', 'absoluteExpiresAt'] as const) {
        expect(new Date(session[name]).toISOString()).toBe(session[name]);
      }
    }
    const me = (await desk.me()).json<{ session: { createdAt: string; absoluteExpiresAt: string } }>()
      .session;
    expect(sessions[0]).toMatchObject({ createdAt: me.createdAt, absoluteExpiresAt: me.absoluteExpiresAt });
    expect((await list(stranger)).sessions.map(({ handle }) => handle)).toEqual([handleOf(stranger)]);
  });

  test('A-100 the same subject of another issuer is another person', async () => {
    const here = await c.signedIn({ user: 'twin' });
    const there = c.client();
    const login = await there.login({ params: { provider: 'second' }, as: 'twin' });
    expect(login.status).toBe(303);
    expect((await list(here)).sessions.map(({ handle }) => handle)).toEqual([handleOf(here)]);
    expect((await list(there)).sessions.map(({ handle }) => handle)).toEqual([handleOf(there)]);
    expect((await end(here, handleOf(there))).status).toBe(404);
    expect((await here.api('/auth/sessions/end-others', { method: 'POST' })).json()).toEqual({ ended: 0 });
    expect(await statuses(there)).toEqual(LIVES);
  });

  test('A-100 comes in pages, each session once; a limit or cursor that is none is refused', async () => {
    const browsers = [];
    for (let i = 0; i < 7; i += 1) browsers.push(await c.signedIn({ user: 'paula' }));
    const [first] = browsers as [BrowserClient];
    const seen: string[] = [];
    let query = '?limit=3';
    for (let pages = 0; pages < 10 && query !== ''; pages += 1) {
      const { sessions, next } = await list(first, query);
      expect(sessions.length).toBeLessThanOrEqual(3);
      seen.push(...sessions.map(({ handle }) => handle));
      query = next === undefined ? '' : `?limit=3&cursor=${encodeURIComponent(next)}`;
    }
    expect(seen).toEqual(browsers.map(handleOf));
    for (const wrong of ['limit=0', 'limit=101', 'limit=x', 'limit=', 'cursor=x', 'cursor=9.1.x']) {
      expect([wrong, (await first.api(`/auth/sessions?${wrong}`)).problem]).toEqual([wrong, 'bad-request']);
    }
    // A cursor only moves within one's own sessions, whatever stands in it.
    const foreign = await c.signedIn({ user: 'quentin' });
    const page = await list(foreign, `?cursor=0.0.${handleOf(first)}`);
    expect(page.sessions.map(({ handle }) => handle)).toEqual([handleOf(foreign)]);
  });

  test('A-100 a session that ran out or was deleted by hand is not listed', async () => {
    const here = await c.signedIn({ user: 'dora' });
    const gone = await c.signedIn({ user: 'dora' });
    await new StoredSession(c, gone).delete();
    expect((await list(here)).sessions.map(({ handle }) => handle)).toEqual([handleOf(here)]);
  });

  test('A-095 needs the CSRF header, and a session', async () => {
    const client = await c.signedIn({ user: 'rita' });
    const other = await c.signedIn({ user: 'rita' });
    const calls = [
      ['GET', '/auth/sessions'],
      ['DELETE', `/auth/sessions/${handleOf(other)}`],
      ['POST', '/auth/sessions/end-others'],
      ['POST', '/auth/logout?everywhere=true'],
    ] as const;
    for (const [method, path] of calls) {
      const origin = client.publicUrl.origin;
      const bare = await client.fetch(path, { method, headers: { origin } });
      expect([path, bare.status, bare.problem]).toEqual([path, 403, 'csrf']);
      const foreign = await client.api(path, { method, headers: { origin: 'https://evil.example' } });
      expect([path, foreign.status, foreign.problem]).toEqual([path, 403, 'csrf']);
      const anonymous = await client.api(path, { method, cookie: '' });
      expect([path, anonymous.status, anonymous.problem]).toEqual([path, 401, 'session-required']);
    }
    expect(await statuses(client)).toEqual(LIVES);
    expect(await statuses(other)).toEqual(LIVES);
    expect((await client.api('/auth/sessions', { method: 'HEAD' })).status).toBe(405);
  });
});

describe('A-100 ending one’s own sessions', () => {
  test('A-100 another one: gone on every replica before the answer, its reason is elsewhere, its refresh token is revoked', async () => {
    const here = await c.signedIn({ user: 'bea' });
    const there = await c.signedIn({ user: 'bea' });
    const handle = handleOf(there);
    const answer = await end(here, handle);
    expect([answer.status, answer.text, answer.setCookies]).toEqual([204, '', []]);
    expect(await statuses(there)).toEqual(OVER);
    expect((await there.me()).json()).toMatchObject({ type: 'session-required', reason: 'elsewhere' });
    expect(await statuses(here)).toEqual(LIVES);
    await eventually(() => liveTokens(c.provider, 'bea') === 1, { timeout: 10_000 });
    const audit = await c.waitForEvent('session_ended', (line) => line['handle'] === handle);
    expect(audit).toMatchObject({ log: 'audit', actor: 'user', name: 'bea', cause: 'elsewhere' });
    expect((await end(here, handle)).status).toBe(404);
  });

  test('A-100 this one: as a logout, its cookie is taken away', async () => {
    const client = await c.signedIn({ user: 'cleo' });
    const other = await c.signedIn({ user: 'cleo' });
    const cookie = `${client.cookieName('session')}=${client.sessionCookie?.value ?? ''}`;
    const answer = await end(client, handleOf(client));
    expect(answer.status).toBe(204);
    expect(client.sessionCookie).toBeUndefined();
    const after = await client.me({ cookie });
    expect(after.json()).toMatchObject({ type: 'session-required', reason: 'user' });
    expect(await statuses(other)).toEqual(LIVES);
    await eventually(() => liveTokens(c.provider, 'cleo') === 1, { timeout: 10_000 });
  });

  test('A-100 a handle that is unknown, malformed or somebody else’s: the same 404, and nothing ends', async () => {
    const client = await c.signedIn({ user: 'dan' });
    const victim = await c.signedIn({ user: 'victim' });
    const answers: unknown[] = [];
    const handles = [
      handleOf(victim),
      randomBytes(32).toString('base64url'),
      'x',
      '%7Bx%7D',
      'end-others',
      'A'.repeat(300),
    ];
    for (const handle of handles) {
      const { status, headers, setCookies, json } = await end(client, handle).then((answer) => ({
        status: answer.status,
        headers: Object.keys(answer.headers),
        setCookies: answer.setCookies,
        json: { ...answer.json(), instance: '' },
      }));
      answers.push({ status, headers, setCookies, json });
    }
    expect(answers[0]).toMatchObject({ status: 404 });
    expect(answers.filter((answer) => JSON.stringify(answer) !== JSON.stringify(answers[0]))).toEqual([]);
    expect(await statuses(victim)).toEqual(LIVES);
    expect(await statuses(client)).toEqual(LIVES);
  });

  test('A-100 all others: they end, this one and other people stay, and the answer says how many', async () => {
    const here = await c.signedIn({ user: 'fay' });
    const others = [await c.signedIn({ user: 'fay' }), await c.signedIn({ user: 'fay' })];
    const stranger = await c.signedIn({ user: 'gus' });
    const answer = await here.api('/auth/sessions/end-others', { method: 'POST' });
    expect([answer.status, answer.json()]).toEqual([200, { ended: 2 }]);
    for (const other of others) expect(await statuses(other)).toEqual(OVER);
    expect((await others[0]?.me())?.json()).toMatchObject({ reason: 'elsewhere' });
    expect(await statuses(here)).toEqual(LIVES);
    expect(await statuses(stranger)).toEqual(LIVES);
    expect((await list(here)).sessions.map(({ handle }) => handle)).toEqual([handleOf(here)]);
    expect((await here.api('/auth/sessions/end-others', { method: 'POST' })).json()).toEqual({ ended: 0 });
    const audit = await c.waitForEvent(
      'sessions_ended',
      (line) => line['name'] === 'fay' && line['ended'] !== 0,
    );
    expect(audit).toMatchObject({ log: 'audit', actor: 'user', cause: 'elsewhere', ended: 2 });
    await eventually(() => liveTokens(c.provider, 'fay') === 1, { timeout: 30_000 });
  });

  test('A-100 logging out everywhere: all sessions end before the answer, every refresh token is revoked, and it goes on at the provider', async () => {
    const browsers = [];
    for (let i = 0; i < 3; i += 1) browsers.push(await c.signedIn({ user: 'hal' }));
    const [client, ...others] = browsers as [BrowserClient, ...BrowserClient[]];
    const answer = await client.api('/auth/logout?everywhere=true&returnTo=/bye', { method: 'POST' });
    expect(answer.status).toBe(200);
    const { logoutUrl, ended } = answer.json<{ logoutUrl: string; ended: number }>();
    expect(ended).toBe(3);
    expect(client.sessionCookie).toBeUndefined();
    for (const other of others) expect(await statuses(other)).toEqual(OVER);
    expect((await others[0]?.me())?.json()).toMatchObject({ reason: 'elsewhere' });
    expect((await client.navigate(logoutUrl)).location).toContain('id_token_hint=');
    await eventually(() => liveTokens(c.provider, 'hal') === 0, { timeout: 30_000 });
    // Whose sessions should have ended now, nobody could say: it must not look as if they had.
    const again = await client.api('/auth/logout?everywhere=true', { method: 'POST' });
    expect([again.status, again.problem]).toEqual([401, 'session-required']);
  });

  test('A-100 without everywhere=true only this session ends, and the answer has the shape it always had', async () => {
    const client = await c.signedIn({ user: 'ida' });
    const other = await c.signedIn({ user: 'ida' });
    const answer = await client.api('/auth/logout?everywhere=false', { method: 'POST' });
    expect(Object.keys(answer.json())).toEqual(['logoutUrl']);
    expect(await statuses(other)).toEqual(LIVES);
  });

  test('A-100 where a provider is not to be asked, no refresh token is revoked', async () => {
    const browsers = [];
    for (let i = 0; i < 3; i += 1) {
      const client = c.client();
      expect((await client.login({ params: { provider: 'second' }, as: 'kim' })).status).toBe(303);
      browsers.push(client);
    }
    const [here, one, other] = browsers as [BrowserClient, BrowserClient, BrowserClient];
    const handle = handleOf(other);
    expect((await end(here, handleOf(one))).status).toBe(204);
    expect((await here.api('/auth/logout?everywhere=true', { method: 'POST' })).status).toBe(200);
    expect(await statuses(other)).toEqual(OVER);
    await c.waitForEvent('revocation_dropped', (line) => line['handle'] === handle, 30_000);
    expect(liveTokens(second, 'kim')).toBe(3);
    expect(second.ledger.count('revocation')).toBe(0);
  }, 60_000);
});
