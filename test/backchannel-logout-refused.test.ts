import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserResponse } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { startProvider, type FaultProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import {
  claims,
  typ,
  deliver,
  isAlive,
  logoutToken,
  LOGOUT_EVENT,
  person,
  refusalInLog,
  type Delivery,
  type LogoutTokenChange,
  type Person,
} from './support/logout-tokens.js';

// Each module of the OpenID Foundation's back-channel plan for clients that sends a wrong token, under its own name, and
// next to it what the plan does not send.

let room: Cloakroom;
let provider: FaultProvider;
let other: FaultProvider;
let alice: Person;

beforeAll(async () => {
  [provider, other] = await Promise.all([startProvider({ path: '/realms/shop' }), startProvider()]);
  room = await startCloakroom({
    provider,
    providers: { main: provider, other },
    config: { rateLimits: { backchannelLogout: 'off' } },
  });
  alice = await person(room, 'alice');
});

beforeEach(() => {
  provider.reset();
});

afterAll(async () => {
  await expectLeftClean(room, 26 * 3600 * 1000);
  await room.close();
});

const without = (name: string): LogoutTokenChange => claims(() => ({ [name]: undefined }));
const events = (value: unknown): LogoutTokenChange => claims(() => ({ events: value }));
const now = (): number => Math.floor(Date.now() / 1000);

function expectRefusal(answer: BrowserResponse, status = 400): void {
  expect(answer.status).toBe(status);
  expect(answer.headers['cache-control']).toBe('no-store');
  expect(answer.headers['content-type']).toMatch(/^application\/json\b/);
  expect(answer.json()).toEqual({ error: 'invalid_request', error_description: expect.any(String) });
  expect(answer.setCookies).toEqual([]);
}

async function expectTokenRefused(change: LogoutTokenChange, reason: string): Promise<void> {
  const token = await logoutToken(provider, { sub: alice.sub, sid: alice.sid }, change);
  const answer = await deliver(room, token);
  expectRefusal(answer);
  expect(await refusalInLog(room, answer)).toBe(reason);
  expect(await isAlive(room, alice)).toBe(true);
}

describe('A-104 a logout token of the wrong kind is answered 400, uncacheable, and ends nothing', () => {
  test.each<[string, LogoutTokenChange, string]>([
    ['oidcc-client-test-rp-backchannel-rpinitlogout-alg-none', { signing: 'none' }, 'alg'],
    ['oidcc-client-test-rp-backchannel-rpinitlogout-wrong-alg', { signing: 'hs256-client-secret' }, 'alg'],
    ['oidcc-client-test-rp-backchannel-rpinitlogout-no-event', without('events'), 'events'],
    [
      'oidcc-client-test-rp-backchannel-rpinitlogout-wrong-event',
      events({ 'http://schemas.openid.net/event/frontchannel-logout': {} }),
      'events',
    ],
    ['oidcc-client-test-rp-backchannel-rpinitlogout-with-nonce', claims(() => ({ nonce: 'n-0S6' })), 'nonce'],
    [
      'oidcc-client-test-rp-backchannel-rpinitlogout-wrong-aud',
      claims((all) => ({ aud: `${String(all['aud'])}1` })),
      'aud',
    ],
    [
      'oidcc-client-test-rp-backchannel-rpinitlogout-wrong-iss',
      claims((all) => ({ iss: `${String(all['iss'])}1` })),
      'iss',
    ],
  ])('A-104 %s', (_name, change, reason) => expectTokenRefused(change, reason));
});

describe('A-104 the signature is always checked, with a key of the provider', () => {
  test.each<[string, LogoutTokenChange, string]>([
    ['alg None', { signing: 'None' }, 'alg'],
    ['alg nOnE', { signing: 'nOnE' }, 'alg'],
    ['HMAC with the public key', { signing: 'hs256-public-key' }, 'alg'],
    ['RS512, which is not among idTokenAlgs', { signing: 'rs512' }, 'alg'],
    ["somebody else's key", { signing: 'wrong-key' }, 'signature'],
    ["somebody else's key of another kind", { signing: 'es256-unpublished' }, 'signature'],
    ['no signature', { signing: 'empty-signature' }, 'signature'],
    ['one bit of the signature', { signing: { flipBit: 77 } }, 'signature'],
    ['a key id nobody knows', { signing: 'unknown-kid' }, 'signature'],
    ['a key in the header', { signing: 'jwk' }, 'header'],
    ['a place for keys in the header', { signing: 'jku' }, 'header'],
    ['a certificate in the header', { signing: 'x5c' }, 'header'],
    ['a critical header', { signing: 'crit' }, 'header'],
  ])('A-104 %s', (_name, change, reason) => expectTokenRefused(change, reason));
});

describe('A-105 a logout token must be one, for this client, made just now', () => {
  test.each<[string, LogoutTokenChange, string]>([
    ['typ of an access token', typ('at+jwt'), 'typ'],
    ['typ of a DPoP proof', typ('dpop+jwt'), 'typ'],
    ['typ of another security event', typ('secevent+jwt'), 'typ'],
    ['typ that is no text', typ(['logout+jwt']), 'typ'],
    ['an empty typ', typ(''), 'typ'],
    ['no sub and no sid', claims(() => ({ sub: undefined, sid: undefined })), 'sub'],
    ['sub null beside a good sid', claims(() => ({ sub: null })), 'sub'],
    ['an empty sub', claims(() => ({ sub: '' })), 'sub'],
    ['sub in a list', claims((all) => ({ sub: [all['sub']] })), 'sub'],
    ['sid that is a number', claims(() => ({ sid: 7 })), 'sid'],
    ['an empty sid', claims(() => ({ sid: '' })), 'sid'],
    ['the sid of another sub', claims(() => ({ sub: 'mallory' })), 'sub'],
    ['expired', claims(() => ({ iat: now() - 200, exp: now() - 61 })), 'exp'],
    ['made ten minutes ago, without exp', claims(() => ({ iat: now() - 600, exp: undefined })), 'iat'],
    [
      'made ten minutes ago, good for an hour',
      claims(() => ({ iat: now() - 600, exp: now() + 3600 })),
      'iat',
    ],
    ['made 61 s from now', claims(() => ({ iat: now() + 61 })), 'iat'],
    ['no iat', without('iat'), 'iat'],
    ['iat as text', claims(() => ({ iat: String(now()) })), 'iat'],
    ['iat in milliseconds', claims(() => ({ iat: Date.now() })), 'iat'],
    ['exp as text', claims(() => ({ exp: String(now() + 60) })), 'exp'],
    ['nbf 61 s ahead', claims(() => ({ nbf: now() + 61 })), 'nbf'],
    ['no jti', without('jti'), 'jti'],
    ['an empty jti', claims(() => ({ jti: '' })), 'jti'],
    ['jti that is a number', claims(() => ({ jti: 1 })), 'jti'],
    ['no aud', without('aud'), 'aud'],
    ['aud of others', claims(() => ({ aud: ['one', 'two'] })), 'aud'],
    ['aud in a list in a list', claims((all) => ({ aud: [[all['aud']]] })), 'aud'],
    ['no iss', without('iss'), 'iss'],
    ['iss in a list', claims((all) => ({ iss: [all['iss']] })), 'iss'],
    ['a nonce that is null', claims(() => ({ nonce: null })), 'nonce'],
    ['events as text', events(LOGOUT_EVENT), 'events'],
    ['events as a list', events([LOGOUT_EVENT]), 'events'],
    ['events null', events(null), 'events'],
    ['the event true', events({ [LOGOUT_EVENT]: true }), 'events'],
    ['the event null', events({ [LOGOUT_EVENT]: null }), 'events'],
    ['the event a list', events({ [LOGOUT_EVENT]: [] }), 'events'],
    ['a list of claims', { payload: (all) => JSON.stringify([all]) }, 'malformed'],
    ['no JSON', { payload: () => 'logout' }, 'malformed'],
    [
      'nested too deep',
      {
        payload: (all) =>
          JSON.stringify({ ...all, x: 0 }).replace(/"x":0/, `"x":${'['.repeat(99)}${']'.repeat(99)}`),
      },
      'malformed',
    ],
  ])('A-105 %s', (_name, change, reason) => expectTokenRefused(change, reason));

  test('A-105 an ID token of this very session', async () => {
    let idToken = '';
    provider.next('token', {
      idToken: (jwt) => {
        idToken = jwt;
        return jwt;
      },
    });
    const bob = await person(room);
    const answer = await deliver(room, idToken);
    expectRefusal(answer);
    expect(await refusalInLog(room, answer)).toBe('events');
    expect(await isAlive(room, bob)).toBe(true);
  });

  test('A-105 an access token that is a JWT', async () => {
    provider.modes.accessTokens = 'jwt';
    const bob = await person(room);
    const token = [...provider.ledger.accessTokens.values()].findLast(({ sub }) => sub === bob.sub)?.token;
    const answer = await deliver(room, token ?? '');
    expectRefusal(answer);
    expect(await refusalInLog(room, answer)).toBe('typ');
    expect(await isAlive(room, bob)).toBe(true);
  });

  test("A-105 one provider's token at another provider's address", async () => {
    const token = await logoutToken(provider, { sid: alice.sid });
    const answer = await deliver(room, token, { path: '/auth/backchannel-logout/other' });
    expectRefusal(answer);
    expect(await refusalInLog(room, answer)).toBe('signature');
    expect(await isAlive(room, alice)).toBe(true);
  });

  test("A-105 another provider's token that speaks of this one's session", async () => {
    const forged = await logoutToken(
      other,
      { sid: alice.sid },
      claims(() => ({ iss: provider.issuer })),
    );
    const honest = await logoutToken(other, { sid: alice.sid });
    expectRefusal(await deliver(room, forged));
    expectRefusal(await deliver(room, forged, { path: '/auth/backchannel-logout/other' }));
    expectRefusal(await deliver(room, honest));
    // To the other provider's own address it may say so: it has no such session here.
    expect((await deliver(room, honest, { path: '/auth/backchannel-logout/other' })).status).toBe(200);
    expect(await isAlive(room, alice)).toBe(true);
  });
});

describe('A-105 a request that is not the right form is refused by its shape', () => {
  const good = (): Promise<string> => logoutToken(provider, { sid: alice.sid });
  const json = { 'content-type': 'application/json' };

  test.each<[string, number, (token: string) => Delivery]>([
    ['a JSON body', 415, (token) => ({ body: JSON.stringify({ logout_token: token }), headers: json })],
    ['text', 415, (token) => ({ body: token, headers: { 'content-type': 'text/plain' } })],
    [
      'the token itself as application/jwt',
      415,
      (token) => ({ body: token, headers: { 'content-type': 'application/jwt' } }),
    ],
    ['two tokens', 400, (token) => ({ body: `logout_token=${token}&logout_token=${token}` })],
    ['no token', 400, () => ({ body: 'a=b' })],
    ['an empty token', 400, () => ({ body: 'logout_token=' })],
    ['an empty body', 400, () => ({ body: '' })],
    ['the name in another case', 400, (token) => ({ body: `Logout_Token=${token}` })],
    [
      'the token in the query',
      400,
      (token) => ({ body: '', path: `/auth/backchannel-logout?logout_token=${token}` }),
    ],
    ['no token at all but three dots', 400, () => ({ body: 'logout_token=...' })],
    ['markup', 400, () => ({ body: `logout_token=${encodeURIComponent('<script>alert(1)</script>')}` })],
  ])('A-105 %s', async (_name, status, delivery) => {
    const token = await good();
    const answer = await deliver(room, token, delivery(token));
    expectRefusal(answer, status);
    expect(answer.text).not.toContain(token.slice(0, 20));
    expect(answer.text).not.toContain('alert');
    expect(await isAlive(room, alice)).toBe(true);
  });

  test('A-105 1 MB', async () => {
    const answer = await deliver(room, '', { body: `logout_token=${'a'.repeat(1024 * 1024)}` });
    expect(answer.status).toBe(413);
    expect(answer.headers['cache-control']).toBe('no-store');
    expect(answer.problem).toBe('payload-too-large');
  });

  test.each(['GET', 'HEAD', 'PUT', 'DELETE', 'PATCH', 'OPTIONS'])('A-105 %s', async (method) => {
    const token = await good();
    const path = method === 'GET' ? `/auth/backchannel-logout?logout_token=${token}` : undefined;
    const answer = await deliver(room, token, {
      method,
      ...(path === undefined ? {} : { path, body: '' }),
    });
    expect(answer.status).toBe(405);
    expect(answer.headers['allow']).toBe('POST');
    expect(answer.headers['cache-control']).toBe('no-store');
    expect(await isAlive(room, alice)).toBe(true);
  });

  test.each(['nobody', 'main', 'MAIN', 'other/', 'other/x', '', '%6fther'])(
    'there is nothing at /auth/backchannel-logout/%s',
    async (name) => {
      const answer = await deliver(room, await good(), { path: `/auth/backchannel-logout/${name}` });
      expect([400, 404]).toContain(answer.status);
      expect(await isAlive(room, alice)).toBe(true);
    },
  );
});

test('A-105 a token that was refused can be mended: what counts as seen is only what was accepted', async () => {
  const bob = await person(room);
  const jti = 'one-and-the-same';
  const wrong = await logoutToken(
    provider,
    bob,
    claims(() => ({ jti, aud: 'another' })),
  );
  const right = await logoutToken(
    provider,
    { sid: bob.sid },
    claims(() => ({ jti })),
  );
  expectRefusal(await deliver(room, wrong));
  expect((await deliver(room, right)).status).toBe(200);
  expect(await isAlive(room, bob)).toBe(false);
});
