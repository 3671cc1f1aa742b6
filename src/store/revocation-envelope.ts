import { createHash, type KeyObject } from 'node:crypto';
import {
  deriveKeyPair,
  deserializePublicKey,
  KEY_LENGTH,
  open,
  seal,
  serializePublicKey,
  type KeyPair,
  type Message,
} from './hpke.js';

const VERSION = 1;
const KID_LENGTH = 6;

/** A refresh token, with what must be known to revoke it where it came from and nowhere else. */
export interface RevocableToken {
  provider: string;
  issuer: string;
  refreshToken: string;
}

/**
 * Refresh tokens, sealed so that the process that seals them cannot open them again: only the holder of the private key
 * can, and does so to revoke them (decision 0013). An envelope opens in its own place only: with another handle, under
 * another prefix or as another key's it stays shut.
 */
export class RevocationEnvelopes {
  /** For the processes that seal and do not open; undefined when nothing is configured. */
  readonly publicKey: string | undefined;
  readonly #info: Buffer;
  readonly #sealing: { kid: Buffer; key: KeyObject } | undefined;
  readonly #pairs: readonly { kid: Buffer; pair: KeyPair }[];

  /**
   * @param options `secrets`: a key pair comes from each; the first one's public key seals, all open. `publicKey`:
   *   base64url, of a pair whose private key is elsewhere; it seals when there are no secrets
   * @throws {TypeError} when the public key is none
   */
  constructor(options: { secrets: readonly Buffer[]; publicKey: string | undefined; prefix: string }) {
    this.#info = Buffer.from(`cloakroom/revocation/v1|${options.prefix}`, 'utf8');
    this.#pairs = options.secrets.map((secret) => {
      const pair = deriveKeyPair(secret);
      return { kid: keyId(serializePublicKey(pair.publicKey)), pair };
    });
    const [first] = this.#pairs;
    if (first !== undefined) this.#sealing = { kid: first.kid, key: first.pair.publicKey };
    else if (options.publicKey !== undefined) this.#sealing = readPublicKey(options.publicKey);
    this.publicKey = this.#sealing && serializePublicKey(this.#sealing.key).toString('base64url');
  }

  get canSeal(): boolean {
    return this.#sealing !== undefined;
  }

  get canOpen(): boolean {
    return this.#pairs.length > 0;
  }

  /** @returns undefined when no key is configured */
  seal(handle: string, from: { provider: string; issuer: string }, refreshToken: string): Buffer | undefined {
    if (this.#sealing === undefined) return undefined;
    const { kid, key } = this.#sealing;
    const contents = Buffer.from(JSON.stringify([from.provider, from.issuer, refreshToken]), 'utf8');
    return Buffer.concat([Buffer.of(VERSION), kid, seal(key, this.#bind(kid, handle), contents)]);
  }

  /** @returns undefined when it is not for one of our keys, not for this handle, or damaged */
  open(handle: string, envelope: Buffer): RevocableToken | undefined {
    if (envelope[0] !== VERSION) return undefined;
    const kid = envelope.subarray(1, 1 + KID_LENGTH);
    const pair = this.#pairs.find((candidate) => candidate.kid.equals(kid))?.pair;
    if (pair === undefined) return undefined;
    let contents: unknown;
    try {
      const opened = open(pair, this.#bind(kid, handle), envelope.subarray(1 + KID_LENGTH));
      contents = JSON.parse(opened.toString('utf8'));
    } catch {
      return undefined;
    }
    // Anybody with the public key can seal: what opens is not trusted to be ours.
    if (!Array.isArray(contents)) return undefined;
    const [provider, issuer, refreshToken] = contents as unknown[];
    if (typeof provider !== 'string' || typeof issuer !== 'string' || typeof refreshToken !== 'string') {
      return undefined;
    }
    return { provider, issuer, refreshToken };
  }

  #bind(kid: Buffer, handle: string): Message {
    return { info: this.#info, aad: Buffer.concat([Buffer.of(VERSION), kid, Buffer.from(handle, 'utf8')]) };
  }
}

function readPublicKey(text: string): { kid: Buffer; key: KeyObject } {
  const raw = Buffer.from(text, 'base64url');
  if (raw.length !== KEY_LENGTH || raw.toString('base64url') !== text) {
    throw new TypeError('the public key for revocations must be 32 bytes in base64url');
  }
  const key = deserializePublicKey(raw);
  try {
    // A few values are no keys, which shows only in use: at the start rather than at every login.
    seal(key, { info: raw, aad: raw }, raw);
  } catch (cause) {
    throw new TypeError('the public key for revocations is not one of X25519', { cause });
  }
  return { kid: keyId(raw), key };
}

function keyId(publicKey: Buffer): Buffer {
  const hash = createHash('sha256').update('cloakroom/revocation-kid/v1').update(publicKey);
  return hash.digest().subarray(0, KID_LENGTH);
}
