/** Keys remembered at once; beyond that the one that was quiet for longest is forgotten. */
const MOST = 10_000;

interface Bucket {
  left: number;
  filledAt: number;
}

/** So many in a minute for each key, and as many at once when it was quiet before. */
export class RateLimit {
  readonly #perMinute: number;
  readonly #buckets = new Map<string, Bucket>();

  constructor(perMinute: number) {
    this.#perMinute = perMinute;
  }

  /** @returns 0 when there was one left, which is now taken; otherwise seconds until there is one */
  take(key: string, now = Date.now()): number {
    const bucket = this.#bucket(key, now);
    if (bucket.left < 1) return this.#secondsUntilOne(bucket);
    bucket.left -= 1;
    return 0;
  }

  /** As {@link take}, but takes none. */
  wait(key: string, now = Date.now()): number {
    const bucket = this.#bucket(key, now);
    return bucket.left < 1 ? this.#secondsUntilOne(bucket) : 0;
  }

  #bucket(key: string, now: number): Bucket {
    const bucket = this.#buckets.get(key) ?? { left: this.#perMinute, filledAt: now };
    const gained = (Math.max(0, now - bucket.filledAt) / 60_000) * this.#perMinute;
    bucket.left = Math.min(this.#perMinute, bucket.left + gained);
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

  #secondsUntilOne({ left }: Bucket): number {
    return Math.ceil(((1 - left) * 60) / this.#perMinute);
  }
}
