import { createPrivateKey, createPublicKey, randomBytes } from 'node:crypto';
import { describe, expect, test } from '@jest/globals';
import { deriveKeyPair, deserializePublicKey, open, seal, serializePublicKey } from './hpke.js';
import { RevocationEnvelopes } from './revocation-envelope.js';
import { Sealer } from './sealer.js';

describe('hpke', () => {
  // The published test vector of RFC 9180 for this suite in base mode, first message.
  const ikmE = Buffer.from('2cd7c601cefb3d42a62b04b7a9041494c06c7843818e0ce28a8f704ae7ab20f9', 'hex');
  const skRm = Buffer.from('497b4502664cfea5d5af0b39934dac72242a74f8480451e1aee7d6a53320333d', 'hex');
  const pkRm = Buffer.from('430f4b9859665145a6b1ba274024487bd66f03a2dd577d7753c68d7d7d00c00c', 'hex');
  const enc = '6c93e09869df3402d7bf231bf540fadd35cd56be14f97178f0954db94b7fc256';
  const ciphertext =
    'e5d84cd531cfb583096e7cfa9641bd3079cf3a91cda813c52deb5f512be9931980a41de125a925cdad859d5b7a';
  const message = { info: Buffer.from('Ode on a Grecian Urn'), aad: Buffer.from('Count-0') };
  const plaintext = Buffer.from('Beauty is truth, truth beauty');

  const privateKey = createPrivateKey({
    key: {
      kty: 'OKP',
      crv: 'X25519',
      d: skRm.toString('base64url'),
      x: pkRm.toString('base64url'),
    },
    format: 'jwk',
  });
  const recipient = { privateKey, publicKey: createPublicKey(privateKey) };

  test('DeriveKeyPair, encapsulation, key schedule and encryption yield the published bytes', () => {
    const ephemeral = deriveKeyPair(ikmE);
    expect(serializePublicKey(ephemeral.publicKey).toString('hex')).toBe(enc);
    const sealed = seal(deserializePublicKey(pkRm), message, plaintext, ephemeral);
    expect(sealed.toString('hex')).toBe(enc + ciphertext);
  });

  test('the published bytes open', () => {
    expect(open(recipient, message, Buffer.from(enc + ciphertext, 'hex'))).toEqual(plaintext);
  });

  test('another purpose, another binding, another key and less than a tag do not open', () => {
    const sealed = Buffer.from(enc + ciphertext, 'hex');
    const other = Buffer.from('other');
    expect(() => open(recipient, { ...message, info: other }, sealed)).toThrow();
    expect(() => open(recipient, { ...message, aad: other }, sealed)).toThrow();
    expect(() => open(deriveKeyPair(ikmE), message, sealed)).toThrow();
    expect(() => open(recipient, message, sealed.subarray(0, 47))).toThrow();
  });
});

describe('revocation envelopes', () => {
  const secret = randomBytes(32);
  const prefix = 'cloakroom';
  const from = { provider: 'main', issuer: 'https://id.example.com' };
  const token = randomBytes(48).toString('base64url');
  const both = new RevocationEnvelopes({ secrets: [secret], publicKey: undefined, prefix });
  const publicOnly = new RevocationEnvelopes({ secrets: [], publicKey: both.publicKey, prefix });

  const sealed = (envelopes: RevocationEnvelopes, handle = 'handle-a'): Buffer =>
    envelopes.seal(handle, from, token) ?? Buffer.alloc(0);

  test('whoever has the public key seals, whoever has the secret opens', () => {
    expect([both.canSeal, both.canOpen, publicOnly.canSeal, publicOnly.canOpen]).toEqual([
      true,
      true,
      true,
      false,
    ]);
    expect(both.publicKey).toMatch(/^[\w-]{43}$/);
    expect(publicOnly.publicKey).toBe(both.publicKey);
    const expected = { ...from, refreshToken: token };
    expect(both.open('handle-a', sealed(publicOnly))).toEqual(expected);
    expect(both.open('handle-a', sealed(both))).toEqual(expected);
  });

  test('whoever has only the public key cannot open what it sealed, nor can the server key', () => {
    const envelope = sealed(publicOnly);
    expect(publicOnly.open('handle-a', envelope)).toBeUndefined();
    const sealer = new Sealer([secret], prefix);
    expect(sealer.open(secret, { type: 'session', id: 'handle-a', generation: 1 }, '', envelope)).toBe(
      'unknown-key',
    );
    const server = new RevocationEnvelopes({ secrets: [randomBytes(32)], publicKey: undefined, prefix });
    expect(server.open('handle-a', envelope)).toBeUndefined();
  });

  test('without a key nothing is sealed', () => {
    const none = new RevocationEnvelopes({ secrets: [], publicKey: undefined, prefix });
    expect([none.canSeal, none.canOpen, none.publicKey]).toEqual([false, false, undefined]);
    expect(none.seal('handle-a', from, token)).toBeUndefined();
    expect(none.open('handle-a', sealed(both))).toBeUndefined();
  });

  test('an envelope moved to another handle or another prefix does not open', () => {
    const envelope = sealed(both);
    expect(both.open('handle-b', envelope)).toBeUndefined();
    const elsewhere = new RevocationEnvelopes({ secrets: [secret], publicKey: undefined, prefix: 'other' });
    expect(elsewhere.open('handle-a', envelope)).toBeUndefined();
  });

  test('no changed byte goes unnoticed, nor a cut', () => {
    const envelope = sealed(both);
    for (let at = 0; at < envelope.length; at += 1) {
      const changed = Buffer.from(envelope);
      changed.writeUInt8(envelope.readUInt8(at) ^ (1 << (at % 8)), at);
      expect([at, both.open('handle-a', changed)]).toEqual([at, undefined]);
    }
    for (const length of [0, 1, 6, 7, 38, 39, 54, envelope.length - 1]) {
      expect(both.open('handle-a', envelope.subarray(0, length))).toBeUndefined();
    }
    // A point that yields no secret, in place of the sender's key.
    const zero = Buffer.from(envelope).fill(0, 7, 39);
    expect(both.open('handle-a', zero)).toBeUndefined();
  });

  test('no two envelopes of the same token are alike, and none shows it', () => {
    const first = sealed(both);
    expect(first.equals(sealed(both))).toBe(false);
    expect(first.subarray(1, 7).equals(sealed(both).subarray(1, 7))).toBe(true);
    expect(first.includes(token.slice(0, 12))).toBe(false);
    expect(first.includes(from.provider)).toBe(false);
  });

  test('after a rotation the first secret seals, and both open', () => {
    const next = randomBytes(32);
    const rotated = new RevocationEnvelopes({ secrets: [next, secret], publicKey: undefined, prefix });
    expect(rotated.publicKey).not.toBe(both.publicKey);
    expect(rotated.open('handle-a', sealed(both))?.refreshToken).toBe(token);
    expect(rotated.open('handle-a', sealed(rotated))?.refreshToken).toBe(token);
    expect(both.open('handle-a', sealed(rotated))).toBeUndefined();
    const dropped = new RevocationEnvelopes({ secrets: [next], publicKey: undefined, prefix });
    expect(dropped.open('handle-a', sealed(both))).toBeUndefined();
  });

  test('what somebody else sealed with the public key is looked at before it is believed', () => {
    const key = deserializePublicKey(Buffer.from(both.publicKey ?? '', 'base64url'));
    const kid = sealed(both).subarray(1, 7);
    const aad = Buffer.concat([Buffer.of(1), kid, Buffer.from('handle-a')]);
    const info = Buffer.from('cloakroom/revocation/v1|cloakroom');
    const forged = (contents: string): Buffer =>
      Buffer.concat([Buffer.of(1), kid, seal(key, { info, aad }, Buffer.from(contents))]);
    for (const contents of ['', '{', 'null', '{}', '[]', '["a","b"]', '["a","b",1]', '[1,"b","c"]']) {
      expect(both.open('handle-a', forged(contents))).toBeUndefined();
    }
    expect(both.open('handle-a', forged('["a","b","c"]'))?.refreshToken).toBe('c');
  });

  test.each([
    ['nothing', ''],
    ['too short', randomBytes(31).toString('base64url')],
    ['too long', randomBytes(33).toString('base64url')],
    ['not base64url', `${'A'.repeat(42)}!`],
    ['in another alphabet', Buffer.alloc(32, 0xff).toString('base64')],
    ['no point that yields a secret', Buffer.alloc(32).toString('base64url')],
  ])('a public key that is none is refused at the start: %s', (_, publicKey) => {
    expect(() => new RevocationEnvelopes({ secrets: [], publicKey, prefix })).toThrow(TypeError);
  });
});
