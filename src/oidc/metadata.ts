import { CloakroomError } from '../errors.js';
import type { Logger } from '../observability/logger.js';

const FIRST_RETRY = 1000;
const LONGEST_RETRY = 30_000;
const REREAD_AFTER = 3600 * 1000;
const KEEP_LAST_GOOD = 24 * 3600 * 1000;

/**
 * What a provider says about itself, read in the background: starting does not need the provider, and when it cannot be
 * reached or suddenly says something unacceptable, the last good answer stays in use for a day.
 */
export class Metadata<T> {
  readonly #name: string;
  readonly #discover: () => Promise<T>;
  readonly #logger: Logger;
  #current: { value: T; at: number } | undefined;
  #loading: Promise<void> | undefined;
  #retry = FIRST_RETRY;
  #timer: NodeJS.Timeout | undefined;
  #available: boolean | undefined;
  #closed = false;

  /** @param discover one attempt, within its own time limit */
  constructor(name: string, discover: () => Promise<T>, logger: Logger) {
    this.#name = name;
    this.#discover = discover;
    this.#logger = logger;
  }

  start(): void {
    void this.#load();
  }

  stop(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  get available(): boolean {
    return this.#available === true;
  }

  /** @throws {CloakroomError} `idp-unavailable` when nothing was ever read, or too long ago */
  async get(): Promise<T> {
    const current = this.#fresh();
    if (current !== undefined) return current;
    await this.#load();
    const loaded = this.#fresh();
    if (loaded === undefined) throw new CloakroomError('idp-unavailable', { retryAfter: this.#retry / 1000 });
    return loaded;
  }

  /** Reads again now; the last good answer stays in use meanwhile. */
  reload(): void {
    void this.#load();
  }

  #fresh(): T | undefined {
    const usable = this.#current !== undefined && performance.now() - this.#current.at < KEEP_LAST_GOOD;
    return usable ? this.#current?.value : undefined;
  }

  #load(): Promise<void> {
    this.#loading ??= this.#attempt().finally(() => {
      this.#loading = undefined;
    });
    return this.#loading;
  }

  async #attempt(): Promise<void> {
    clearTimeout(this.#timer);
    let next = REREAD_AFTER;
    try {
      this.#current = { value: await this.#discover(), at: performance.now() };
      this.#retry = FIRST_RETRY;
      this.#report(true);
    } catch (error) {
      next = this.#retry * (0.75 + Math.random() / 2);
      this.#retry = Math.min(LONGEST_RETRY, this.#retry * 2);
      this.#report(false, error);
    }
    if (this.#closed) return;
    this.#timer = setTimeout(() => void this.#load(), next).unref();
  }

  #report(available: boolean, error?: unknown): void {
    if (available === this.#available) return;
    this.#available = available;
    if (available) this.#logger.info('provider_available', { provider: this.#name });
    else this.#logger.error('provider_unavailable', { provider: this.#name, error });
  }
}
