import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import * as client from 'openid-client';
import {
  faults,
  startProvider,
  type Behaviour,
  type FaultProvider,
  type SigningTrick,
} from './fault-provider.js';

// The rig's provider against a relying-party library that has nothing to do with Cloakroom: what is correct must pass
// there, and what is made wrong must be wrong.

// eslint-disable-next-line @typescript-eslint/no-deprecated -- marked so to stand out; the provider is on loopback
const insecure = client.allowInsecureRequests;

let provider: FaultProvider;

const redirectUri = 'https://app.example.test/auth/callback';

async function discover(authentication?: client.ClientAuth): Promise<client.Configuration> {
  return await client.discovery(
    new URL(provider.issuer),
    provider.clientId,
    {},
    authentication ?? client.ClientSecretBasic(provider.clientSecret),
    { execute: [insecure, client.enableNonRepudiationChecks] },
  );
}

async function login(
  config: client.Configuration,
): Promise<client.TokenEndpointResponse & client.TokenEndpointResponseHelpers> {
  const verifier = client.randomPKCECodeVerifier();
  const state = client.randomState();
  const nonce = client.randomNonce();
  const url = client.buildAuthorizationUrl(config, {
    redirect_uri: redirectUri,
    scope: 'openid offline_access',
    code_challenge: await client.calculatePKCECodeChallenge(verifier),
    code_challenge_method: 'S256',
    state,
    nonce,
  });
  const answer = await fetch(url, { redirect: 'manual' });
  const callback = new URL(answer.headers.get('location') ?? '');
  return await client.authorizationCodeGrant(config, callback, {
    pkceCodeVerifier: verifier,
    expectedState: state,
    expectedNonce: nonce,
    idTokenExpected: true,
  });
}

beforeAll(async () => {
  provider = await startProvider();
});

beforeEach(() => {
  provider.reset();
  provider.ledger.resetCounts();
});

afterAll(() => provider.close());

test('a login, userinfo, a refresh and a revocation pass', async () => {
  const config = await discover();
  const tokens = await login(config);
  expect(tokens.claims()?.sub).toBe('alice');
  const userinfo = await client.fetchUserInfo(config, tokens.access_token, 'alice');
  expect(userinfo.email).toBe('alice@example.test');
  const fresh = await client.refreshTokenGrant(config, tokens.refresh_token ?? '');
  expect(fresh.refresh_token).not.toBe(tokens.refresh_token);
  expect(provider.ledger.liveRefreshTokens()).toHaveLength(1);
  await client.tokenRevocation(config, fresh.refresh_token ?? '');
  expect(provider.ledger.liveRefreshTokens()).toHaveLength(0);
  expect(provider.ledger.validAccessToken(fresh.access_token)).toBeUndefined();
  expect(provider.ledger.secrets()).toEqual(expect.arrayContaining([fresh.access_token, tokens.id_token]));
});

test.each(['RS256', 'PS256', 'ES256', 'EdDSA'] as const)('tokens signed with %s pass', async (alg) => {
  await provider.rotateKeys({ alg, dropOld: true });
  const config = await discover();
  config.serverMetadata();
  const ready = await client.discovery(
    new URL(provider.issuer),
    provider.clientId,
    { id_token_signed_response_alg: alg },
    client.ClientSecretPost(provider.clientSecret),
    { execute: [insecure, client.enableNonRepudiationChecks] },
  );
  expect((await login(ready)).claims()?.sub).toBe('alice');
  await provider.rotateKeys({ alg: 'RS256', dropOld: true });
});

test.each<SigningTrick>([
  'none',
  'None',
  'nOnE',
  'wrong-key',
  'hs256-public-key',
  'hs256-client-secret',
  'es256-unpublished',
  'es256-zero',
  'rs512',
  'unknown-kid',
  'empty-signature',
  'jwk',
  'jku',
  'x5u',
  'x5c',
  'crit',
  'b64-false',
  { flipBit: 7 },
])('an ID token made with %j is refused', async (signing) => {
  const config = await discover();
  provider.next('token', { signing });
  await expect(login(config)).rejects.toThrow();
});

test('an ID token without kid passes while one key is published', async () => {
  const config = await discover();
  provider.next('token', { signing: 'no-kid' });
  await expect(login(config)).resolves.toBeDefined();
});

test.each<[string, Behaviour]>([
  ['another issuer', { claims: (claims) => ({ ...claims, iss: 'https://other.example.test' }) }],
  ['another audience', { claims: (claims) => ({ ...claims, aud: 'other' }) }],
  ['no subject', { claims: (claims) => ({ ...claims, sub: undefined }) }],
  ['another nonce', { claims: (claims) => ({ ...claims, nonce: 'other' }) }],
  ['expired', { claims: (claims) => ({ ...claims, exp: 1 }) }],
  ['half a JSON', { half: true }],
  ['HTML', faults.html],
  ['a reset', faults.reset],
  ['invalid_client', faults.invalidClient],
])('a token response with %s is refused', async (_name, behaviour) => {
  const config = await discover();
  provider.next('token', behaviour);
  await expect(login(config)).rejects.toThrow();
});

test('a wrong verifier, a wrong secret and a code used twice are refused', async () => {
  await expect(login(await discover(client.ClientSecretBasic('wrong')))).rejects.toMatchObject({
    error: 'invalid_client',
  });
  const config = await discover();
  const url = client.buildAuthorizationUrl(config, {
    redirect_uri: redirectUri,
    scope: 'openid',
    code_challenge: await client.calculatePKCECodeChallenge('right'),
    code_challenge_method: 'S256',
  });
  const answer = await fetch(url, { redirect: 'manual' });
  const callback = new URL(answer.headers.get('location') ?? '');
  for (const verifier of ['wrong', 'right']) {
    await expect(
      client.authorizationCodeGrant(config, callback, { pkceCodeVerifier: verifier }),
    ).rejects.toMatchObject({ error: 'invalid_grant' });
  }
});

test('a client secret with special characters is read form-encoded', async () => {
  const odd = await startProvider({ clientId: 'id:with%+ é', clientSecret: 'se:cret%2B+ ü&=0123456789' });
  odd.modes.clientAuth = 'basic';
  const config = await client.discovery(
    new URL(odd.issuer),
    odd.clientId,
    {},
    client.ClientSecretBasic(odd.clientSecret),
    { execute: [insecure] },
  );
  await expect(client.refreshTokenGrant(config, 'unknown')).rejects.toMatchObject({ error: 'invalid_grant' });
  expect(odd.ledger.clientAuthentications).toEqual(['basic']);
  await odd.close();
});

describe('rotation', () => {
  test('strict: a second use kills the family, the fresh tokens too', async () => {
    const config = await discover();
    const tokens = await login(config);
    const fresh = await client.refreshTokenGrant(config, tokens.refresh_token ?? '');
    await expect(client.refreshTokenGrant(config, tokens.refresh_token ?? '')).rejects.toMatchObject({
      error: 'invalid_grant',
    });
    await expect(client.refreshTokenGrant(config, fresh.refresh_token ?? '')).rejects.toMatchObject({
      error: 'invalid_grant',
    });
    expect(provider.ledger.doubleSpends).toHaveLength(1);
    expect(provider.ledger.validAccessToken(fresh.access_token)).toBeUndefined();
  });

  test('leeway: the previous token passes again, an older one does not', async () => {
    provider.modes.rotation = { leeway: 5_000 };
    const config = await discover();
    const first = (await login(config)).refresh_token ?? '';
    const second = (await client.refreshTokenGrant(config, first)).refresh_token ?? '';
    await expect(client.refreshTokenGrant(config, first)).resolves.toBeDefined();
    await client.refreshTokenGrant(config, second);
    expect(provider.ledger.doubleSpends.map((spend) => spend.accepted)).toEqual([true]);
  });

  test('none: no refresh token in the answer, the old one stays good', async () => {
    provider.modes.rotation = 'none';
    const config = await discover();
    const first = (await login(config)).refresh_token ?? '';
    for (let round = 0; round < 3; round += 1) {
      expect((await client.refreshTokenGrant(config, first)).refresh_token).toBeUndefined();
    }
    expect(provider.ledger.doubleSpends).toEqual([]);
  });

  test('delete_on_use: calls that arrive together all win', async () => {
    provider.modes.rotation = 'delete_on_use';
    provider.modes.refusal = '401-non-oauth';
    const config = await discover();
    const first = (await login(config)).refresh_token ?? '';
    provider.next('refresh', { delay: 50, times: 2 });
    await expect(
      Promise.all([client.refreshTokenGrant(config, first), client.refreshTokenGrant(config, first)]),
    ).resolves.toHaveLength(2);
    expect(provider.ledger.highWater('refresh')).toBe(2);
    await expect(client.refreshTokenGrant(config, first)).rejects.toThrow();
  });
});

test('it answers hundreds of refreshes a second', async () => {
  provider.modes.rotation = 'none';
  const { refresh_token: token = '' } = await login(await discover());
  const body = new URLSearchParams({
    grant_type: 'refresh_token',
    refresh_token: token,
    client_id: provider.clientId,
    client_secret: provider.clientSecret,
  });
  const began = Date.now();
  for (let batch = 0; batch < 10; batch += 1) {
    const answers = await Promise.all(
      Array.from({ length: 50 }, () => fetch(`${provider.issuer}/token`, { method: 'POST', body })),
    );
    for (const answer of answers) {
      expect(answer.status).toBe(200);
      await answer.arrayBuffer();
    }
  }
  const perSecond = 500 / ((Date.now() - began) / 1000);
  expect(perSecond).toBeGreaterThan(100);
  process.stderr.write(`provider: ${perSecond.toFixed(0)} refreshes/s\n`);
});

test('stop and start keep the port and what was issued', async () => {
  const config = await discover();
  const tokens = await login(config);
  const { issuer } = provider;
  await provider.stop();
  await expect(client.refreshTokenGrant(config, tokens.refresh_token ?? '')).rejects.toThrow();
  await provider.start();
  expect(provider.issuer).toBe(issuer);
  await expect(client.refreshTokenGrant(config, tokens.refresh_token ?? '')).resolves.toBeDefined();
});
