import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { inParallel } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import {
  startProvider,
  type Behaviour,
  type FaultProvider,
  type KeyAlg,
  type SigningTrick,
} from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { random } from './support/random.js';
import { refusedLogin, sessionCount } from './support/refused-login.js';
import { startSink, type Sink } from './support/upstream.js';

let room: Cloakroom;
let provider: FaultProvider;
let sink: Sink;

beforeAll(async () => {
  sink = await startSink();
  provider = await startProvider();
  room = await startCloakroom({ provider });
});

beforeEach(() => {
  provider.reset({ foreignUrl: sink.url });
});

afterAll(async () => {
  expect(sink.connections).toBe(0);
  await expectLeftClean(room);
  await room.close();
});

/** From now on the provider has this one key and no other. */
async function onlyKey(alg: KeyAlg): Promise<void> {
  provider.keys.splice(0, provider.keys.length - 1);
  await provider.rotateKeys({ alg, dropOld: true });
  provider.keys.splice(0, provider.keys.length - 1);
}

async function expectRefused(behaviour: Behaviour, reason: string): Promise<void> {
  const before = await sessionCount(room);
  provider.next('token', behaviour);
  expect(await refusedLogin(room)).toMatchObject({ status: 400, event: 'id_token_rejected', reason });
  expect(await sessionCount(room)).toBe(before);
}

async function expectLogin(): Promise<void> {
  const client = await room.signedIn();
  expect((await client.me()).status).toBe(200);
}

test.each(['RS256', 'PS256', 'ES256', 'EdDSA'] as const)(
  'A-026 oidcc-client-test-idtoken-sig-%s: accepted at the first login, also when the provider signed otherwise before',
  async (alg) => {
    await onlyKey(alg);
    for (const replica of [0, 1]) {
      const client = room.client({ replica });
      expect((await client.login()).status).toBe(303);
    }
  },
);

describe('with a provider that signs with RS256', () => {
  beforeAll(() => onlyKey('RS256'));

  test.each<[string, SigningTrick, string]>([
    ['A-033 oidcc-client-test-idtoken-sig-none', 'none', 'alg'],
    ['A-033 fapi2-security-profile-final-client-test-invalid-null-alg', 'none', 'alg'],
    ['A-033 alg None', 'None', 'alg'],
    ['A-033 alg nOnE', 'nOnE', 'alg'],
    ['A-033 an empty signature', 'empty-signature', 'signature'],
    ['A-034 oidcc-client-test-invalid-sig-rs256', 'wrong-key', 'signature'],
    ['A-034 oidcc-client-test-invalid-sig-hs256 (the client secret as key)', 'hs256-client-secret', 'alg'],
    [
      'A-034 oidcc-client-test-invalid-sig-es256 with a key nobody published',
      'es256-unpublished',
      'signature',
    ],
    ['A-035 the public RSA key as HMAC secret', 'hs256-public-key', 'alg'],
    ['A-035 fapi2-security-profile-final-client-test-invalid-alternate-alg', 'rs512', 'alg'],
    ['A-035 ES256 with r = s = 0 where only RSA keys are published', 'es256-zero', 'signature'],
    ['A-036 a key in the header (jwk)', 'jwk', 'header'],
    ['A-036 the address of a key set in the header (jku)', 'jku', 'header'],
    ['A-036 the address of a certificate in the header (x5u)', 'x5u', 'header'],
    ['A-036 a certificate in the header (x5c)', 'x5c', 'header'],
    ['A-036 an unknown critical extension (crit)', 'crit', 'header'],
    ['A-036 an unencoded payload (b64: false)', 'b64-false', 'header'],
    ['A-037 a kid nobody published', 'unknown-kid', 'signature'],
  ])('%s: refused', (_name, signing, reason) => expectRefused({ signing }, reason));

  test.each<[string, Behaviour, string]>([
    ['A-033 no alg at all', { header: (header) => ({ ...header, alg: undefined }) }, 'alg'],
    ['A-033 alg null', { header: (header) => ({ ...header, alg: null }) }, 'alg'],
    ['A-033 alg in a list', { header: (header) => ({ ...header, alg: ['RS256'] }) }, 'alg'],
    ['A-035 alg in other case', { header: (header) => ({ ...header, alg: 'rs256' }) }, 'alg'],
    ['A-035 RS256 announced as PS256', { header: (header) => ({ ...header, alg: 'PS256' }) }, 'signature'],
    ['A-036 jwk null', { header: (header) => ({ ...header, jwk: null }) }, 'header'],
    ['A-037 a kid that is no text', { header: (header) => ({ ...header, kid: 5 }) }, 'malformed'],
    [
      'A-034 the signature of another token',
      { idToken: (jwt) => swapSignature(jwt, [...provider.ledger.idTokens].at(-1) ?? jwt) },
      'signature',
    ],
  ])('%s: refused', (_name, behaviour, reason) => expectRefused(behaviour, reason));

  test('A-036 the places a token names are never asked', () => {
    expect(sink.connections).toBe(0);
  });
});

test('A-034 a signature with any one bit flipped is refused, with every algorithm', async () => {
  const bits = random('flipped bits');
  for (const [alg, size] of [
    ['RS256', 2048],
    ['PS256', 2048],
    ['ES256', 512],
    ['EdDSA', 512],
  ] as const) {
    await onlyKey(alg);
    const flips = Array.from({ length: 24 }, () => bits.int(0, size - 1));
    for (const flipBit of flips) provider.next('token', { signing: { flipBit } });
    const outcomes = await inParallel(
      flips.map(() => async () => (await refusedLogin(room)).reason),
      24,
    );
    expect({ alg, outcomes: new Set(outcomes) }).toEqual({ alg, outcomes: new Set(['signature']) });
    await expectLogin();
  }
});

describe('with a provider that signs with ES256', () => {
  beforeAll(() => onlyKey('ES256'));

  test.each<[string, SigningTrick, string]>([
    ['A-034 oidcc-client-test-invalid-sig-es256', 'wrong-key', 'signature'],
    ['A-035 ES256 with r = s = 0', 'es256-zero', 'signature'],
    ['A-035 the public EC key as HMAC secret', 'hs256-public-key', 'alg'],
  ])('%s: refused', (_name, signing, reason) => expectRefused({ signing }, reason));
});

describe('A-037 the key is chosen by kid, kty, use and alg', () => {
  beforeEach(() => onlyKey('RS256'));

  test('A-037 oidcc-client-test-kid-absent-single-jwks: accepted', async () => {
    provider.next('token', { signing: 'no-kid' });
    await expectLogin();
  });

  test('A-037 oidcc-client-test-kid-absent-multiple-jwks: every key that fits is tried', async () => {
    await provider.publishExtraKey();
    await provider.publishExtraKey({ alg: 'ES256' });
    await provider.publishExtraKey();
    provider.next('token', { signing: 'no-kid' });
    await expectLogin();
  });

  test('A-037 a key set whose keys have no kid: accepted', async () => {
    await provider.publishExtraKey();
    provider.modes.jwks = ({ keys }) => ({ keys: keys.map((key) => ({ ...key, kid: undefined })) });
    await expectLogin();
  });

  test.each(['RS256', 'ES256', 'PS256', 'EdDSA'] as const)(
    'A-037 a second key (%s) with the same kid: the one that fits is found',
    async (alg) => {
      await provider.publishExtraKey({ alg, kid: provider.signingKey.kid });
      await expectLogin();
    },
  );

  test.each<[string, Record<string, unknown>]>([
    ['is for encryption', { use: 'enc' }],
    ['is for another algorithm', { alg: 'PS256' }],
    ['has another kid', { kid: 'another' }],
    ['is of another type', { kty: 'EC' }],
    ['is damaged', { n: 'AAAA' }],
    ['is symmetric', { kty: 'oct', k: 'c2VjcmV0', n: undefined, e: undefined }],
  ])('A-037 the right key is not used when the key set says that it %s', async (_name, change) => {
    provider.modes.jwks = ({ keys }) => ({ keys: keys.map((key) => ({ ...key, ...change })) });
    expect(await refusedLogin(room)).toMatchObject({ status: 400, reason: 'signature' });
  });

  test('A-037 members of the key set that are no keys do no harm', async () => {
    provider.modes.jwks = ({ keys }) => ({
      keys: [null, 'key', 7, [], {}, { kty: 'RSA' }, ...keys] as Array<Record<string, unknown>>,
    });
    await expectLogin();
  });
});

function swapSignature(jwt: string, other: string): string {
  return [...jwt.split('.').slice(0, 2), other.split('.')[2]].join('.');
}
