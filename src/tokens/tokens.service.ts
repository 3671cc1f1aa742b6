import type { Providers } from '../oidc/providers.js';
import type { PolicyEpoch } from '../store/policy-epoch.js';
import type { OpenSession } from '../store/session-records.js';
import type { Tokens } from '../store/session-contents.js';
import { Recent } from '../store/recent.js';
import type { EndReason, Refresh, RefreshOutcome } from './refresh.js';
import { tokenState } from './token-lifetime.js';

/** An access token to forward with, or why there is none. */
export type AccessToken =
  | { kind: 'token'; accessToken: string }
  | { kind: 'ended'; reason: EndReason }
  | { kind: 'gone' }
  | { kind: 'unavailable'; retryAfter: number };

/** Requests of this process that may wait for new tokens at once. */
const MAX_WAITING = 5000;
/** Milliseconds beyond the provider's time limit that a request waits for a refresh. */
const PATIENCE = 2000;

/** Hands out access tokens that are good, and has them renewed before they are over. */
export class TokensService {
  readonly #providers: Providers;
  readonly #refresh: Refresh;
  readonly #epoch: PolicyEpoch;
  /** Sessions whose renewal failed a moment ago, so that not every request tries again in the background. */
  readonly #resting = new Recent<true>(2500, 10_000);
  #waiting = 0;

  constructor(providers: Providers, refresh: Refresh, epoch: PolicyEpoch) {
    this.#providers = providers;
    this.#refresh = refresh;
    this.#epoch = epoch;
  }

  /** @returns at once while the token is good; a promise only when a refresh must be waited for */
  accessToken(session: OpenSession): AccessToken | Promise<AccessToken> {
    const { tokens } = session.contents;
    const state = this.#isOutdated(tokens) ? 'over' : tokenState(tokens, Date.now());
    if (state === 'fresh') return { kind: 'token', accessToken: tokens.accessToken };
    if (tokens.refreshToken === undefined) return this.#withoutRefresh(session);
    if (state === 'due') {
      this.#renewInBackground(session);
      return { kind: 'token', accessToken: tokens.accessToken };
    }
    return this.#renewed(session);
  }

  /** Resolves when no refresh is under way any more. */
  async idle(): Promise<void> {
    await Promise.allSettled(this.#refresh.running);
  }

  /** Fetched before an operator asked for new ones. */
  #isOutdated({ epoch = 0 }: Tokens): boolean {
    return epoch < (this.#epoch.known?.refresh ?? 0);
  }

  /** Whether the token may still be used where no newer one can be had. */
  #isUsable(tokens: Tokens): boolean {
    return Date.now() < tokens.expiresAt && !this.#isOutdated(tokens);
  }

  #withoutRefresh(session: OpenSession): AccessToken {
    const { tokens } = session.contents;
    if (this.#isUsable(tokens)) return { kind: 'token', accessToken: tokens.accessToken };
    return { kind: 'ended', reason: 'token-expired' };
  }

  #renewInBackground(session: OpenSession): void {
    if (this.#resting.get(session.handle) !== undefined) return;
    const provider = this.#providers.get(session.contents.provider);
    if (provider === undefined) return;
    // One try a while: set before the outcome is known, so that a slow provider is not asked by every request.
    this.#resting.set(session.handle, true);
    this.#refresh.run(session, provider).then(
      (outcome) => {
        if (outcome.kind === 'refreshed') this.#resting.delete(session.handle);
      },
      () => undefined,
    );
  }

  async #renewed(session: OpenSession): Promise<AccessToken> {
    const provider = this.#providers.get(session.contents.provider);
    if (provider === undefined) return { kind: 'unavailable', retryAfter: 60 };
    if (this.#waiting >= MAX_WAITING) return { kind: 'unavailable', retryAfter: 1 };
    this.#waiting += 1;
    try {
      const patience = provider.config.timeout + PATIENCE;
      const outcome = await within(patience, this.#refresh.run(session, provider));
      return this.#afterRefresh(session, outcome);
    } finally {
      this.#waiting -= 1;
    }
  }

  #afterRefresh(session: OpenSession, outcome: RefreshOutcome): AccessToken {
    if (outcome.kind === 'refreshed') {
      return { kind: 'token', accessToken: outcome.session.contents.tokens.accessToken };
    }
    const { tokens } = session.contents;
    // The last seconds of a token are better than an error.
    if (outcome.kind === 'unavailable' && this.#isUsable(tokens)) {
      return { kind: 'token', accessToken: tokens.accessToken };
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
