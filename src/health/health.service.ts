import type { Providers } from '../oidc/providers.js';
import type { Store } from '../store/store.js';

export type Readiness = 'ok' | 'degraded' | 'unavailable';

/** Whether this process should get traffic. */
export class HealthService {
  readonly #store: Store;
  readonly #providers: Providers;
  #draining = false;

  constructor(store: Store, providers: Providers) {
    this.#store = store;
    this.#providers = providers;
  }

  /** From now on the answer is no, before anything is closed. */
  drain(): void {
    this.#draining = true;
  }

  get draining(): boolean {
    return this.#draining;
  }

  /**
   * - `unavailable`: without the store nobody can be served
   * - `degraded`: a provider cannot be reached; sessions go on, so traffic must too
   */
  async readiness(): Promise<Readiness> {
    if (this.#draining) return 'unavailable';
    try {
      await this.#store.ping();
    } catch {
      return 'unavailable';
    }
    return this.#providers.all.every((provider) => provider.available) ? 'ok' : 'degraded';
  }
}
