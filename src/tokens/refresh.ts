import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { CloakroomError } from '../errors.js';
import type { OidcClient, TokenAnswer } from '../oidc/oidc-client.js';
import { isHealthy, providerFailure, type ProviderFailure } from '../oidc/oidc-errors.js';
import type { Logger } from '../observability/logger.js';
import { endingBy } from '../store/ending.js';
import type { PolicyEpoch } from '../store/policy-epoch.js';
import type { OpenSession, SessionRecords } from '../store/session-records.js';
import type { SessionContents, Tokens } from '../store/session-contents.js';
import type { Release } from '../store/store.js';
import { takeClaim } from './refresh-claim.js';
import { backoffAfter, claimDuration, SEND_WITHIN, waitInDoubt } from './refresh-timing.js';
import { refreshedIdentity } from './refreshed-identity.js';
import { tokensAfterGrant } from './token-lifetime.js';

export type EndReason = 'refresh-refused' | 'refresh-lost' | 'identity-changed' | 'token-expired';

/**
 * How a wish for new tokens ended.
 * - `refreshed`: the session with tokens newer than the ones the wish began with, whoever fetched them
 * - `ended`: the session is over, for this reason; its record is gone
 * - `gone`: somebody else ended it meanwhile
 * - `unavailable`: not now; the session stays. Seconds until a retry makes sense
 */
export type RefreshOutcome =
  | { kind: 'refreshed'; session: OpenSession }
  | { kind: 'ended'; reason: EndReason }
  | { kind: 'gone' }
  | { kind: 'unavailable'; retryAfter: number };

/** Who wants to know what refreshes lead to besides new tokens. */
export interface RefreshListener {
  ended(session: OpenSession, cause: EndReason): void;
  /** A refresh token came for a session that had ended meanwhile: nobody may use it any more. */
  stray(session: OpenSession, refreshToken: string): void;
}

type Step = RefreshOutcome | { kind: 'held'; remaining: number };

/** Milliseconds beyond the provider's time limit after which nobody polls for somebody else's refresh any more. */
const PATIENCE = 6000;
const FIRST_POLL = 25;
const LONGEST_POLL = 100;
/** Milliseconds between tries to bring something to a store that does not answer. */
const LONGEST_PAUSE = 250;
/** Milliseconds a fetched pair of tokens is offered to a store that does not answer. */
const COMMIT_FOR = 60_000;

/**
 * Refreshes the tokens of a session once, whatever happens around it: several requests, several replicas, a slow
 * provider, a store that loses replies, a session that ends meanwhile.
 *
 * The claim lives inside the record that it protects, so lock and data cannot disagree; it is written before the refresh
 * token is sent, so a store that cannot take the result is found out while the token is still unspent; and the result is
 * committed by generation, so neither a late sender nor a deleted session can be overwritten.
 */
export class Refresh {
  readonly #records: SessionRecords;
  readonly #epoch: PolicyEpoch;
  readonly #logger: Logger;
  readonly #listener: RefreshListener;
  readonly #flights = new Map<string, Promise<RefreshOutcome>>();

  constructor(records: SessionRecords, epoch: PolicyEpoch, logger: Logger, listener: RefreshListener) {
    this.#records = records;
    this.#epoch = epoch;
    this.#logger = logger;
    this.#listener = listener;
  }

  /** Refreshes that are under way in this process; a shutdown waits for them. */
  get running(): Promise<RefreshOutcome>[] {
    return [...this.#flights.values()];
  }

  /** One flight a session and generation in this process; whoever asks meanwhile gets its result. */
  run(session: OpenSession, provider: OidcClient): Promise<RefreshOutcome> {
    const key = `${session.handle}:${String(session.generation)}`;
    const known = this.#flights.get(key);
    if (known !== undefined) return known;
    const flight = this.#untilDecided(session, provider).finally(() => this.#flights.delete(key));
    this.#flights.set(key, flight);
    return flight;
  }

  async #untilDecided(session: OpenSession, provider: OidcClient): Promise<RefreshOutcome> {
    const attempt = randomBytes(12).toString('base64url');
    const giveUpAt = performance.now() + provider.config.timeout + PATIENCE;
    let poll = FIRST_POLL;
    for (;;) {
      const step = await this.#try(session, provider, attempt);
      if (step.kind !== 'held') return step;
      if (performance.now() > giveUpAt) return { kind: 'unavailable', retryAfter: 1 };
      await sleep(Math.min(poll, step.remaining + 1) * (0.75 + Math.random() / 2));
      poll = Math.min(LONGEST_POLL, poll * 2);
    }
  }

  async #try(session: OpenSession, provider: OidcClient, attempt: string): Promise<Step> {
    try {
      // Before the claim is taken: reading metadata would eat into the time for which it is held.
      await provider.serverMetadata();
      const done = await provider.gate.run(async () => this.#claimAndSend(session, provider, attempt));
      return done.step;
    } catch (error) {
      if (error instanceof CloakroomError && error.code !== 'idp-unavailable') throw error;
      const failure = providerFailure(error);
      return { kind: 'unavailable', retryAfter: 'retryAfter' in failure ? (failure.retryAfter ?? 1) : 1 };
    }
  }

  async #claimAndSend(
    session: OpenSession,
    provider: OidcClient,
    attempt: string,
  ): Promise<{ healthy: boolean | undefined; step: Step }> {
    const startedAt = performance.now();
    // Until the provider was asked, nothing is known about it.
    const healthy = undefined;
    const duration = claimDuration(provider.config);
    const claim = await takeClaim(this.#records.store, session, attempt, duration);
    switch (claim.kind) {
      case 'gone':
        return { healthy, step: { kind: 'gone' } };
      case 'superseded':
        return { healthy, step: await this.#newer(session) };
      case 'held':
        return { healthy, step: { kind: 'held', remaining: claim.remaining } };
      case 'waiting':
        return { healthy, step: { kind: 'unavailable', retryAfter: claim.remaining / 1000 } };
      case 'claimed':
        break;
    }
    // The record as it is now: what was read before the claim may hold a refresh token that is already spent.
    const current = this.#records.open(session.handle, session.secret, claim.session);
    const refreshToken = current?.contents.tokens.refreshToken;
    if (current === undefined || refreshToken === undefined) {
      await this.#release(session, attempt, { backoff: 0, doubtful: false });
      return { healthy, step: { kind: 'gone' } };
    }
    const wait = waitInDoubt(this.#asTheyCount(current), provider.config, claim.doubtfulFor, Date.now());
    if (wait > 0 || performance.now() - startedAt > SEND_WITHIN) {
      await this.#release(session, attempt, { backoff: wait, doubtful: false });
      return { healthy, step: { kind: 'unavailable', retryAfter: Math.max(1, wait / 1000) } };
    }
    return this.#send(current, refreshToken, provider, attempt, claim.doubtfulFor !== undefined);
  }

  /** Tokens from before the policy epoch are no longer handed out: there is nothing good about them to wait for. */
  #asTheyCount({ contents: { tokens } }: OpenSession): Tokens {
    return (tokens.epoch ?? 0) < (this.#epoch.known?.refresh ?? 0) ? { ...tokens, expiresAt: 0 } : tokens;
  }

  async #send(
    session: OpenSession,
    refreshToken: string,
    provider: OidcClient,
    attempt: string,
    doubtful: boolean,
  ): Promise<{ healthy: boolean; step: Step }> {
    const startedAt = performance.now();
    // Before the provider is asked: what changes while it answers asks for newer tokens still.
    const epoch = this.#epoch.known?.refresh;
    let answer: TokenAnswer;
    try {
      answer = await provider.refresh(refreshToken);
    } catch (error) {
      const failure = providerFailure(error);
      const step = await this.#failed(session, provider, attempt, failure, doubtful, error);
      return { healthy: isHealthy(failure), step };
    }
    const step = await this.#accept(session, provider, attempt, answer, epoch);
    const took = Math.round(performance.now() - startedAt);
    if (step.kind === 'refreshed') {
      this.#logger.info('refresh_succeeded', { handle: session.handle, provider: provider.name, ms: took });
    }
    return { healthy: true, step };
  }

  async #accept(
    session: OpenSession,
    provider: OidcClient,
    attempt: string,
    answer: TokenAnswer,
    epoch: number | undefined,
  ): Promise<Step> {
    const identity = await refreshedIdentity(session, provider, answer, this.#logger);
    if (identity === 'changed') {
      await this.#records.store.end(session.handle, endingBy('identity-changed'));
      this.#revokeLater(session, answer.refreshToken);
      return this.#ended(session, 'identity-changed');
    }
    const { rotation, accessTokenLifetime } = provider.config;
    const rules = {
      fallback: accessTokenLifetime,
      leeway: rotation.policy === 'leeway' ? rotation.leeway : 0,
      epoch: epoch ?? session.contents.tokens.epoch ?? 0,
    };
    const contents: SessionContents = {
      ...session.contents,
      idToken:
        identity === 'same' && answer.idToken !== undefined ? answer.idToken : session.contents.idToken,
      tokens: tokensAfterGrant(answer, session.contents.tokens, rules, Date.now(), Math.random()),
    };
    return this.#commit(session, attempt, contents);
  }

  /** The provider has spent the old token: these are the only copy of the new ones until the store has them. */
  async #commit(session: OpenSession, attempt: string, contents: SessionContents): Promise<Step> {
    const { handle, secret, generation } = session;
    const next = this.#records.seal(secret, handle, generation + 1, contents);
    const until = performance.now() + COMMIT_FOR;
    for (let pause = FIRST_POLL; ; pause = Math.min(LONGEST_PAUSE, pause * 2)) {
      try {
        const result = await this.#records.commit(session, attempt, next);
        if (result === 'committed') {
          const refreshed = { ...session, generation: generation + 1, kid: next.kid, contents };
          return { kind: 'refreshed', session: refreshed };
        }
        if (result === 'superseded') return await this.#newer(session);
        // The session ended while the provider was answering: nobody may use these tokens any more.
        this.#revokeLater(session, contents.tokens.refreshToken);
        return { kind: 'gone' };
      } catch (error) {
        if (performance.now() > until) throw error;
        await sleep(pause);
      }
    }
  }

  async #failed(
    session: OpenSession,
    provider: OidcClient,
    attempt: string,
    failure: ProviderFailure,
    doubtful: boolean,
    error: unknown,
  ): Promise<Step> {
    const { handle } = session;
    this.#logger.warn('refresh_failed', { handle, provider: provider.name, reason: failure.kind, error });
    if (failure.kind === 'refused') {
      // Only if nobody has stored newer tokens meanwhile, or is about to: then this refusal is about an old one.
      const refused = { generation: session.generation, attempt };
      const cause = doubtful ? 'refresh-lost' : 'refresh-refused';
      const ended = await this.#records.store.end(handle, endingBy(cause), refused);
      return ended === undefined ? this.#newer(session) : this.#ended(session, cause);
    }
    if (failure.kind === 'misconfigured') {
      this.#logger.error('client_misconfigured', { provider: provider.name });
      provider.reload();
    }
    const unknown = failure.kind === 'unknown' || failure.kind === 'rejected';
    const backoff = backoffAfter(failure);
    await this.#release(session, attempt, { backoff, doubtful: unknown });
    return { kind: 'unavailable', retryAfter: backoff / 1000 };
  }

  #ended(session: OpenSession, reason: EndReason): Step {
    this.#listener.ended(session, reason);
    return { kind: 'ended', reason };
  }

  async #newer(session: OpenSession): Promise<Step> {
    const newer = await this.#records.find(session.handle, session.secret);
    if (newer === undefined) return { kind: 'gone' };
    if (newer.generation > session.generation) return { kind: 'refreshed', session: newer };
    return { kind: 'unavailable', retryAfter: 1 };
  }

  /** A claim that cannot be given back runs out by itself. */
  async #release(session: OpenSession, attempt: string, release: Release): Promise<void> {
    await this.#records.store.release(session.handle, attempt, release).catch(() => undefined);
  }

  #revokeLater(session: OpenSession, refreshToken: string | undefined): void {
    if (refreshToken !== undefined) this.#listener.stray(session, refreshToken);
  }
}
