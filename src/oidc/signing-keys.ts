import { setTimeout as sleep } from 'node:timers/promises';
import { importJWK, type CryptoKey, type JWK } from 'jose';
import { Allowance } from './allowance.js';
import { ProviderCallError, type Fetch } from './provider-fetch.js';

type Key = CryptoKey | Uint8Array;

/** Readings that may follow each other at once, and how long one of them takes to come back (milliseconds). */
const READINGS = { most: 10, refill: 1000 };
/** The same for tokens that anybody can send. A provider's rotations come seldom, and few at once. */
const FOR_ANYBODY = { most: 6, refill: 10_000 };
/** Keys older than this are read again before they are trusted further. */
const MAX_AGE = 10 * 60 * 1000;

const KEY_TYPE: Record<string, string> = { RS: 'RSA', PS: 'RSA', ES: 'EC', Ed: 'OKP' };

/**
 * The provider's signing keys, read again when a token cannot be verified with the ones at hand: a rotation must be seen
 * at the first login after it, also when a key id was used again for a new key.
 */
export class SigningKeys {
  readonly #fetch: Fetch;
  readonly #timeout: number;
  #keys: readonly JWK[] = [];
  #uri = '';
  /** When the reading that brought the keys began. */
  #asOf = -Infinity;
  #reading: Promise<void> | undefined;
  readonly #readings = new Allowance(READINGS.most, READINGS.refill);
  readonly #forAnybody = new Allowance(FOR_ANYBODY.most, FOR_ANYBODY.refill);
  readonly #imported = new WeakMap<JWK, Map<string, Promise<Key>>>();

  /** @param timeout milliseconds for one read of the key set */
  constructor(fetch: Fetch, timeout: number) {
    this.#fetch = fetch;
    this.#timeout = timeout;
  }

  /**
   * Tries the keys that fit a token's header, and once more with freshly read keys when none does.
   *
   * @param verify fails when the key is not the right one
   * @param from whether the token came from the provider itself or can have been sent by anybody, for whose tokens keys are
   *   read a few times at once, and then every 10 s
   * @throws whatever the last try failed with, or an error that says that no key fits
   */
  async withKeys<T>(
    uri: string,
    header: { alg: string; kid?: string },
    verify: (key: Key) => Promise<T>,
    from: 'provider' | 'anybody' = 'provider',
  ): Promise<T> {
    const since = performance.now();
    const stale = uri !== this.#uri || since - this.#asOf > MAX_AGE;
    const mayRead = (): boolean => from === 'provider' || this.#mayReadForAnybody();
    if (stale && mayRead()) {
      await this.#readOnce(uri).catch((error: unknown) => {
        // Old keys of the same place may still do; only a token that they do not fit needs the reading.
        if (uri !== this.#uri) throw error;
      });
    } else if (uri !== this.#uri) {
      throw new ProviderCallError('the key set could not be read a moment ago', { sent: false });
    }
    for (;;) {
      const asOf = this.#asOf;
      let failure: unknown;
      try {
        return await this.#tryAll(header, verify);
      } catch (error) {
        // These keys were asked for with the token at hand: no rotation can be hidden behind them.
        if (asOf >= since) throw error;
        failure = error;
      }
      // Others may have brought newer keys while these were tried.
      if (asOf !== this.#asOf) continue;
      if (!mayRead()) throw failure;
      await this.#readOnce(uri);
    }
  }

  /** To join a reading that is under way costs the provider nothing. */
  #mayReadForAnybody(): boolean {
    return this.#reading !== undefined || this.#forAnybody.take() === 0;
  }

  async #tryAll<T>(header: { alg: string; kid?: string }, verify: (key: Key) => Promise<T>): Promise<T> {
    const fitting = this.#keys.filter((jwk) => fits(jwk, header));
    let failure: unknown = new Error('the key set holds no key that fits the token');
    for (const jwk of fitting) {
      try {
        return await verify(await this.#import(jwk, header.alg));
      } catch (error) {
        failure = error;
      }
    }
    throw failure;
  }

  #import(jwk: JWK, alg: string): Promise<Key> {
    const byAlg = this.#imported.get(jwk) ?? new Map<string, Promise<Key>>();
    this.#imported.set(jwk, byAlg);
    const known = byAlg.get(alg) ?? importJWK(jwk, alg);
    byAlg.set(alg, known);
    return known;
  }

  /** Joins a reading under way; it may have begun before a rotation, so the caller looks and comes again. */
  async #readOnce(uri: string): Promise<void> {
    this.#reading ??= this.#pace()
      .then(() => this.#read(uri))
      .catch((error: unknown) => {
        // Nothing was learned from it: the next token may ask at the usual pace.
        this.#forAnybody.giveBack();
        throw error;
      })
      .finally(() => {
        this.#reading = undefined;
      });
    await this.#reading;
  }

  /** Tokens that nobody's key fits must not make us a burden to the provider: all that came meanwhile wait together. */
  async #pace(): Promise<void> {
    for (let wait = this.#readings.take(); wait > 0; wait = this.#readings.take()) await sleep(wait);
  }

  async #read(uri: string): Promise<void> {
    const startedAt = performance.now();
    const response = await this.#fetch(uri, {
      headers: { accept: 'application/json, application/jwk-set+json' },
      signal: AbortSignal.timeout(this.#timeout),
    });
    const document: unknown =
      response.status === 200 ? await response.json().catch(() => undefined) : undefined;
    const keys = (document as { keys?: unknown } | undefined)?.keys;
    if (!Array.isArray(keys)) throw new ProviderCallError('the key set cannot be read', { sent: true });
    this.#keys = keys.filter((key): key is JWK => typeof key === 'object' && key !== null);
    this.#uri = uri;
    this.#asOf = startedAt;
  }
}

function fits(jwk: JWK, header: { alg: string; kid?: string }): boolean {
  if (jwk.kty !== KEY_TYPE[header.alg.slice(0, 2)]) return false;
  if (header.kid !== undefined && jwk.kid !== undefined && jwk.kid !== header.kid) return false;
  if (jwk.use !== undefined && jwk.use !== 'sig') return false;
  return jwk.alg === undefined || jwk.alg === header.alg;
}
