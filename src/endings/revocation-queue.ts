import type { Config } from '../config/config.js';
import type { Logger } from '../observability/logger.js';
import type { Providers } from '../oidc/providers.js';
import { endingBy } from '../store/ending.js';
import type { RevocableToken, RevocationEnvelopes } from '../store/revocation-envelope.js';
import type { Store } from '../store/store.js';
import { RevocationAttempts, type Attempt } from './revocation-attempts.js';
import { RevocationJournal } from './revocation-journal.js';
import type { RevocationRecord } from './revocation-record.js';

/**
 * Milliseconds between the word that a session will be ended and the look whether it was. Longer than an ending of many
 * is left to a process that died (10 s): whoever goes on with that one knows the cause.
 */
const FINISH_AFTER = 15_000;
/** Milliseconds between two looks for what is due. */
const LOOK_EVERY = 1000;
/** Revocations under way at once in this process. */
const AT_ONCE = 32;
/** Milliseconds after which a claim is not acted on any more: the rest of its time is the provider's. */
const SEND_WITHIN = 2000;
const FIRST_DELAY = 2000;
const LONGEST_DELAY = 2 * 60 * 1000;
/** Milliseconds until what this process cannot open is due again. */
const FIRST_SEALED_DELAY = 2000;
const LONGEST_SEALED_DELAY = 10_000;
/** How many times rarer a process looks after it met what it cannot open, so that others come first. */
const STEP_BACK = 5;
/** Milliseconds that leaving waits for providers. What they answer later is asked again by another process. */
const STOP_WITHIN = 5000;

/**
 * Refresh tokens to revoke at their provider: tried at once, and again until the provider has taken them or the time is
 * up. A handle is queued before its session is ended, so that whoever finds it there after a crash can finish both.
 */
export class RevocationQueue {
  readonly #store: Store;
  readonly #envelopes: RevocationEnvelopes;
  readonly #logger: Logger;
  readonly #journal: RevocationJournal;
  readonly #attempts: RevocationAttempts;
  readonly #retryFor: number;
  /** Longer than any attempt takes: what is claimed is left alone for this time. */
  readonly #lease: number;
  /** By handle. */
  readonly #running = new Map<string, Promise<void>>();
  #looking: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;
  #metSealed = false;

  constructor(parts: {
    store: Store;
    envelopes: RevocationEnvelopes;
    providers: Providers;
    config: Config;
    logger: Logger;
  }) {
    this.#store = parts.store;
    this.#envelopes = parts.envelopes;
    this.#logger = parts.logger;
    this.#retryFor = parts.config.revocation.retryFor;
    this.#journal = new RevocationJournal(parts.store, this.#retryFor);
    this.#attempts = new RevocationAttempts(parts.providers);
    const calls = parts.config.providers.map(({ timeout, metadataTimeout }) => timeout + metadataTimeout);
    this.#lease = Math.max(...calls) + 2 * SEND_WITHIN;
  }

  /** Whether sessions carry an envelope that can be kept: without one only a token at hand can be revoked. */
  get enabled(): boolean {
    return this.#envelopes.canSeal;
  }

  /**
   * To be called before sessions are ended. If nothing more is heard of them in a few seconds, they are ended as well:
   * never for an ending that depends on something.
   */
  async intend(handles: readonly string[]): Promise<void> {
    if (this.enabled) await this.#journal.add(handles, FINISH_AFTER);
  }

  /** They are ended: whoever works the queue off may begin. */
  async due(handles: readonly string[]): Promise<void> {
    if (this.enabled) await this.#journal.add(handles, 0);
  }

  /** They are ended, by this process or by another, and this one has nothing to revoke. */
  async forget(handles: readonly string[]): Promise<void> {
    if (this.enabled) await this.#journal.forget(handles);
  }

  /**
   * One try, right after a session was ended; never fails. What does not succeed stays in the queue.
   * @param atHand the token that the session had at its end, where its cookie is there to tell
   */
  async revokeNow(handle: string, atHand?: RevocableToken): Promise<void> {
    if (!this.enabled) {
      if (atHand !== undefined) await this.#track(handle, () => this.#revokeOnce(handle, atHand));
      return;
    }
    if (atHand === undefined && !this.#envelopes.canOpen) return;
    // What finds no room here is due anyway in a moment.
    if (this.#running.size >= AT_ONCE) return;
    const notAfter = performance.now() + SEND_WITHIN;
    await this.#track(handle, async () => {
      await this.#journal.hold(handle, this.#lease);
      if (atHand === undefined) await this.#work(handle, notAfter);
      else await this.#revokeAtHand(handle, atHand, notAfter);
    });
  }

  /** A token that came back for a session that had ended meanwhile: the session's own envelope holds an older one. */
  async revokeStray(handle: string, token: RevocableToken): Promise<void> {
    const id = `${handle}.stray`;
    const envelope = this.#envelopes.seal(id, token, token.refreshToken);
    // It is tried in any case: this process holds the only copy.
    if (envelope !== undefined) {
      await this.#journal.put(id, envelope, FINISH_AFTER).catch(() => undefined);
    }
    await this.revokeNow(id, token);
  }

  /** Works the queue off, where this process can open envelopes. */
  start(): void {
    if (this.#envelopes.canOpen) this.#lookLater();
  }

  /** Waits a moment for what is under way; the rest stays for others. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#looking;
    const rest = new Promise((resolve) => setTimeout(resolve, STOP_WITHIN).unref());
    await Promise.race([Promise.all(this.#running.values()), rest]);
  }

  #lookLater(): void {
    if (this.#stopped) return;
    const delay = LOOK_EVERY * (this.#metSealed ? STEP_BACK : 1) * (0.75 + Math.random() / 2);
    this.#metSealed = false;
    this.#timer = setTimeout(() => {
      // The store says itself that it is not available.
      this.#looking = this.#look().catch(() => undefined);
      void this.#looking.then(() => {
        this.#lookLater();
      });
    }, delay);
  }

  /** Never claims more than it can begin with at once: a claim is good for one attempt's time. */
  async #look(): Promise<void> {
    while (!this.#stopped && !this.#attempts.allResting) {
      const free = AT_ONCE - this.#running.size;
      if (free <= 0) {
        await Promise.race(this.#running.values());
        continue;
      }
      const notAfter = performance.now() + SEND_WITHIN;
      const handles = await this.#journal.claim(free, this.#lease);
      for (const handle of handles) void this.#track(handle, () => this.#work(handle, notAfter));
      if (handles.length < free) return;
    }
  }

  #track(handle: string, work: () => Promise<void>): Promise<void> {
    const already = this.#running.get(handle);
    if (already !== undefined) return already;
    const running = work()
      .catch((error: unknown) => {
        // Nothing is lost: the entry is due again when its time is over.
        this.#logger.debug('revocation_interrupted', { handle, error });
      })
      .finally(() => {
        this.#running.delete(handle);
      });
    this.#running.set(handle, running);
    return running;
  }

  async #work(handle: string, notAfter: number): Promise<void> {
    const record = await this.#find(handle);
    if (record === undefined) {
      await this.#journal.drop(handle);
      return;
    }
    const token = this.#envelopes.open(handle, record.envelope);
    if (token === undefined) {
      // Another process may have the key: secrets are rotated one process after the other.
      this.#metSealed = true;
      const age = record.since === undefined ? 0 : Date.now() - record.since;
      const delay = Math.min(LONGEST_SEALED_DELAY, Math.max(FIRST_SEALED_DELAY, age / 2));
      const sealed = { kind: 'later', tried: record.since === undefined, reason: 'sealed', delay } as const;
      await this.#failed(handle, undefined, sealed, record);
      return;
    }
    const attempt = await this.#attempts.revoke(token, notAfter);
    if (attempt.kind === 'later') await this.#failed(handle, token.provider, attempt, record);
    else await this.#over(handle, token.provider, attempt);
  }

  async #revokeAtHand(handle: string, token: RevocableToken, notAfter: number): Promise<void> {
    const attempt = await this.#attempts.revoke(token, notAfter);
    if (attempt.kind === 'over') {
      await this.#over(handle, token.provider, attempt);
      return;
    }
    const envelope = this.#envelopes.seal(handle, token, token.refreshToken);
    // The session may have begun before there was a key to seal for.
    const record = (await this.#find(handle)) ?? (envelope && { envelope, since: undefined, tries: 0 });
    await this.#failed(handle, token.provider, attempt, record);
  }

  /** Where nothing can be kept for later. */
  async #revokeOnce(handle: string, token: RevocableToken): Promise<void> {
    const attempt = await this.#attempts.once(token);
    if (attempt.kind === 'later') await this.#failed(handle, token.provider, attempt, undefined);
    else this.#logOver(handle, token.provider, attempt);
  }

  /** @returns undefined when there is nothing to revoke */
  async #find(handle: string): Promise<RevocationRecord | undefined> {
    const record = await this.#journal.find(handle);
    if (record !== undefined) return record;
    // Whoever meant to end this session did not get that far.
    if ((await this.#store.peek(handle)) !== undefined) {
      const ended = await this.#store.end(handle, endingBy('elsewhere', this.#retryFor));
      if (ended)
        this.#logger.audit('session_ended', { actor: 'system', handle, cause: 'elsewhere', resumed: true });
    }
    // Again, in this order: it may have been ended between the two looks, and then has a record now.
    return this.#journal.find(handle);
  }

  async #over(handle: string, provider: string, attempt: Attempt & { kind: 'over' }): Promise<void> {
    this.#logOver(handle, provider, attempt);
    await this.#journal.remove(handle);
  }

  #logOver(handle: string, provider: string, { revoked, reason }: Attempt & { kind: 'over' }): void {
    if (revoked) this.#logger.info('refresh_token_revoked', { handle, provider });
    else this.#logger.info('revocation_dropped', { handle, provider, reason });
  }

  async #failed(
    handle: string,
    provider: string | undefined,
    { tried, reason, delay, error }: Attempt & { kind: 'later' },
    record: RevocationRecord | undefined,
  ): Promise<void> {
    const tries = record?.tries ?? 0;
    // Once for each token: in an outage there may be thousands, tried again every other minute.
    this.#logger[tried && tries === 0 ? 'warn' : 'debug']('revocation_failed', {
      handle,
      provider,
      reason,
      error,
    });
    if (record === undefined) return;
    const own = Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** Math.min(tries, 10)) * (0.75 + Math.random() / 2);
    const wait = tried ? Math.max(own, delay) : Math.max(FIRST_DELAY, delay) * (1 + Math.random() / 2);
    if (await this.#journal.failed(handle, record, tried, wait)) return;
    this.#logger.error('revocation_given_up', { handle, provider, reason });
    await this.#journal.remove(handle);
  }
}
