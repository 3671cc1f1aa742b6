import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
  generateKeyPairSync,
  type KeyObject,
} from 'node:crypto';

/**
 * Hybrid Public Key Encryption, RFC 9180, in base mode and for a single message, with one suite: DHKEM(X25519, HKDF-SHA256),
 * HKDF-SHA256, AES-256-GCM. Names follow the specification.
 */

/** Bytes of a public key, and of the encapsulated key in front of a sealed message. */
export const KEY_LENGTH = 32;
const TAG_LENGTH = 16;

const KEM_SUITE = Buffer.from('KEM\x00\x20', 'latin1');
const HPKE_SUITE = Buffer.from('HPKE\x00\x20\x00\x01\x00\x02', 'latin1');
const BASE_MODE = Buffer.of(0);
const EMPTY = Buffer.alloc(0);

/** RFC 8410 section 7: what stands in front of the raw bytes of a private key in DER. */
const PKCS8_PREFIX = Buffer.from('302e020100300506032b656e04220420', 'hex');

export interface KeyPair {
  privateKey: KeyObject;
  publicKey: KeyObject;
}

/** DeriveKeyPair of section 7.1.3: the same pair for the same secret, wherever it is configured. */
export function deriveKeyPair(secret: Buffer): KeyPair {
  const prk = labeledExtract(KEM_SUITE, EMPTY, 'dkp_prk', secret);
  const raw = labeledExpand(KEM_SUITE, prk, 'sk', EMPTY, 32);
  const privateKey = createPrivateKey({
    key: Buffer.concat([PKCS8_PREFIX, raw]),
    format: 'der',
    type: 'pkcs8',
  });
  return { privateKey, publicKey: createPublicKey(privateKey) };
}

export function serializePublicKey(key: KeyObject): Buffer {
  // As a JWK: DER costs as much as the whole rest of a message.
  return Buffer.from(key.export({ format: 'jwk' }).x ?? '', 'base64url');
}

export function deserializePublicKey(raw: Buffer): KeyObject {
  const x = raw.toString('base64url');
  return createPublicKey({ key: { kty: 'OKP', crv: 'X25519', x }, format: 'jwk' });
}

export interface Message {
  /** What it is for: another purpose does not open it. */
  info: Buffer;
  /** What it is bound to. */
  aad: Buffer;
}

/**
 * @param ephemeral a pair for this one message; a new one unless told
 * @returns the encapsulated key, then the ciphertext with its tag
 * @throws when the public key is one of those that yield no secret (RFC 7748 section 6.1)
 */
export function seal(
  recipient: KeyObject,
  { info, aad }: Message,
  plaintext: Buffer,
  ephemeral: KeyPair = generateKeyPairSync('x25519'),
): Buffer {
  const enc = serializePublicKey(ephemeral.publicKey);
  const dh = diffieHellman({ privateKey: ephemeral.privateKey, publicKey: recipient });
  const secret = sharedSecret(dh, enc, serializePublicKey(recipient));
  const { key, nonce } = keySchedule(secret, info);
  const cipher = createCipheriv('aes-256-gcm', key, nonce);
  cipher.setAAD(aad);
  return Buffer.concat([enc, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
}

/** @throws when it was not sealed for this key, this purpose and this binding, or was changed since */
export function open(recipient: KeyPair, { info, aad }: Message, sealed: Buffer): Buffer {
  if (sealed.length < KEY_LENGTH + TAG_LENGTH) throw new RangeError('too short for a sealed message');
  const enc = sealed.subarray(0, KEY_LENGTH);
  const dh = diffieHellman({ privateKey: recipient.privateKey, publicKey: deserializePublicKey(enc) });
  const secret = sharedSecret(dh, enc, serializePublicKey(recipient.publicKey));
  const { key, nonce } = keySchedule(secret, info);
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_LENGTH });
  decipher.setAAD(aad);
  decipher.setAuthTag(sealed.subarray(-TAG_LENGTH));
  return Buffer.concat([decipher.update(sealed.subarray(KEY_LENGTH, -TAG_LENGTH)), decipher.final()]);
}

/** ExtractAndExpand of section 4.1. */
function sharedSecret(dh: Buffer, enc: Buffer, recipient: Buffer): Buffer {
  const prk = labeledExtract(KEM_SUITE, EMPTY, 'eae_prk', dh);
  return labeledExpand(KEM_SUITE, prk, 'shared_secret', Buffer.concat([enc, recipient]), 32);
}

/** KeySchedule of section 5.1 for the first, and here only, message. */
function keySchedule(secret: Buffer, info: Buffer): { key: Buffer; nonce: Buffer } {
  const pskIdHash = labeledExtract(HPKE_SUITE, EMPTY, 'psk_id_hash', EMPTY);
  const infoHash = labeledExtract(HPKE_SUITE, EMPTY, 'info_hash', info);
  const context = Buffer.concat([BASE_MODE, pskIdHash, infoHash]);
  const prk = labeledExtract(HPKE_SUITE, secret, 'secret', EMPTY);
  return {
    key: labeledExpand(HPKE_SUITE, prk, 'key', context, 32),
    nonce: labeledExpand(HPKE_SUITE, prk, 'base_nonce', context, 12),
  };
}

function labeledExtract(suite: Buffer, salt: Buffer, label: string, ikm: Buffer): Buffer {
  return createHmac('sha256', salt).update('HPKE-v1').update(suite).update(label).update(ikm).digest();
}

/** One block of HKDF-Expand (RFC 5869 section 2.3) is enough: nothing here is longer than 32 bytes. */
function labeledExpand(suite: Buffer, prk: Buffer, label: string, info: Buffer, length: number): Buffer {
  const block = createHmac('sha256', prk)
    .update(Buffer.of(length >> 8, length & 0xff))
    .update('HPKE-v1')
    .update(suite)
    .update(label)
    .update(info)
    .update(Buffer.of(1));
  return block.digest().subarray(0, length);
}
