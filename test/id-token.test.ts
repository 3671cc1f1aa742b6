import { createHash } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { startProvider, type Behaviour, type FaultProvider, type Json } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { refusedLogin, sessionCount } from './support/refused-login.js';

// Each module of the OpenID Foundation's conformance suite for clients as a mode of the fault-injecting provider, under
// its own name, and next to it the variants the suite does not have.

let room: Cloakroom;
let provider: FaultProvider;

beforeAll(async () => {
  provider = await startProvider({ path: '/realms/shop' });
  room = await startCloakroom({ provider });
});

beforeEach(() => {
  provider.reset();
});

afterAll(async () => {
  await expectLeftClean(room);
  await room.close();
});

const claims = (change: (claims: Json) => Json): Behaviour => ({
  claims: (all) => ({ ...all, ...change(all) }),
});
const without = (name: string): Behaviour => claims(() => ({ [name]: undefined }));
const now = (): number => Math.floor(Date.now() / 1000);

/** The payload as text, for what `JSON.stringify` cannot write. */
const inText = (member: string, text: string): Behaviour => ({
  payload: (all) =>
    JSON.stringify({ ...all, [member]: 'PLACE-FOR-TEXT' }).replace('"PLACE-FOR-TEXT"', () => text),
});

async function expectRefused(behaviour: Behaviour, reason: string): Promise<void> {
  const before = await sessionCount(room);
  provider.next('token', behaviour);
  const refused = await refusedLogin(room);
  expect(refused).toMatchObject({ status: 400, event: 'id_token_rejected', reason });
  expect(await sessionCount(room)).toBe(before);
}

async function expectAccepted(behaviour: Behaviour): Promise<Record<string, unknown>> {
  provider.next('token', behaviour);
  const me = await (await room.signedIn()).me();
  expect(me.status).toBe(200);
  return me.json<{ claims: Record<string, unknown> }>().claims;
}

const iss = (change: (issuer: string) => unknown): Behaviour =>
  claims((all) => ({ iss: change(String(all['iss'])) }));

describe('A-027 the issuer must be exactly the configured one', () => {
  test.each<[string, Behaviour]>([
    ['oidcc-client-test-invalid-iss', iss((issuer) => `${issuer}1`)],
    ['fapi2-security-profile-final-client-test-invalid-missing-iss', without('iss')],
    ['a trailing slash', iss((issuer) => `${issuer}/`)],
    ['other case in the path', iss((issuer) => issuer.replace('shop', 'Shop'))],
    ['other case in the scheme', iss((issuer) => issuer.replace('http', 'HTTP'))],
    ['another tenant', iss((issuer) => issuer.replace('shop', 'bank'))],
    ['the tenant above', iss((issuer) => issuer.replace('/realms/shop', ''))],
    ['https for http', iss((issuer) => issuer.replace('http:', 'https:'))],
    ['localhost for 127.0.0.1', iss((issuer) => issuer.replace('127.0.0.1', 'localhost'))],
    ['a user before the host', iss((issuer) => issuer.replace('//', '//user@'))],
    ['a query', iss((issuer) => `${issuer}?a=b`)],
    ['a dot segment', iss((issuer) => issuer.replace('/realms', '/./realms'))],
    ['a percent-encoded letter', iss((issuer) => issuer.replace('shop', 'sho%70'))],
    ['a space behind', iss((issuer) => `${issuer} `)],
    ['a list with the right one', iss((issuer) => [issuer])],
    ['an empty text', iss(() => '')],
    ['null', iss(() => null)],
    ['a number', iss(() => 1)],
  ])('A-027 %s', (_name, behaviour) => expectRefused(behaviour, 'iss'));
});

describe('A-028 the subject must be 1 to 255 printable ASCII characters', () => {
  test.each<[string, Behaviour]>([
    ['oidcc-client-test-missing-sub', without('sub')],
    ['empty', claims(() => ({ sub: '' }))],
    ['a number', claims(() => ({ sub: 42 }))],
    ['null', claims(() => ({ sub: null }))],
    ['an object', claims(() => ({ sub: { id: 'alice' } }))],
    ['a list', claims(() => ({ sub: ['alice'] }))],
    ['300 characters', claims(() => ({ sub: 'a'.repeat(300) }))],
    ['256 characters', claims(() => ({ sub: 'a'.repeat(256) }))],
    ['a NUL character', claims(() => ({ sub: 'alice\0' }))],
    ['a line break', claims(() => ({ sub: 'alice\nbob' }))],
    ['a DEL character', claims(() => ({ sub: 'alice\x7f' }))],
    ['letters outside ASCII', claims(() => ({ sub: 'älice' }))],
  ])('A-028 %s', (_name, behaviour) => expectRefused(behaviour, 'sub'));

  test('A-028 255 characters are a subject', async () => {
    const sub = 's'.repeat(255);
    expect(await expectAccepted(claims(() => ({ sub })))).toMatchObject({ sub });
  });
});

describe('A-029 the audience must be this client alone', () => {
  test.each<[string, Behaviour, string]>([
    ['oidcc-client-test-invalid-aud', claims(() => ({ aud: 'another-client' })), 'aud'],
    ['oidcc-client-test-missing-aud', without('aud'), 'aud'],
    [
      'fapi2-security-profile-final-client-test-invalid-secondary-aud',
      claims((all) => ({ aud: [all['aud'], 'another-client'] })),
      'aud',
    ],
    [
      'a second audience, with azp naming this client',
      claims((all) => ({ aud: [all['aud'], 'another-client'], azp: all['aud'] })),
      'aud',
    ],
    ['an empty list', claims(() => ({ aud: [] })), 'aud'],
    ['this client twice', claims((all) => ({ aud: [all['aud'], all['aud']] })), 'aud'],
    ['a list in a list', claims((all) => ({ aud: [[all['aud']]] })), 'aud'],
    ['other case', claims((all) => ({ aud: String(all['aud']).toUpperCase() })), 'aud'],
    ['an object', claims((all) => ({ aud: { 0: all['aud'], length: 1 } })), 'aud'],
    ['azp of another client', claims(() => ({ azp: 'another-client' })), 'azp'],
    ['azp that is no text', claims((all) => ({ azp: [all['aud']] })), 'azp'],
    ['an empty azp', claims(() => ({ azp: '' })), 'azp'],
  ])('A-029 %s', (_name, behaviour, reason) => expectRefused(behaviour, reason));

  test('A-029 fapi2-security-profile-final-client-test-valid-aud-as-array is accepted', async () => {
    await expectAccepted(claims((all) => ({ aud: [all['aud']] })));
  });

  test('A-029 azp of this client is accepted', async () => {
    await expectAccepted(claims((all) => ({ azp: all['aud'] })));
  });
});

describe('A-030 the token was made just now', () => {
  test.each<[string, Behaviour]>([
    ['oidcc-client-test-missing-iat', without('iat')],
    ['iat a week ago (iat-is-week-in-past)', claims(() => ({ iat: now() - 7 * 24 * 3600 }))],
    ['iat 61 s ahead', claims(() => ({ iat: now() + 61 }))],
    ['iat as text', claims(() => ({ iat: String(now()) }))],
    ['iat with a fraction', claims(() => ({ iat: now() + 0.5 }))],
    ['iat in milliseconds', claims(() => ({ iat: Date.now() }))],
  ])('A-030 %s', (_name, behaviour) => expectRefused(behaviour, 'iat'));

  test.each([10, -10, -120])('A-030 iat %d s off is accepted', async (offset) => {
    await expectAccepted(claims(() => ({ iat: now() + offset })));
  });
});

describe('A-031 times are whole seconds in a sensible range, and not over', () => {
  test.each<[string, Behaviour, string]>([
    [
      'fapi2-security-profile-final-client-test-invalid-expired-exp',
      claims(() => ({ iat: now() - 360, exp: now() - 60 })),
      'exp',
    ],
    ['fapi2-security-profile-final-client-test-invalid-missing-exp', without('exp'), 'exp'],
    ['exp as text', claims(() => ({ exp: String(now() + 300) })), 'exp'],
    ['exp with a fraction', claims(() => ({ exp: now() + 300.5 })), 'exp'],
    ['exp 9e15', claims(() => ({ exp: 9e15 })), 'exp'],
    ['exp 1e999', inText('exp', '1e999'), 'exp'],
    ['exp negative', claims(() => ({ exp: -1 })), 'exp'],
    ['exp null', claims(() => ({ exp: null })), 'exp'],
    ['exp in a list', claims(() => ({ exp: [now() + 300] })), 'exp'],
    ['nbf 61 s ahead', claims(() => ({ nbf: now() + 61 })), 'nbf'],
    ['nbf as text', claims(() => ({ nbf: String(now()) })), 'nbf'],
    ['nbf null', claims(() => ({ nbf: null })), 'nbf'],
    ['auth_time as text', claims(() => ({ auth_time: String(now()) })), 'auth_time'],
  ])('A-031 %s', (_name, behaviour, reason) => expectRefused(behaviour, reason));

  test('A-031 nbf 10 s ahead is accepted', async () => {
    await expectAccepted(claims(() => ({ nbf: now() + 10 })));
  });

  test.each([
    [300, 'iat'],
    [-900, 'exp'],
    [86_400, 'iat'],
    [-86_400, 'exp'],
  ])(
    'A-031 a provider whose clock is %d s off: refused, and the log says skew and how much',
    async (offset, reason) => {
      provider.modes.clockOffset = offset;
      const { status, event, reason: logged, line } = await refusedLogin(room);
      expect({ status, event, logged }).toEqual({ status: 400, event: 'id_token_rejected', logged: reason });
      const message = (line?.['error'] as { message?: string } | undefined)?.message ?? '';
      const seconds = Number(/clocks differ by about (-?\d+) s/.exec(message)?.[1]);
      expect(Math.abs(seconds - offset)).toBeLessThanOrEqual(5);
    },
  );

  test.each([25, -25])('A-031 a provider whose clock is %d s off is not noticed', async (offset) => {
    provider.modes.clockOffset = offset;
    await expectAccepted({});
  });

  test('A-031 a claim that is wrong in itself is not called skew', async () => {
    provider.next('token', without('exp'));
    const { line } = await refusedLogin(room);
    expect(JSON.stringify(line)).not.toContain('clocks differ');
  });
});

describe('A-032 the nonce must be the one of this attempt', () => {
  test.each<[string, Behaviour]>([
    ['oidcc-client-test-nonce-invalid', claims((all) => ({ nonce: `${String(all['nonce'])}x` }))],
    ['fapi2-security-profile-final-client-test-invalid-missing-nonce', without('nonce')],
    ['in a list', claims((all) => ({ nonce: [all['nonce']] }))],
    ['empty', claims(() => ({ nonce: '' }))],
    ['null', claims(() => ({ nonce: null }))],
  ])('A-032 %s', (_name, behaviour) => expectRefused(behaviour, 'nonce'));

  test('A-032 the nonce of another attempt of the same browser is refused', async () => {
    const client = room.client();
    const other = await client.beginLogin();
    const nonce = other.authorizationUrl?.searchParams.get('nonce');
    expect(nonce).toBeTruthy();
    provider.next(
      'token',
      claims(() => ({ nonce })),
    );
    expect(await refusedLogin(room, { client })).toMatchObject({ status: 400, reason: 'nonce' });
    // The attempt the nonce belongs to is not spoilt by that.
    expect((await other.finish()).status).toBe(303);
  });
});

describe('A-038 at_hash and c_hash must be right where they are present', () => {
  test.each<[string, Behaviour, string]>([
    ['oidcc-client-test-invalid-athash', claims(() => ({ at_hash: 'AAAAAAAAAAAAAAAAAAAAAA' })), 'at_hash'],
    ['oidcc-client-test-invalid-chash', claims(() => ({ c_hash: 'AAAAAAAAAAAAAAAAAAAAAA' })), 'c_hash'],
    ['at_hash null', claims(() => ({ at_hash: null })), 'at_hash'],
    ['at_hash cut', claims((all) => ({ at_hash: String(all['at_hash']).slice(0, -1) })), 'at_hash'],
    ['c_hash empty', claims(() => ({ c_hash: '' })), 'c_hash'],
    [
      'at_hash of another token',
      { mutate: (answer) => ({ ...answer, access_token: 'at-of-somebody-else' }) },
      'at_hash',
    ],
  ])('A-038 %s', (_name, behaviour, reason) => expectRefused(behaviour, reason));

  test('A-038 oidcc-client-test-missing-athash and -missing-chash are accepted in the code flow', async () => {
    provider.modes.atHash = false;
    await expectAccepted({});
  });

  test('A-038 the right c_hash is accepted', async () => {
    let code = '';
    await expectAccepted({
      when: (params) => {
        code = params.get('code') ?? '';
        return true;
      },
      ...claims(() => ({
        c_hash: createHash('sha256').update(code).digest().subarray(0, 16).toString('base64url'),
      })),
    });
    expect(code).not.toBe('');
  });
});

describe('A-042 a token made for another purpose is no ID token', () => {
  const logoutEvent = { 'http://schemas.openid.net/event/backchannel-logout': {} };

  test.each<[string, Behaviour, string]>([
    ['an access token (typ at+jwt)', { header: (header) => ({ ...header, typ: 'at+jwt' }) }, 'typ'],
    [
      'an access token (typ application/at+jwt)',
      { header: (header) => ({ ...header, typ: 'application/at+jwt' }) },
      'typ',
    ],
    ['a logout token (typ logout+jwt)', { header: (header) => ({ ...header, typ: 'logout+jwt' }) }, 'typ'],
    ['a DPoP proof (typ dpop+jwt)', { header: (header) => ({ ...header, typ: 'dpop+jwt' }) }, 'typ'],
    ['a typ that is no text', { header: (header) => ({ ...header, typ: ['JWT'] }) }, 'typ'],
    [
      'a logout token without a typ',
      { header: (header) => ({ ...header, typ: undefined }), ...claims(() => ({ events: logoutEvent })) },
      'typ',
    ],
  ])('A-042 %s is refused', (_name, behaviour, reason) => expectRefused(behaviour, reason));

  test('A-042 the access token of the same answer, a JWT, is refused as its ID token', async () => {
    provider.modes.accessTokens = 'jwt';
    await expectRefused({ mutate: (answer) => ({ ...answer, id_token: answer['access_token'] }) }, 'typ');
  });

  test('A-042 a token without typ is an ID token by its claims', async () => {
    await expectAccepted({ header: (header) => ({ ...header, typ: undefined }) });
  });
});
