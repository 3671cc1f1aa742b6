import { CloakroomError } from '../errors.js';
import type { Providers } from '../oidc/providers.js';
import { elevationRequired } from '../session/elevation.js';
import { LOGIN_URL, type SessionsService } from '../session/sessions.service.js';
import type { OpenSession } from '../store/session-records.js';
import type { Introspection } from '../tokens/introspection.js';
import type { Route } from './route-table.js';

/** Tokens for routes that trust none without asking the provider. */
export class ActiveTokens {
  readonly #sessions: SessionsService;
  readonly #providers: Providers;
  readonly #introspection: Introspection;

  constructor(sessions: SessionsService, providers: Providers, introspection: Introspection) {
    this.#sessions = sessions;
    this.#providers = providers;
    this.#introspection = introspection;
  }

  /**
   * @param accessToken as good as time alone can tell
   * @param within milliseconds: how old the provider's word may be
   * @returns that token or, where it is not active any more, one in its place that is
   * @throws {CloakroomError} `session-required` with the reason `token-inactive`; `step-up` for an elevated one;
   *   `idp-unavailable`; and as {@link SessionsService.renewedToken}
   */
  async of(
    session: OpenSession,
    { wish, elevation }: Route,
    accessToken: string,
    within: number,
  ): Promise<string> {
    const provider = this.#providers.get(session.contents.provider);
    if (provider === undefined) throw new CloakroomError('idp-unavailable');
    if (await this.#introspection.isActive(provider, session, accessToken, within)) return accessToken;
    // Nothing but another sign-in brings another elevated token.
    if (elevation !== undefined) throw elevationRequired(elevation, session.contents);
    const renewed = await this.#sessions.renewedToken(session, wish, accessToken);
    if (renewed !== undefined && (await this.#introspection.isActive(provider, session, renewed, within))) {
      return renewed;
    }
    // The session stays: whether it is over is for the provider to say, by refusing a refresh.
    throw new CloakroomError('session-required', {
      public: { loginUrl: LOGIN_URL, reason: 'token-inactive' },
    });
  }
}
