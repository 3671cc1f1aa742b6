/** The provider is left alone for a while after it failed repeatedly. */
export class GateClosedError extends Error {
  /** Milliseconds until the next try is let through. */
  readonly remaining: number;

  constructor(remaining: number) {
    super('the provider failed repeatedly; waiting before the next try');
    this.name = 'GateClosedError';
    this.remaining = remaining;
  }
}

const MAX_PARALLEL = 64;
const FAILURES_TO_CLOSE = 5;
const FIRST_PAUSE = 1000;
const LONGEST_PAUSE = 30_000;

/**
 * Calls to one provider's token endpoint: at most 64 at a time from this process, and none while the provider is down but
 * for one try after each pause.
 */
export class ProviderGate {
  #running = 0;
  #failures = 0;
  #closedUntil = 0;
  #pause = FIRST_PAUSE;
  readonly #queue: (() => void)[] = [];

  /**
   * @param call resolves to whether the provider is well (`healthy`; undefined when it was not asked after all), and what
   *   to hand on
   * @throws {GateClosedError} without calling
   */
  async run<T extends { healthy: boolean | undefined }>(call: () => Promise<T>): Promise<T> {
    this.#refuseWhileClosed();
    if (this.#running >= MAX_PARALLEL) {
      await new Promise<void>((resolve) => {
        this.#queue.push(resolve);
      });
    } else {
      this.#running += 1;
    }
    try {
      this.#refuseWhileClosed();
      return await this.#observe(call);
    } finally {
      const next = this.#queue.shift();
      if (next === undefined) this.#running -= 1;
      else next();
    }
  }

  async #observe<T extends { healthy: boolean | undefined }>(call: () => Promise<T>): Promise<T> {
    // A pause is over: this call is the probe, the others wait another pause for what it finds.
    const probing = this.#failures >= FAILURES_TO_CLOSE;
    if (probing) this.#closedUntil = performance.now() + this.#pause;
    let healthy: boolean | undefined;
    try {
      const result = await call();
      ({ healthy } = result);
      return result;
    } finally {
      if (healthy !== undefined) this.#record(healthy, probing);
      // It found nothing out: the next one may try.
      else if (probing) this.#closedUntil = 0;
    }
  }

  #refuseWhileClosed(): void {
    const remaining = this.#closedUntil - performance.now();
    if (remaining > 0) throw new GateClosedError(remaining);
  }

  #record(healthy: boolean, probing: boolean): void {
    if (healthy) {
      this.#failures = 0;
      this.#closedUntil = 0;
      this.#pause = FIRST_PAUSE;
      return;
    }
    this.#failures += 1;
    if (this.#failures < FAILURES_TO_CLOSE) return;
    // Calls that were under way when the gate closed bring no news: only a probe that fails makes the pause longer.
    if (!probing && this.#closedUntil > performance.now()) return;
    this.#closedUntil = performance.now() + this.#pause * (0.75 + Math.random() / 2);
    this.#pause = Math.min(LONGEST_PAUSE, this.#pause * 2);
  }
}
