import type { Logger } from '../observability/logger.js';
import { gatedCall } from '../oidc/gated-call.js';
import type { OidcClient } from '../oidc/oidc-client.js';
import { providerFailure } from '../oidc/oidc-errors.js';
import type { PolicyEpoch } from '../store/policy-epoch.js';
import type { GrantedToken } from '../store/session-contents.js';
import { backoffAfter, FORCED_PAUSE, isFinal } from './refresh-timing.js';
import { grantedToken, tokenState } from './token-lifetime.js';
import type { ClientWish } from './token-wish.js';

type ClientToken =
  { kind: 'token'; accessToken: string } | { kind: 'refused' } | { kind: 'unavailable'; retryAfter: number };

interface Held {
  token: GrantedToken | undefined;
  flight: Promise<ClientToken> | undefined;
  /** What the last try came to, for as long as nobody tries again. */
  failure: { outcome: ClientToken; until: number } | undefined;
}

/** Milliseconds that a provider's no is believed. */
const REFUSED_FOR = 5000;

/** The application's own access tokens, one for each provider, audience and scope in this process. */
export class ClientTokens {
  readonly #epoch: PolicyEpoch;
  readonly #logger: Logger;
  readonly #held = new Map<string, Held>();

  constructor(epoch: PolicyEpoch, logger: Logger) {
    this.#epoch = epoch;
    this.#logger = logger;
  }

  /** @returns at once while there is a good one */
  token(provider: OidcClient, wish: ClientWish): ClientToken | Promise<ClientToken> {
    const held = this.#of(provider, wish);
    const { token } = held;
    const isOutdated = (token?.epoch ?? 0) < (this.#epoch.known?.refresh ?? 0);
    const state = token === undefined || isOutdated ? 'over' : tokenState(token, Date.now());
    if (token === undefined || state === 'over') return this.#fetch(held, provider, wish, false);
    if (state === 'due') void this.#fetch(held, provider, wish, false);
    return { kind: 'token', accessToken: token.accessToken };
  }

  /** As {@link TokensService.renewed}. */
  renewed(
    provider: OidcClient,
    wish: ClientWish,
    refused: string,
  ): ClientToken | Promise<ClientToken> | undefined {
    const held = this.#of(provider, wish);
    if (held.token?.accessToken !== refused) return this.token(provider, wish);
    if (Date.now() - (held.token.forcedAt ?? 0) < FORCED_PAUSE) return undefined;
    return this.#fetch(held, provider, wish, true);
  }

  #of(provider: OidcClient, { audience, scope }: ClientWish): Held {
    const key = JSON.stringify([provider.name, audience, scope]);
    let held = this.#held.get(key);
    if (held === undefined) {
      held = { token: undefined, flight: undefined, failure: undefined };
      this.#held.set(key, held);
    }
    return held;
  }

  #fetch(held: Held, provider: OidcClient, wish: ClientWish, forced: boolean): Promise<ClientToken> {
    if (held.failure !== undefined && performance.now() < held.failure.until) {
      return Promise.resolve(held.failure.outcome);
    }
    held.flight ??= this.#ask(held, provider, wish, forced).finally(() => {
      held.flight = undefined;
    });
    return held.flight;
  }

  async #ask(held: Held, provider: OidcClient, wish: ClientWish, forced: boolean): Promise<ClientToken> {
    const rules = {
      fallback: provider.config.accessTokenLifetime,
      leeway: 0,
      epoch: this.#epoch.known?.refresh ?? 0,
      forced,
    };
    try {
      await provider.serverMetadata();
      const answer = await gatedCall(provider.gate, () => provider.clientToken(wish));
      held.token = grantedToken(answer, wish.scope, rules, Date.now(), Math.random());
      held.failure = undefined;
      return { kind: 'token', accessToken: held.token.accessToken };
    } catch (error) {
      return this.#failed(held, provider, wish, error);
    }
  }

  #failed(held: Held, provider: OidcClient, { audience }: ClientWish, error: unknown): ClientToken {
    const failure = providerFailure(error);
    const fields = { provider: provider.name, audience, reason: failure.kind, error };
    this.#logger.warn('client_token_failed', fields);
    if (failure.kind === 'misconfigured') {
      this.#logger.error('client_misconfigured', { provider: provider.name });
      provider.reload();
    }
    const backoff = isFinal(failure) ? REFUSED_FOR : backoffAfter(failure, false);
    const outcome: ClientToken = isFinal(failure)
      ? { kind: 'refused' }
      : { kind: 'unavailable', retryAfter: backoff / 1000 };
    held.failure = { outcome, until: performance.now() + backoff };
    return outcome;
  }
}
