import type { Config } from '../config/config.js';
import type { Logger } from '../observability/logger.js';
import { OidcClient } from './oidc-client.js';

/** Where a provider sends the browser back to: an address of its own each, so that answers cannot be mixed up. */
export function callbackPath(index: number, name: string): string {
  return ownPath('/auth/callback', index, name);
}

/** Where a provider itself says that a session ended. */
export function backchannelLogoutPath(index: number, name: string): string {
  return ownPath('/auth/backchannel-logout', index, name);
}

/** What a provider's logout page loads in a frame for a session that ended. */
export function frontchannelLogoutPath(index: number, name: string): string {
  return ownPath('/auth/frontchannel-logout', index, name);
}

function ownPath(base: string, index: number, name: string): string {
  return index === 0 ? base : `${base}/${name}`;
}

/** The configured providers, in the order of the configuration; the first is the default. */
export class Providers {
  readonly #byName = new Map<string, OidcClient>();
  readonly #first: OidcClient;

  constructor(config: Config, logger: Logger) {
    config.providers.forEach((provider, index) => {
      const redirectUri = config.publicUrl + callbackPath(index, provider.name);
      this.#byName.set(provider.name, new OidcClient(provider, redirectUri, logger));
    });
    const [first] = this.#byName.values();
    if (first === undefined) throw new TypeError('at least one provider must be configured');
    this.#first = first;
  }

  get first(): OidcClient {
    return this.#first;
  }

  get all(): OidcClient[] {
    return [...this.#byName.values()];
  }

  get(name: string): OidcClient | undefined {
    return this.#byName.get(name);
  }

  /** The provider whose address this is: the first has the plain one, the others have their name in it. */
  addressed(name: string | undefined): OidcClient | undefined {
    if (name === undefined) return this.#first;
    return name === this.#first.name ? undefined : this.#byName.get(name);
  }

  start(): void {
    for (const provider of this.all) provider.start();
  }

  async close(): Promise<void> {
    await Promise.all(this.all.map((provider) => provider.close()));
  }
}
