import type { Providers } from '../oidc/providers.js';
import { GateClosedError, ProviderGate } from '../oidc/provider-gate.js';
import { revocationFailure } from '../oidc/revocation-failure.js';
import type { RevocableToken } from '../store/revocation-envelope.js';

/**
 * What became of the wish to revoke.
 * - `over`: revoked, or there is nothing to be done about it, and `reason` tells why
 * - `later`: not before `delay` milliseconds where that is known; `tried` unless the provider was not even asked
 */
export type Attempt =
  | { kind: 'over'; revoked: boolean; reason?: string }
  | { kind: 'later'; tried: boolean; reason: string; delay: number; error?: unknown };

/** Milliseconds of the longest rest that a provider can ask for. */
const LONGEST_REST = 60 * 60 * 1000;

/**
 * Asks providers to revoke. Each has a gate for this alone: a revocation endpoint that is down must not keep anybody from
 * refreshing, and thousands of revocations must not stand in front of a refresh.
 */
export class RevocationAttempts {
  readonly #providers: Providers;
  readonly #gates = new Map<string, ProviderGate>();
  readonly #restingUntil = new Map<string, number>();

  constructor(providers: Providers) {
    this.#providers = providers;
  }

  /** No provider would be asked now: what is due may as well wait where it is. */
  get allResting(): boolean {
    return this.#providers.all.every((provider) => this.#rest(provider.name) > 0);
  }

  /**
   * @param notAfter by `performance.now()`: later than this somebody else may have taken it over
   */
  async revoke(token: RevocableToken, notAfter: number): Promise<Attempt> {
    const provider = this.#providers.get(token.provider);
    // What is named like its provider today may be somebody else, who must not see this token.
    if (provider?.config.issuer !== token.issuer) return later('provider-unknown', 0, true);
    if (!provider.config.revokeOnLogout) return { kind: 'over', revoked: false, reason: 'switched-off' };
    const rest = this.#rest(token.provider);
    if (rest > 0) return later('provider-resting', rest, false);
    try {
      const gate = this.#gate(token.provider);
      const { attempt } = await gate.run(async () => {
        if (performance.now() > notAfter) return { healthy: undefined, attempt: later('late', 0, false) };
        const attempt = await this.once(token);
        return { healthy: attempt.kind === 'over', attempt };
      });
      return attempt;
    } catch (error) {
      if (!(error instanceof GateClosedError)) throw error;
      this.#restFor(token.provider, error.remaining);
      return later('provider-resting', error.remaining, false);
    }
  }

  /** Asks once and at once, whatever was found out before. */
  async once(token: RevocableToken): Promise<Attempt> {
    const provider = this.#providers.get(token.provider);
    if (provider?.config.issuer !== token.issuer) return later('provider-unknown', 0, true);
    if (!provider.config.revokeOnLogout) return { kind: 'over', revoked: false, reason: 'switched-off' };
    try {
      const revoked = await provider.revoke(token.refreshToken, 'refresh_token');
      return revoked
        ? { kind: 'over', revoked }
        : { kind: 'over', revoked, reason: 'no-revocation-endpoint' };
    } catch (error) {
      const { kind, reason, retryAfter } = revocationFailure(error);
      if (kind === 'revoked') return { kind: 'over', revoked: true };
      if (kind === 'refused') return { kind: 'over', revoked: false, reason };
      const delay = Math.min(LONGEST_REST, (retryAfter ?? 0) * 1000);
      this.#restFor(token.provider, delay);
      return { ...later(reason, delay, true), error };
    }
  }

  #gate(name: string): ProviderGate {
    const gate = this.#gates.get(name) ?? new ProviderGate();
    this.#gates.set(name, gate);
    return gate;
  }

  #rest(name: string): number {
    return (this.#restingUntil.get(name) ?? 0) - performance.now();
  }

  #restFor(name: string, milliseconds: number): void {
    if (milliseconds > 0) this.#restingUntil.set(name, performance.now() + milliseconds);
  }
}

function later(reason: string, delay: number, tried: boolean): Attempt & { kind: 'later' } {
  return { kind: 'later', tried, reason, delay };
}
