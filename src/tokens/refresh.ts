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
import type { Grant } from './grants.js';
import { takeClaim } from './refresh-claim.js';
import type { EndReason, RefreshListener, RefreshOutcome } from './refresh-outcome.js';
import { backoffAfter, claimDuration, isFinal, SEND_WITHIN, waitInDoubt } from './refresh-timing.js';
import { refreshedIdentity } from './refreshed-identity.js';

/** What is wanted, of whom, and how. */
interface Attempt {
  /** Names its claim. */
  id: string;
  provider: OidcClient;
  grant: Grant;
  /** Before its time, because somebody said that the token at hand is no good. */
  forced: boolean;
}

/** `moved`: the session has changed without bringing what was wished for. */
type Step = RefreshOutcome | { kind: 'held'; remaining: number } | { kind: 'moved'; session: OpenSession };

/** Milliseconds beyond the provider's time limit after which nobody polls for somebody else's refresh any more. */
const PATIENCE = 6000;
const FIRST_POLL = 25;
const LONGEST_POLL = 100;
/** Milliseconds between tries to bring something to a store that does not answer. */
const LONGEST_PAUSE = 250;
/** Milliseconds a fetched pair of tokens is offered to a store that does not answer. */
const COMMIT_FOR = 60_000;

/**
 * Fetches new tokens for a session once, whatever happens around it: several requests, several replicas, a slow
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

  /**
   * One flight a session, generation and grant in this process; whoever asks meanwhile gets its result. Different grants of
   * one session take turns.
   */
  run(session: OpenSession, provider: OidcClient, grant: Grant, forced = false): Promise<RefreshOutcome> {
    const key = `${session.handle}:${String(session.generation)}:${grant.name}`;
    const known = this.#flights.get(key);
    if (known !== undefined) return known;
    const attempt = { id: randomBytes(12).toString('base64url'), provider, grant, forced };
    const flight = this.#untilDecided(session, attempt).finally(() => this.#flights.delete(key));
    this.#flights.set(key, flight);
    return flight;
  }

  /** The session as it is now; undefined once it is over. */
  newest(session: OpenSession): Promise<OpenSession | undefined> {
    return this.#records.find(session.handle, session.secret);
  }

  async #untilDecided(session: OpenSession, attempt: Attempt): Promise<RefreshOutcome> {
    const giveUpAt = performance.now() + attempt.provider.config.timeout + PATIENCE;
    let current = session;
    let poll = FIRST_POLL;
    for (;;) {
      const step = await this.#try(current, attempt);
      if (step.kind !== 'held' && step.kind !== 'moved') return step;
      if (performance.now() > giveUpAt) return { kind: 'unavailable', retryAfter: 1 };
      if (step.kind === 'moved') {
        current = step.session;
        continue;
      }
      await sleep(Math.min(poll, step.remaining + 1) * (0.75 + Math.random() / 2));
      poll = Math.min(LONGEST_POLL, poll * 2);
    }
  }

  async #try(session: OpenSession, attempt: Attempt): Promise<Step> {
    const { provider } = attempt;
    try {
      // Before the claim is taken: reading metadata would eat into the time for which it is held.
      await provider.serverMetadata();
      const done = await provider.gate.run(async () => this.#claimAndSend(session, attempt));
      return done.step;
    } catch (error) {
      if (error instanceof CloakroomError && error.code !== 'idp-unavailable') throw error;
      const failure = providerFailure(error);
      return { kind: 'unavailable', retryAfter: 'retryAfter' in failure ? (failure.retryAfter ?? 1) : 1 };
    }
  }

  async #claimAndSend(
    session: OpenSession,
    attempt: Attempt,
  ): Promise<{ healthy: boolean | undefined; step: Step }> {
    const { config } = attempt.provider;
    const startedAt = performance.now();
    // Until the provider was asked, nothing is known about it.
    const healthy = undefined;
    const duration = claimDuration(config);
    const claim = await takeClaim(this.#records.store, session, attempt.id, duration);
    switch (claim.kind) {
      case 'gone':
        return { healthy, step: { kind: 'gone' } };
      case 'superseded':
        return { healthy, step: await this.#newer(session, attempt) };
      case 'held':
        return { healthy, step: { kind: 'held', remaining: claim.remaining } };
      case 'waiting':
        return { healthy, step: { kind: 'unavailable', retryAfter: claim.remaining / 1000 } };
      case 'claimed':
        break;
    }
    // The record as it is now: what was read before the claim may hold a refresh token that is already spent.
    const current = this.#records.open(session.handle, session.secret, claim.session);
    const { spendsRefreshToken } = attempt.grant;
    if (current === undefined || (spendsRefreshToken && current.contents.tokens.refreshToken === undefined)) {
      await this.#release(session, attempt, { backoff: 0, doubtful: false });
      return { healthy, step: { kind: 'gone' } };
    }
    const wait = spendsRefreshToken
      ? waitInDoubt(this.#asTheyCount(current), config, claim.doubtfulFor, Date.now())
      : 0;
    if (wait > 0 || performance.now() - startedAt > SEND_WITHIN) {
      await this.#release(session, attempt, { backoff: wait, doubtful: false });
      return { healthy, step: { kind: 'unavailable', retryAfter: Math.max(1, wait / 1000) } };
    }
    return this.#send(current, attempt, claim.doubtfulFor !== undefined);
  }

  /** Tokens from before the policy epoch are no longer handed out: there is nothing good about them to wait for. */
  #asTheyCount({ contents: { tokens } }: OpenSession): Tokens {
    return (tokens.epoch ?? 0) < (this.#epoch.known?.refresh ?? 0) ? { ...tokens, expiresAt: 0 } : tokens;
  }

  async #send(
    session: OpenSession,
    attempt: Attempt,
    doubtful: boolean,
  ): Promise<{ healthy: boolean; step: Step }> {
    const { provider, grant } = attempt;
    const startedAt = performance.now();
    // Before the provider is asked: what changes while it answers asks for newer tokens still.
    const epoch = this.#epoch.known?.refresh;
    let answer: TokenAnswer;
    try {
      answer = await grant.ask(provider, session.contents.tokens);
    } catch (error) {
      const failure = providerFailure(error);
      const step = await this.#failed(session, attempt, { failure, doubtful, error });
      return { healthy: isHealthy(failure), step };
    }
    const step = await this.#accept(session, attempt, answer, epoch);
    const took = Math.round(performance.now() - startedAt);
    if (step.kind === 'refreshed') {
      const fields = { handle: session.handle, provider: provider.name, grant: grant.name, ms: took };
      this.#logger.info('refresh_succeeded', fields);
    }
    return { healthy: true, step };
  }

  async #accept(
    session: OpenSession,
    attempt: Attempt,
    answer: TokenAnswer,
    epoch: number | undefined,
  ): Promise<Step> {
    const { provider, grant, forced } = attempt;
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
      forced,
    };
    const keeping = { rules, now: Date.now(), random: Math.random() };
    const contents: SessionContents = {
      ...session.contents,
      idToken:
        identity === 'same' && answer.idToken !== undefined ? answer.idToken : session.contents.idToken,
      tokens: grant.keep(answer, session.contents.tokens, keeping),
    };
    return this.#commit(session, attempt, contents);
  }

  /** The provider has spent the old token: these are the only copy of the new ones until the store has them. */
  async #commit(session: OpenSession, attempt: Attempt, contents: SessionContents): Promise<Step> {
    const { handle, secret, generation } = session;
    const { spendsRefreshToken } = attempt.grant;
    const sealed = this.#records.seal(secret, handle, generation + 1, contents);
    const next = { ...sealed, keepsDoubt: !spendsRefreshToken };
    const until = performance.now() + COMMIT_FOR;
    for (let pause = FIRST_POLL; ; pause = Math.min(LONGEST_PAUSE, pause * 2)) {
      try {
        const result = await this.#records.commit(session, attempt.id, next);
        if (result === 'committed') {
          const refreshed = { ...session, generation: generation + 1, kid: next.kid, contents };
          return { kind: 'refreshed', session: refreshed };
        }
        if (result === 'superseded') return await this.#newer(session, attempt);
        // The session ended while the provider was answering: nobody may use these tokens any more.
        if (spendsRefreshToken) this.#revokeLater(session, contents.tokens.refreshToken);
        return { kind: 'gone' };
      } catch (error) {
        if (performance.now() > until) throw error;
        await sleep(pause);
      }
    }
  }

  async #failed(
    session: OpenSession,
    attempt: Attempt,
    { failure, doubtful, error }: { failure: ProviderFailure; doubtful: boolean; error: unknown },
  ): Promise<Step> {
    const { handle } = session;
    const { provider, grant } = attempt;
    const fields = { handle, provider: provider.name, grant: grant.name, reason: failure.kind, error };
    this.#logger.warn('refresh_failed', fields);
    if (failure.kind === 'refused' && grant.endsSession(failure.error)) {
      // Only if nobody has stored newer tokens meanwhile, or is about to: then this refusal is about an old one.
      const refused = { generation: session.generation, attempt: attempt.id };
      const cause = doubtful ? 'refresh-lost' : 'refresh-refused';
      const ended = await this.#records.store.end(handle, endingBy(cause), refused);
      return ended === undefined ? this.#newer(session, attempt) : this.#ended(session, cause);
    }
    if (failure.kind === 'refused' || (!grant.spendsRefreshToken && isFinal(failure))) {
      await this.#release(session, attempt, { backoff: 0, doubtful: false });
      return { kind: 'refused' };
    }
    if (failure.kind === 'misconfigured') {
      this.#logger.error('client_misconfigured', { provider: provider.name });
      provider.reload();
    }
    const unknown = failure.kind === 'unknown' || failure.kind === 'rejected';
    const backoff = backoffAfter(failure, grant.spendsRefreshToken);
    await this.#release(session, attempt, { backoff, doubtful: unknown && grant.spendsRefreshToken });
    return { kind: 'unavailable', retryAfter: backoff / 1000 };
  }

  #ended(session: OpenSession, reason: EndReason): Step {
    this.#listener.ended(session, reason);
    return { kind: 'ended', reason };
  }

  async #newer(session: OpenSession, { grant }: Attempt): Promise<Step> {
    const newer = await this.newest(session);
    if (newer === undefined) return { kind: 'gone' };
    if (newer.generation <= session.generation) return { kind: 'unavailable', retryAfter: 1 };
    const [before, now] = [grant.held(session.contents.tokens), grant.held(newer.contents.tokens)];
    // Drawn anew for every token, also where a provider gives the same one twice.
    const isNew = now !== undefined && now.refreshAt !== before?.refreshAt;
    return { kind: isNew ? 'refreshed' : 'moved', session: newer };
  }

  /** A claim that cannot be given back runs out by itself. */
  async #release(session: OpenSession, { id }: Attempt, release: Release): Promise<void> {
    await this.#records.store.release(session.handle, id, release).catch(() => undefined);
  }

  #revokeLater(session: OpenSession, refreshToken: string | undefined): void {
    if (refreshToken !== undefined) this.#listener.stray(session, refreshToken);
  }
}
