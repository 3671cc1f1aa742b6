import { CloakroomError } from '../errors.js';
import type { Logger } from '../observability/logger.js';
import { gatedCall } from '../oidc/gated-call.js';
import type { OidcClient } from '../oidc/oidc-client.js';
import { providerFailure } from '../oidc/oidc-errors.js';
import { Recent } from '../store/recent.js';
import type { OpenSession } from '../store/session-records.js';

interface Asked {
  at: number;
  /** undefined while the answer is awaited. */
  active: boolean | undefined;
  answer: Promise<boolean>;
}

/** Milliseconds before a provider that gave no answer about a token is asked about it again. */
const PAUSE = 1000;
const REMEMBER_AT_MOST = 50_000;

/**
 * Whether tokens are still active, as their provider says: asked for each token of a session at most once in a while.
 *
 * @see RFC 7662
 */
export class Introspection {
  readonly #logger: Logger;
  readonly #asked: Recent<Asked>;

  /** @param longest milliseconds; no caller is content with an older answer */
  constructor(longest: number, logger: Logger) {
    this.#logger = logger;
    this.#asked = new Recent(Math.max(longest, PAUSE), REMEMBER_AT_MOST);
  }

  /**
   * @param within milliseconds: how old an answer may be
   * @throws {CloakroomError} `idp-unavailable` where there is none: what is not known to be active is not
   */
  isActive(
    provider: OidcClient,
    { handle }: OpenSession,
    accessToken: string,
    within: number,
  ): boolean | Promise<boolean> {
    const key = `${handle}:${accessToken}`;
    const known = this.#asked.get(key);
    if (known !== undefined) {
      if (known.active === undefined) return known.answer;
      if (performance.now() - known.at < within) return known.active;
    }
    const asked: Asked = { at: performance.now(), active: undefined, answer: Promise.resolve(false) };
    asked.answer = this.#ask(provider, handle, accessToken).then(
      (active) => (asked.active = active),
      (error: unknown) => {
        // Whoever comes in the meantime gets the same answer; then it is forgotten.
        setTimeout(() => {
          if (this.#asked.get(key) === asked) this.#asked.delete(key);
        }, PAUSE).unref();
        throw error;
      },
    );
    this.#asked.set(key, asked);
    return asked.answer;
  }

  async #ask(provider: OidcClient, handle: string, accessToken: string): Promise<boolean> {
    try {
      return await gatedCall(provider.introspectionGate, () => provider.isActive(accessToken));
    } catch (error) {
      const failure = providerFailure(error);
      const fields = { handle, provider: provider.name, reason: failure.kind, error };
      this.#logger.warn('introspection_failed', fields);
      const asked = 'retryAfter' in failure ? failure.retryAfter : undefined;
      throw new CloakroomError('idp-unavailable', { retryAfter: asked ?? PAUSE / 1000, cause: error });
    }
  }
}
