/** So many at once, and one more whenever a while has passed. */
export class Allowance {
  readonly #most: number;
  readonly #refill: number;
  #left: number;
  #refilledAt = performance.now();

  /** @param refill milliseconds after which one comes back */
  constructor(most: number, refill: number) {
    this.#most = most;
    this.#refill = refill;
    this.#left = most;
  }

  /** @returns 0 when there was one left, which is now taken; otherwise milliseconds until there is one */
  take(): number {
    const now = performance.now();
    const earned = Math.floor((now - this.#refilledAt) / this.#refill);
    this.#left = Math.min(this.#most, this.#left + earned);
    this.#refilledAt += earned * this.#refill;
    if (this.#left === 0) return this.#refilledAt + this.#refill - now;
    this.#left -= 1;
    return 0;
  }

  giveBack(): void {
    this.#left = Math.min(this.#most, this.#left + 1);
  }
}
