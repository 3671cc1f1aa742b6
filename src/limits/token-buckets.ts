/** Keys remembered at once; beyond that the one that was quiet for longest is forgotten. */
const MOST = 10_000;

/** So many requests in so much time. */
export interface Rate {
  readonly requests: number;
  /** Milliseconds. */
  readonly per: number;
}

interface Bucket {
  left: number;
  filledAt: number;
  /** Nothing is taken before, whatever is left. */
  closedUntil: number;
}

/** So many in a period for each key, and as many at once when it was quiet before. */
export class TokenBuckets {
  readonly #rate: Rate;
  readonly #buckets = new Map<string, Bucket>();

  constructor(rate: Rate) {
    this.#rate = rate;
  }

  /** @returns 0 when there was one left, which is now taken; otherwise milliseconds until there is one */
  take(key: string, now = performance.now()): number {
    const bucket = this.#bucket(key, now);
    const wait = this.#untilOne(bucket, now);
    if (wait === 0) bucket.left -= 1;
    return wait;
  }

  /** Takes so many even where they are not there. @returns milliseconds until what was taken too early is made up for */
  spend(key: string, count: number, now = performance.now()): number {
    const bucket = this.#bucket(key, now);
    bucket.left -= count;
    return Math.max(0, (-bucket.left * this.#rate.per) / this.#rate.requests);
  }

  /** As {@link take}, but takes none. */
  wait(key: string, now = performance.now()): number {
    return this.#untilOne(this.#bucket(key, now), now);
  }

  /** Leaves nothing for a while, because others have taken it. @param duration milliseconds */
  close(key: string, duration: number, now = performance.now()): void {
    const bucket = this.#bucket(key, now);
    bucket.closedUntil = Math.max(bucket.closedUntil, now + Math.min(duration, this.#rate.per));
  }

  #bucket(key: string, now: number): Bucket {
    const { requests, per } = this.#rate;
    const bucket = this.#buckets.get(key) ?? { left: requests, filledAt: now, closedUntil: 0 };
    const gained = (Math.max(0, now - bucket.filledAt) / per) * requests;
    bucket.left = Math.min(requests, bucket.left + gained);
    bucket.filledAt = now;
    // To the end of the order, so that the first is always the one that was quiet for longest.
    this.#buckets.delete(key);
    this.#buckets.set(key, bucket);
    if (this.#buckets.size > MOST) {
      const [quietest] = this.#buckets.keys();
      if (quietest !== undefined) this.#buckets.delete(quietest);
    }
    return bucket;
  }

  #untilOne({ left, closedUntil }: Bucket, now: number): number {
    const { requests, per } = this.#rate;
    return Math.max(closedUntil - now, left < 1 ? ((1 - left) * per) / requests : 0, 0);
  }
}
