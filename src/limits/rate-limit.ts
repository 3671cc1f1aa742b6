import { CloakroomError } from '../errors.js';
import type { Logger } from '../observability/logger.js';
import type { SharedCounter, Store } from '../store/store.js';
import { TokenBuckets, type Rate } from './token-buckets.js';

/** Milliseconds between two lines of the log about one limit. */
const TELL_EVERY = 60_000;

/**
 * How often each caller may do one thing. This process decides by what it knows, so that nobody waits and nothing depends on
 * Redis; what it lets through is counted there too, and the answer closes the limit here when all processes together have
 * let enough through.
 */
export class RateLimit {
  readonly #name: string;
  readonly #rate: Rate;
  readonly #buckets: TokenBuckets;
  readonly #shared: SharedCounter | undefined;
  readonly #logger: Logger;
  #refused = 0;
  #tellAt = 0;

  /** @param name what is limited, for the log and for the keys in Redis */
  constructor(name: string, rate: Rate, { store, logger }: { store: Store; logger: Logger }) {
    this.#name = name;
    this.#rate = rate;
    this.#buckets = new TokenBuckets(rate);
    this.#shared = store.counter(name, rate);
    this.#logger = logger;
  }

  /**
   * Counts one.
   * @param caller what log and Redis may know: an address or a handle
   * @throws {CloakroomError} `too-many-requests`
   */
  take(caller: string): void {
    const wait = this.#buckets.take(caller);
    if (wait === 0) {
      this.#share(caller);
      return;
    }
    this.#refused += 1;
    this.#tell(caller);
    throw new CloakroomError('too-many-requests', { retryAfter: wait / 1000 });
  }

  #share(caller: string): void {
    if (this.#shared === undefined) return;
    void this.#shared.add(caller).then((sum) => {
      if (sum !== undefined && sum.count >= this.#rate.requests) this.#buckets.close(caller, sum.endsIn);
    });
  }

  /** Whoever is refused most often must not fill the log. */
  #tell(caller: string): void {
    const now = performance.now();
    if (now < this.#tellAt) return;
    this.#logger.warn('rate_limited', { limit: this.#name, caller, refused: this.#refused });
    this.#refused = 0;
    this.#tellAt = now + TELL_EVERY;
  }
}
