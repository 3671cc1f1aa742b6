import type { Config, EndpointLimit } from '../config/config.js';
import { addressGroup } from '../http/address-range.js';
import type { Logger } from '../observability/logger.js';
import type { Store } from '../store/store.js';
import { RateLimit } from './rate-limit.js';
import type { Rate } from './token-buckets.js';

/** How often one client address may use each of our endpoints, and one caller each route. */
export class RateLimits {
  readonly #parts: { store: Store; logger: Logger };
  readonly #endpoints = new Map<EndpointLimit, RateLimit>();

  constructor(parts: { config: Config; store: Store; logger: Logger }) {
    this.#parts = parts;
    for (const [name, rate] of Object.entries(parts.config.rateLimits)) {
      if (rate !== 'off') this.#endpoints.set(name as EndpointLimit, new RateLimit(name, rate, parts));
    }
  }

  /**
   * Counts a request of a client.
   * @throws {CloakroomError} `too-many-requests`
   */
  take(endpoint: EndpointLimit, address: string): void {
    this.#endpoints.get(endpoint)?.take(addressGroup(address));
  }

  /** The limit of one route. Its callers are sessions, and addresses where nobody is signed in. */
  ofRoute(path: string, rate: Rate): RateLimit {
    return new RateLimit(path, rate, this.#parts);
  }
}
