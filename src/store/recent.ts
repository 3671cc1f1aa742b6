/**
 * A cache that forgets everything one to two periods after it was set, used or not, at no cost per entry: two maps that
 * change places. Its size is what was set in that time.
 */
export class Recent<T> {
  readonly #period: number;
  readonly #limit: number;
  #young = new Map<string, T>();
  #old = new Map<string, T>();
  #turnAt: number;

  /**
   * @param period milliseconds
   * @param limit entries after which the maps change places early
   */
  constructor(period: number, limit: number) {
    this.#period = period;
    this.#limit = limit;
    this.#turnAt = performance.now() + period;
  }

  get(key: string): T | undefined {
    this.#turn();
    return this.#young.get(key) ?? this.#old.get(key);
  }

  set(key: string, value: T): void {
    this.#turn();
    this.#young.set(key, value);
  }

  delete(key: string): void {
    this.#young.delete(key);
    this.#old.delete(key);
  }

  #turn(): void {
    const now = performance.now();
    if (now < this.#turnAt && this.#young.size < this.#limit) return;
    this.#old = now < this.#turnAt + this.#period ? this.#young : new Map<string, T>();
    this.#young = new Map();
    this.#turnAt = now + this.#period;
  }
}
