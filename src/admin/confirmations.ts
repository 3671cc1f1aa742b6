import { createHash, randomBytes } from 'node:crypto';
import { CloakroomError } from '../errors.js';
import type { ServerSeal } from '../store/server-seal.js';
import type { Store } from '../store/store.js';

const VALID_FOR = 5 * 60_000;
/** Milliseconds for which the same idempotency key is the same request; as long as an ending is remembered. */
const REMEMBERED_FOR = 24 * 3_600_000;

/** What makes an act deliberate: the second step of a big one, and the memory that a repeated request is no new one. */
export class Confirmations {
  readonly #store: Store;
  readonly #seal: ServerSeal;

  constructor(store: Store, seal: ServerSeal) {
    this.#store = store;
    this.#seal = seal;
  }

  /** A code that lets this operator do exactly this, once and soon. */
  async ask(operator: string, act: unknown): Promise<string> {
    const code = randomBytes(9).toString('base64url');
    const id = recordId('code', operator, code);
    const record = this.#seal.seal('confirmation', id, { act: fingerprint(act) });
    await this.#store.put('confirmation', id, record, VALID_FOR);
    return code;
  }

  /** @throws {CloakroomError} `forbidden` without a code, or with one for something else */
  async require(operator: string, act: unknown, code: string | undefined): Promise<void> {
    const id = recordId('code', operator, code ?? '');
    const record = this.#seal.open('confirmation', id, await this.#store.take('confirmation', id));
    if (code !== undefined && (record as { act?: unknown } | undefined)?.act === fingerprint(act)) return;
    throw new CloakroomError('forbidden', {
      public: {
        reason: 'confirmation',
        detail: 'Send the same with "dryRun": true first, then with the "confirm" of its answer.',
      },
    });
  }

  /**
   * @returns whether this operator has sent this under this key before
   * @throws {CloakroomError} `bad-request` when it was something else
   */
  async isRepeated(operator: string, key: string, act: unknown): Promise<boolean> {
    const id = recordId('key', operator, key);
    const record = this.#seal.seal('confirmation', id, { act: fingerprint(act) });
    if (await this.#store.putNew('confirmation', id, record, REMEMBERED_FOR)) return false;
    const before = this.#seal.open('confirmation', id, await this.#store.get('confirmation', id));
    if ((before as { act?: unknown } | undefined)?.act === fingerprint(act)) return true;
    throw new CloakroomError('bad-request', {
      public: { reason: 'idempotency-key', detail: 'This Idempotency-Key was used for something else.' },
    });
  }
}

function recordId(use: 'code' | 'key', operator: string, text: string): string {
  return createHash('sha256')
    .update('cloakroom/confirmation/v1')
    .update(JSON.stringify([use, operator, text]))
    .digest('base64url');
}

function fingerprint(act: unknown): string {
  return createHash('sha256').update(JSON.stringify(act)).digest('base64url');
}
