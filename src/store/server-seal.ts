import { hkdfSync } from 'node:crypto';
import { Sealer, type SealContext } from './sealer.js';

const NO_SECRET = Buffer.alloc(0);

/**
 * Seals what must be readable without anybody's cookie: a copy of the store tells nothing, whoever has a server key as well
 * can read it. No token is ever sealed this way.
 */
export class ServerSeal {
  readonly #sealer: Sealer;

  constructor(sealer: Sealer) {
    this.#sealer = sealer;
  }

  seal(type: SealContext['type'], id: string, contents: unknown): Buffer {
    const { kid, sealed } = this.#sealer.seal(NO_SECRET, { type, id, generation: 0 }, contents);
    return Buffer.concat([Buffer.from(`${kid}.`), sealed]);
  }

  /** @returns undefined for what is not there, is damaged, was moved, or was sealed under a key we no longer accept */
  open(type: SealContext['type'], id: string, value: Buffer | undefined): unknown {
    if (value === undefined) return undefined;
    const dot = value.indexOf('.');
    const kid = value.subarray(0, Math.max(0, dot)).toString('latin1');
    const contents = this.#sealer.open(NO_SECRET, { type, id, generation: 0 }, kid, value.subarray(dot + 1));
    return typeof contents === 'object' && contents !== null ? contents : undefined;
  }
}

/** Keys that hide which person or provider session an index is about; one for each server key, the first in use. */
export function indexKeys(secrets: readonly Buffer[], prefix: string): Buffer[] {
  return secrets.map((secret) =>
    Buffer.from(hkdfSync('sha256', NO_SECRET, secret, `cloakroom/index/v1|${prefix}`, 32)),
  );
}
