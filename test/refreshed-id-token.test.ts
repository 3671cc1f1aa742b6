import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { startProvider, type Behaviour, type FaultProvider, type Json } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';
import { loginsNeedRefresh } from './support/over-at-once.js';
import { StoredSession } from './support/stored-session.js';

let room: Cloakroom;
let provider: FaultProvider;

beforeAll(async () => {
  provider = await startProvider();
  room = await startCloakroom({ provider });
});

beforeEach(() => {
  loginsNeedRefresh(provider);
});

afterAll(async () => {
  await expectLeftClean(room);
  await room.close();
});

const claims = (change: (claims: Json) => Json): Behaviour => ({
  claims: (all) => ({ ...all, ...change(all) }),
});
const now = (): number => Math.floor(Date.now() / 1000);

/** A session whose first request must wait for a refresh, which brings this ID token. */
async function refreshing(behaviour: Behaviour): Promise<{ client: BrowserClient; stored: StoredSession }> {
  const client = await room.signedIn();
  provider.next('refresh', behaviour);
  await sleep(25);
  return { client, stored: new StoredSession(room, client) };
}

describe('A-045 an ID token about another login ends the session, and the tokens with it are thrown away', () => {
  test.each<[string, Behaviour, string]>([
    [
      'oidcc-client-test-refresh-token-invalid-issuer',
      claims((all) => ({ iss: `${String(all['iss'])}1` })),
      'iss',
    ],
    ['oidcc-client-test-refresh-token-invalid-sub', claims(() => ({ sub: 'bob' })), 'sub'],
    ['no issuer', claims(() => ({ iss: undefined })), 'iss'],
    ['no subject', claims(() => ({ sub: undefined })), 'sub'],
    ['the subject in other case', claims(() => ({ sub: 'Alice' })), 'sub'],
    ['another audience', claims(() => ({ aud: 'another-client' })), 'aud'],
    ['a second audience', claims((all) => ({ aud: [all['aud'], 'another-client'] })), 'aud'],
    ['azp of another client', claims(() => ({ azp: 'another-client' })), 'azp'],
    ['another auth_time', claims((all) => ({ auth_time: Number(all['auth_time']) + 5 })), 'auth_time'],
    ['a wrong at_hash', claims(() => ({ at_hash: 'AAAAAAAAAAAAAAAAAAAAAA' })), 'at_hash'],
    ['a signature of another key', { signing: 'wrong-key' }, 'signature'],
    ['alg none', { signing: 'none' }, 'alg'],
    ['a key in its header', { signing: 'jwk' }, 'header'],
    ['the client secret as key', { signing: 'hs256-client-secret' }, 'alg'],
    ['the type of an access token', { header: (header) => ({ ...header, typ: 'at+jwt' }) }, 'typ'],
    ['no JWT at all', { idToken: () => 'nonsense' }, 'malformed'],
  ])('A-045 %s', async (_name, behaviour, reason) => {
    const { client, stored } = await refreshing(behaviour);
    const seen = room.upstream.requests.length;
    const answer = await client.api('/api/echo');
    expect([answer.status, answer.problem]).toEqual([401, 'session-ended']);
    expect(answer.json()).toMatchObject({ reason: 'identity-changed', loginUrl: '/auth/login' });
    expect(client.sessionCookie).toBeUndefined();
    expect(room.upstream.requests.length).toBe(seen);
    expect(await stored.exists()).toBe(false);
    await room.waitForEvent(
      'identity_changed',
      (line) => line['handle'] === stored.handle && line['reason'] === reason,
    );
    await room.waitForEvent(
      'session_ended',
      (line) => line['handle'] === stored.handle && line['cause'] === 'identity-changed',
    );
    // The new refresh token is of no use to anybody any more.
    await eventually(() => provider.ledger.liveRefreshTokens().length === 0, { what: 'the revocation' });
  });

  test('A-045 a browser that keeps the cookie of an ended session is told to sign in, on every replica', async () => {
    const { client } = await refreshing(claims(() => ({ sub: 'bob' })));
    const copy = client.clone();
    await client.api('/api/echo');
    for (const replica of [0, 1]) {
      const again = copy.clone();
      const answer = await again.api('/api/echo', { replica });
      expect([answer.status, answer.problem]).toEqual([401, 'session-required']);
    }
    expect(provider.ledger.count('refresh')).toBe(1);
  });
});

describe('A-045 an ID token about the same login keeps the session', () => {
  const before = (): Json => ({ iat: now() - 7200, exp: now() - 3600 });

  test.each<[string, Behaviour, 'new' | 'old']>([
    ['oidcc-client-test-refresh-token', {}, 'new'],
    ['no ID token', { mutate: (answer) => ({ ...answer, id_token: undefined }) }, 'old'],
    ['an empty ID token', { mutate: (answer) => ({ ...answer, id_token: '' }) }, 'old'],
    ['no auth_time', claims(() => ({ auth_time: undefined })), 'new'],
    ['no at_hash', claims(() => ({ at_hash: undefined })), 'new'],
    ['azp of this client', claims((all) => ({ azp: all['aud'] })), 'new'],
    ['the audience in a list', claims((all) => ({ aud: [all['aud']] })), 'new'],
    ['iat of the login, an hour ago', claims(() => ({ iat: now() - 3600 })), 'new'],
    ['one that is over, as clocks may differ', claims(before), 'old'],
    [
      'one of the future, as clocks may differ',
      claims(() => ({ iat: now() + 3600, exp: now() + 7200 })),
      'old',
    ],
  ])('A-045 %s', async (_name, behaviour, kept) => {
    const { client, stored } = await refreshing(behaviour);
    const { idToken } = await stored.contents();
    const answer = await client.api('/api/echo');
    expect(answer.status).toBe(200);
    expect(room.upstream.last?.bearer).toBe([...provider.ledger.accessTokens.keys()].at(-1));
    const after = await stored.contents();
    expect(after.idToken === idToken).toBe(kept === 'old');
    expect(after.subject).toBe('alice');
    expect((await client.me()).json()).toMatchObject({ claims: { sub: 'alice' } });
    expect(provider.ledger.count('refresh')).toBe(1);
  });

  test('A-045 keys that cannot be read just now are no reason to end a session', async () => {
    const { client, stored } = await refreshing({});
    const { idToken } = await stored.contents();
    await provider.rotateKeys({ dropOld: true });
    provider.next('jwks', { status: 500, body: '' });
    expect((await client.api('/api/echo')).status).toBe(200);
    expect((await stored.contents()).idToken).toBe(idToken);
    await room.waitForEvent('refreshed_id_token_unchecked', (line) => line['handle'] === stored.handle);
  });
});
