import type { EndingsService } from '../endings/endings.service.js';
import type { SessionDirectory } from '../endings/session-directory.js';
import { CloakroomError } from '../errors.js';
import type { RateLimits } from '../limits/rate-limits.js';
import type { Logger } from '../observability/logger.js';
import type { OidcClient } from '../oidc/oidc-client.js';
import type { Providers } from '../oidc/providers.js';
import { doneWithin } from './patience.js';

/** Milliseconds for which the provider's logout page is kept waiting. */
const ANSWER_WITHIN = 2000;
const SID = /^[\x20-\x7e]{1,1024}$/;

/** Ends sessions because the provider's logout page loads an address in a frame: OpenID Connect Front-Channel Logout 1.0. */
export class FrontchannelLogoutService {
  readonly #providers: Providers;
  readonly #endings: EndingsService;
  readonly #directory: SessionDirectory;
  readonly #limits: RateLimits;
  readonly #logger: Logger;

  constructor(parts: {
    providers: Providers;
    endings: EndingsService;
    directory: SessionDirectory;
    limits: RateLimits;
    logger: Logger;
  }) {
    this.#providers = parts.providers;
    this.#endings = parts.endings;
    this.#directory = parts.directory;
    this.#limits = parts.limits;
    this.#logger = parts.logger;
  }

  /** The provider whose address this is, if it may use it. */
  provider(name: string | undefined): OidcClient | undefined {
    const provider = this.#providers.addressed(name);
    return provider?.config.frontchannelLogout === true ? provider : undefined;
  }

  /**
   * Ends the sessions of one session at the provider. Both parameters are needed: without them anybody's page could sign
   * anybody out (section 6).
   *
   * @param from address of the browser
   * @throws {CloakroomError} `too-many-requests`, `bad-request`, `store-unavailable`
   */
  async end(provider: OidcClient, query: URLSearchParams, from: string): Promise<void> {
    this.#limits.take('frontchannelLogout', from);
    const { issuer } = provider.config;
    const sid = single(query, 'sid');
    if (single(query, 'iss') !== issuer || !SID.test(sid)) throw new CloakroomError('bad-request');
    // Nothing is written for a session that is not there: whoever asks has shown nothing but a name.
    const { sessions } = await this.#directory.page({ issuer, sid }, undefined, 1);
    if (sessions.length === 0) return;
    const ending = this.#endings.end(
      { issuer, sid },
      {
        cause: 'provider',
        reason: 'front-channel logout',
        actor: { kind: 'provider', name: provider.name, from },
      },
    );
    await doneWithin(ANSWER_WITHIN, ending, (error) => {
      this.#logger.warn('logout_by_provider_unfinished', { provider: provider.name, error });
    });
  }
}

function single(query: URLSearchParams, name: string): string {
  const values = query.getAll(name);
  return values.length === 1 ? (values[0] ?? '') : '';
}
