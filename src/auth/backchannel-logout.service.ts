import type { EndingsService } from '../endings/endings.service.js';
import type { SessionDirectory } from '../endings/session-directory.js';
import { CloakroomError } from '../errors.js';
import type { RateLimits } from '../limits/rate-limits.js';
import type { Logger } from '../observability/logger.js';
import type { LogoutToken } from '../oidc/logout-token.js';
import type { OidcClient } from '../oidc/oidc-client.js';
import { ProviderCallError } from '../oidc/provider-fetch.js';
import type { Providers } from '../oidc/providers.js';
import { TokenError } from '../oidc/signed-token.js';
import { doneWithin } from './patience.js';

/** Who brought the token, for log and audit. */
export interface Caller {
  address: string;
  /** Finds the request in the log. */
  reference: string;
}

/** Milliseconds; some providers wait no longer than 2.5 s, and none asks again. */
const ANSWER_WITHIN = 2000;

/** Ends sessions because their provider says so: OpenID Connect Back-Channel Logout 1.0 section 2.7. */
export class BackchannelLogoutService {
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
    return provider?.config.backchannelLogout === 'off' ? undefined : provider;
  }

  /**
   * Ends what the token names. Nothing is left to end: that is no error.
   *
   * @returns why the token was refused, as a stable word; undefined when it was not
   * @throws {CloakroomError} when the provider should ask again: `store-unavailable`, `idp-unavailable`,
   *   `too-many-requests`
   */
  async receive(provider: OidcClient, token: string, caller: Caller): Promise<string | undefined> {
    try {
      const logout = await provider.verifyLogoutToken(token);
      await this.#refuseForeign(provider, logout);
      await doneWithin(ANSWER_WITHIN, this.#end(provider, logout, caller.address), (error) => {
        this.#logger.warn('logout_by_provider_unfinished', { provider: provider.name, error });
      });
      return undefined;
    } catch (error) {
      if (error instanceof ProviderCallError) {
        // Without the keys nobody can tell whether the token is good.
        throw new CloakroomError('idp-unavailable', { retryAfter: 5, cause: error });
      }
      if (!(error instanceof TokenError)) throw error;
      // Only what was refused counts, and only that is refused for being too much: a provider that ends thousands of sessions
      // at once is heard, also where somebody else can send from its address.
      this.#limits.take('backchannelLogout', caller.address);
      const { reason } = error;
      const { reference } = caller;
      this.#logger.warn('logout_token_refused', { provider: provider.name, reason, reference, error });
      return reason;
    }
  }

  /** A session of the provider belongs to one person; a token that says otherwise ends nothing. */
  async #refuseForeign(provider: OidcClient, { sid, subject }: LogoutToken): Promise<void> {
    if (sid === undefined || subject === undefined) return;
    const { issuer } = provider.config;
    const { sessions } = await this.#directory.page({ issuer, sid }, undefined, 10);
    const foreign = sessions.length > 0 && sessions.every((session) => session.subject !== subject);
    if (foreign) throw new TokenError('sub', 'the session of the provider belongs to another subject');
  }

  /**
   * The token's own name names the ending. One that comes again is the same ending: finished, it has no second effect on a
   * session that began since; unfinished, because a process or the store went away in the middle, it carries on.
   */
  async #end(provider: OidcClient, { sid, subject, id, issuedAt }: LogoutToken, from: string): Promise<void> {
    const { issuer } = provider.config;
    await this.#endings.end(
      { issuer, ...(sid === undefined ? {} : { sid }), ...(subject === undefined ? {} : { subject }) },
      {
        cause: 'provider',
        reason: 'back-channel logout',
        actor: { kind: 'provider', name: provider.name, from },
        providerSaidAt: issuedAt,
        id: JSON.stringify(['logout-token', issuer, id]),
      },
    );
  }
}
