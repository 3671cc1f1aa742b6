import { Transform, type TransformCallback } from 'node:stream';
import { TokenBuckets } from '../limits/token-buckets.js';

/**
 * Counts bytes that have just been moved for one session.
 * @returns milliseconds until it may move more
 */
export type Spend = (bytes: number) => number;

/** How many bytes a second one session may move on a route, both ways and over all that it has under way in this process. */
export class Bandwidth {
  readonly #buckets: TokenBuckets;

  constructor(bytesPerSecond: number) {
    this.#buckets = new TokenBuckets({ requests: bytesPerSecond, per: 1000 });
  }

  /** @param session its handle */
  of(session: string): Spend {
    return (bytes) => this.#buckets.spend(session, bytes);
  }
}

/** Passes bytes on as fast as their session may move them. */
export class Paced extends Transform {
  readonly #spend: Spend;
  #timer: NodeJS.Timeout | undefined;

  constructor(spend: Spend) {
    super();
    this.#spend = spend;
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    const wait = this.#spend(chunk.length);
    if (wait === 0) done(null, chunk);
    else this.#timer = setTimeout(done, wait, null, chunk);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    clearTimeout(this.#timer);
    done(error);
  }
}
