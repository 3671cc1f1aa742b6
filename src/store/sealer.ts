import { createCipheriv, createDecipheriv, createHash, hkdfSync, randomBytes } from 'node:crypto';
import type { RecordKind } from './store.js';

const NONCE = 12;
const TAG = 16;

/** What a sealed record is bound to: none of it can be changed without the record failing to open. */
export interface SealContext {
  type: 'session' | 'about' | RecordKind;
  /** The record's own place: the handle of a session, the id of a one-time record. */
  id: string;
  generation: number;
}

interface Key {
  kid: string;
  key: Buffer;
  /** Derived for records without a browser's secret; the others' keys are never kept. */
  alone?: Buffer;
}

/**
 * Seals records so that the store alone, the server's key alone and even both without the browser's secret are worthless.
 * AES-256-GCM with a random nonce; the key comes from HKDF-SHA-256 (RFC 5869) over the browser's secret with the server's
 * key as salt.
 */
export class Sealer {
  readonly #keys: readonly [Key, ...Key[]];
  readonly #info: string;

  /**
   * @param secrets server keys, at least 32 bytes each: the first seals, all open
   * @param prefix the application's place in the store; a record moved to another prefix does not open
   */
  constructor(secrets: readonly Buffer[], prefix: string) {
    const [first, ...rest] = secrets.map((key) => ({ kid: keyId(key), key }));
    if (first === undefined) throw new TypeError('a Sealer needs at least one key');
    this.#keys = [first, ...rest];
    this.#info = `cloakroom/seal/v1|${prefix}`;
  }

  seal(secret: Buffer, context: SealContext, contents: unknown): { kid: string; sealed: Buffer } {
    const [first] = this.#keys;
    const { kid } = first;
    const nonce = randomBytes(NONCE);
    const cipher = createCipheriv('aes-256-gcm', this.#derive(secret, first), nonce);
    cipher.setAAD(this.#bind(kid, context));
    const body = Buffer.concat([cipher.update(JSON.stringify(contents), 'utf8'), cipher.final()]);
    return { kid, sealed: Buffer.concat([nonce, body, cipher.getAuthTag()]) };
  }

  /** @returns the contents; `unknown-key` when the server key is not among ours; `broken` for everything else */
  open(secret: Buffer, context: SealContext, kid: string, sealed: Buffer): unknown {
    const key = this.#keys.find((candidate) => candidate.kid === kid);
    if (key === undefined) return 'unknown-key';
    if (sealed.length < NONCE + TAG) return 'broken';
    const decipher = createDecipheriv('aes-256-gcm', this.#derive(secret, key), sealed.subarray(0, NONCE));
    decipher.setAAD(this.#bind(kid, context));
    decipher.setAuthTag(sealed.subarray(-TAG));
    try {
      const body = decipher.update(sealed.subarray(NONCE, -TAG));
      // In this mode all of it has come out; what remains is the check of the tag.
      decipher.final();
      return JSON.parse(body.toString('utf8')) as unknown;
    } catch {
      return 'broken';
    }
  }

  #derive(secret: Buffer, key: Key): Buffer {
    if (secret.length > 0) return Buffer.from(hkdfSync('sha256', secret, key.key, this.#info, 32));
    return (key.alone ??= Buffer.from(hkdfSync('sha256', secret, key.key, `${this.#info}|server`, 32)));
  }

  #bind(kid: string, context: SealContext): Buffer {
    return Buffer.from(
      `${this.#info}|${kid}|${context.type}|${context.id}|${String(context.generation)}`,
      'utf8',
    );
  }
}

function keyId(key: Buffer): string {
  return createHash('sha256').update('cloakroom/kid/v1').update(key).digest('base64url').slice(0, 8);
}
