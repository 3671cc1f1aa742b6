import { createPublicKey, diffieHellman, generateKeyPairSync } from 'node:crypto';

/**
 * Whether this is the base64url of an X25519 public key that a secret can be agreed with. The points of small order
 * pass for keys in every other way, and would make the secret known to everybody (RFC 7748 section 6.1).
 */
export function isAgreementKey(text: string): boolean {
  const bytes = Buffer.from(text, 'base64url');
  if (bytes.length !== 32 || bytes.toString('base64url') !== text) return false;
  try {
    const publicKey = createPublicKey({ key: { kty: 'OKP', crv: 'X25519', x: text }, format: 'jwk' });
    const { privateKey } = generateKeyPairSync('x25519');
    return diffieHellman({ privateKey, publicKey }).some((byte) => byte !== 0);
  } catch {
    return false;
  }
}
