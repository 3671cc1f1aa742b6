import { createHash } from 'node:crypto';
import type { Sealer } from './sealer.js';
import type { Store } from './store.js';

export type OnceKind = 'login' | 'logout';

/** Records that are used up by reading them, sealed with what only one browser brings back. */
export class OnceRecords {
  readonly #store: Store;
  readonly #sealer: Sealer;

  constructor(store: Store, sealer: Sealer) {
    this.#store = store;
    this.#sealer = sealer;
  }

  /**
   * @param secret what the reader must bring; neither it nor anything that opens the record is stored
   * @param ttl milliseconds
   */
  async put(kind: OnceKind, secret: string, contents: unknown, ttl: number): Promise<void> {
    const id = recordId(kind, secret);
    const { kid, sealed } = this.#sealer.seal(
      Buffer.from(secret),
      { type: kind, id, generation: 1 },
      contents,
    );
    await this.#store.put(kind, id, Buffer.concat([Buffer.from(`${kid}.`), sealed]), ttl);
  }

  /** Takes the record; of many callers at once one gets it, the others undefined, as with a record that does not open. */
  async take(kind: OnceKind, secret: string): Promise<unknown> {
    const id = recordId(kind, secret);
    const value = await this.#store.take(kind, id);
    if (value === undefined) return undefined;
    const dot = value.indexOf('.');
    const kid = value.subarray(0, Math.max(0, dot)).toString('latin1');
    const contents = this.#sealer.open(
      Buffer.from(secret),
      { type: kind, id, generation: 1 },
      kid,
      value.subarray(dot + 1),
    );
    return typeof contents === 'object' && contents !== null ? contents : undefined;
  }
}

function recordId(kind: OnceKind, secret: string): string {
  return createHash('sha256').update(`cloakroom/${kind}/v1`).update(secret).digest('base64url');
}
