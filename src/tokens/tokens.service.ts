import type { OidcClient } from '../oidc/oidc-client.js';
import type { Providers } from '../oidc/providers.js';
import type { PolicyEpoch } from '../store/policy-epoch.js';
import type { OpenSession } from '../store/session-records.js';
import type { GrantedToken } from '../store/session-contents.js';
import { Recent } from '../store/recent.js';
import type { ClientTokens } from './client-tokens.js';
import { PLAIN, type Grant } from './grants.js';
import type { EndReason, RefreshOutcome } from './refresh-outcome.js';
import { FORCED_PAUSE } from './refresh-timing.js';
import type { Refresh } from './refresh.js';
import { tokenState } from './token-lifetime.js';
import type { TokenWish } from './token-wish.js';

/** An access token to forward with, or why there is none. */
export type AccessToken =
  | { kind: 'token'; accessToken: string }
  | { kind: 'ended'; reason: EndReason }
  | { kind: 'gone' }
  | { kind: 'refused' }
  | { kind: 'unavailable'; retryAfter: number };

/** Requests of this process that may wait for new tokens at once. */
const MAX_WAITING = 5000;
/** Milliseconds beyond the provider's time limit that a request waits for a refresh. */
const PATIENCE = 2000;

/** Hands out access tokens that are good, and has them renewed before they are over. */
export class TokensService {
  readonly #providers: Providers;
  readonly #refresh: Refresh;
  readonly #clients: ClientTokens;
  readonly #epoch: PolicyEpoch;
  /** Tokens whose renewal failed a moment ago, so that not every request tries again in the background. */
  readonly #resting = new Recent<true>(2500, 10_000);
  /** Tokens that the provider would not give a moment ago. */
  readonly #refused = new Recent<true>(2500, 10_000);
  #waiting = 0;

  constructor(providers: Providers, refresh: Refresh, clients: ClientTokens, epoch: PolicyEpoch) {
    this.#providers = providers;
    this.#refresh = refresh;
    this.#clients = clients;
    this.#epoch = epoch;
  }

  /**
   * @param wish undefined: the session's plain one
   * @returns at once while the token is good; a promise only when the provider must be waited for
   */
  accessToken(session: OpenSession, wish?: TokenWish): AccessToken | Promise<AccessToken> {
    if (wish?.kind !== 'client') return this.#ofSession(session, wish?.grant ?? PLAIN);
    const provider = this.#providers.get(session.contents.provider);
    return provider === undefined
      ? { kind: 'unavailable', retryAfter: 60 }
      : this.#clients.token(provider, wish);
  }

  /**
   * Another token in the place of one that somebody who should know says is no good. On such a word alone a token is renewed
   * once in a while, however often it is given.
   *
   * @returns undefined where there is no other
   * @throws {CloakroomError} `store-unavailable`
   */
  async renewed(
    session: OpenSession,
    wish: TokenWish | undefined,
    refused: string,
  ): Promise<AccessToken | undefined> {
    const provider = this.#providers.get(session.contents.provider);
    if (provider === undefined) return undefined;
    if (wish?.kind === 'client') return this.#clients.renewed(provider, wish, refused);
    const grant = wish?.grant ?? PLAIN;
    // As it is now: of many that come at once with the same token, one renews it and the others find it renewed.
    const newest = await this.#refresh.newest(session);
    if (newest === undefined) return { kind: 'gone' };
    const { tokens } = newest.contents;
    if (grant.held(tokens)?.accessToken !== refused) return this.accessToken(newest, wish);
    // An exchanged token is as good as the one that it was made from.
    const spending = grant.spendsRefreshToken ? grant : PLAIN;
    const { forcedAt = 0 } = spending.held(tokens) ?? {};
    if (tokens.refreshToken === undefined || Date.now() - forcedAt < FORCED_PAUSE) return undefined;
    const outcome = await this.#refresh.run(newest, provider, spending, true);
    if (outcome.kind !== 'refreshed') return outcome;
    return this.accessToken(outcome.session, wish);
  }

  /** Resolves when no refresh is under way any more. */
  async idle(): Promise<void> {
    await Promise.allSettled(this.#refresh.running);
  }

  #ofSession(session: OpenSession, grant: Grant): AccessToken | Promise<AccessToken> {
    const { tokens } = session.contents;
    const held = grant.held(tokens);
    const state = held === undefined || this.#isOutdated(held) ? 'over' : tokenState(held, Date.now());
    if (held !== undefined && state === 'fresh') return { kind: 'token', accessToken: held.accessToken };
    if (tokens.refreshToken === undefined && grant.spendsRefreshToken) {
      return this.#withoutRefresh(held, grant);
    }
    if (held !== undefined && state === 'due') {
      this.#renewInBackground(session, grant);
      return { kind: 'token', accessToken: held.accessToken };
    }
    return this.#renewed(session, grant);
  }

  /** Fetched before an operator asked for new ones. */
  #isOutdated({ epoch = 0 }: GrantedToken): boolean {
    return epoch < (this.#epoch.known?.refresh ?? 0);
  }

  /** Whether the token may still be used where no newer one can be had. */
  #isUsable(token: GrantedToken | undefined): token is GrantedToken {
    return token !== undefined && Date.now() < token.expiresAt && !this.#isOutdated(token);
  }

  #withoutRefresh(held: GrantedToken | undefined, grant: Grant): AccessToken {
    if (this.#isUsable(held)) return { kind: 'token', accessToken: held.accessToken };
    // The session may be good for everything else.
    return grant === PLAIN ? { kind: 'ended', reason: 'token-expired' } : { kind: 'refused' };
  }

  #renewInBackground(session: OpenSession, grant: Grant): void {
    const key = `${session.handle}:${grant.name}`;
    if (this.#resting.get(key) !== undefined) return;
    const provider = this.#providers.get(session.contents.provider);
    if (provider === undefined) return;
    // One try a while: set before the outcome is known, so that a slow provider is not asked by every request.
    this.#resting.set(key, true);
    this.#fetch(session, provider, grant).then(
      (outcome) => {
        if (outcome.kind === 'refreshed') this.#resting.delete(key);
      },
      () => undefined,
    );
  }

  async #renewed(session: OpenSession, grant: Grant): Promise<AccessToken> {
    const provider = this.#providers.get(session.contents.provider);
    if (provider === undefined) return { kind: 'unavailable', retryAfter: 60 };
    const key = `${session.handle}:${grant.name}`;
    if (this.#refused.get(key) !== undefined) return { kind: 'refused' };
    if (this.#waiting >= MAX_WAITING) return { kind: 'unavailable', retryAfter: 1 };
    this.#waiting += 1;
    try {
      const calls = grant.spendsRefreshToken ? 1 : 2;
      const patience = calls * provider.config.timeout + PATIENCE;
      const outcome = await within(patience, this.#fetch(session, provider, grant));
      if (outcome.kind === 'refused') this.#refused.set(key, true);
      return this.#afterRefresh(session, grant, outcome);
    } finally {
      this.#waiting -= 1;
    }
  }

  async #fetch(session: OpenSession, provider: OidcClient, grant: Grant): Promise<RefreshOutcome> {
    if (grant.spendsRefreshToken) return this.#refresh.run(session, provider, grant);
    const { tokens } = session.contents;
    if (!this.#isOutdated(tokens) && tokenState(tokens, Date.now()) !== 'over') {
      return this.#refresh.run(session, provider, grant);
    }
    if (tokens.refreshToken === undefined) return { kind: 'ended', reason: 'token-expired' };
    const plain = await this.#refresh.run(session, provider, PLAIN);
    if (plain.kind !== 'refreshed') return plain;
    // Whoever was quicker may have exchanged it as well.
    const held = grant.held(plain.session.contents.tokens);
    return held === undefined ? this.#refresh.run(plain.session, provider, grant) : plain;
  }

  #afterRefresh(session: OpenSession, grant: Grant, outcome: RefreshOutcome): AccessToken {
    const now = outcome.kind === 'refreshed' ? outcome.session : session;
    const held = grant.held(now.contents.tokens);
    if (outcome.kind === 'refreshed') {
      return held === undefined
        ? { kind: 'unavailable', retryAfter: 1 }
        : { kind: 'token', accessToken: held.accessToken };
    }
    // The last seconds of a token are better than an error.
    const stays = outcome.kind === 'unavailable' || outcome.kind === 'refused';
    if (stays && this.#isUsable(held)) {
      return { kind: 'token', accessToken: held.accessToken };
    }
    return outcome;
  }
}

async function within(patience: number, flight: Promise<RefreshOutcome>): Promise<RefreshOutcome> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<RefreshOutcome>((resolve) => {
    timer = setTimeout(() => {
      resolve({ kind: 'unavailable', retryAfter: 1 });
    }, patience);
  });
  try {
    return await Promise.race([flight, late]);
  } finally {
    clearTimeout(timer);
  }
}
