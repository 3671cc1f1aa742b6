import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Config, ProviderConfig } from '../config/config.js';
import { CloakroomError } from '../errors.js';
import type { Logger } from '../observability/logger.js';
import { endingBy } from '../store/ending.js';
import type { IndexedSession, SessionIndex, Whose } from '../store/session-index.js';
import type { SessionRecords } from '../store/session-records.js';
import type { Durability, EndCause, EndedSession } from '../store/store.js';
import type { Actor, AuditLog } from './audit-log.js';
import { EndingJobs, type EndingJob } from './ending-jobs.js';
import { matches, requireSelection, subjectIn, type FoundSession, type SessionFilter } from './filter.js';
import { DENIED_FOR, type IdentityMarks, type Mark } from './identity-marks.js';
import type { RevocationQueue } from './revocation-queue.js';
import type { SessionDirectory } from './session-directory.js';

export interface How {
  cause: EndCause;
  /** Why, in the words of whoever asked. */
  reason: string;
  actor: Actor;
}

export type Revoke = 'no' | 'queued' | 'at-hand';

export interface EndMany extends How {
  /** A name for this act: the same name again is the same act, and answers what the first did. */
  id?: string;
  /** When the provider said so, by its clock, in milliseconds since the epoch. */
  providerSaidAt?: number;
  /** Told after each page how many have ended. */
  progress?: (ended: number) => void;
}

export interface EndingResult {
  id: string;
  ended: number;
  durability: Durability;
}

/** Milliseconds by which the clock of a process that began a session may be ahead of the store's. */
const SKEW = 2000;
/** Milliseconds between two looks at an act that another process has begun. */
const LOOK_EVERY = 100;

/**
 * Ends sessions, for operators, providers and users alike. In this order: what is to be done is written down, the person is
 * marked so that no login under way slips through, each session ends in one step in the store (which tells every process),
 * the index forgets it. A process that dies anywhere in between leaves what another one finishes.
 */
export class EndingsService {
  readonly #providers: readonly ProviderConfig[];
  readonly #freshFor: number;
  readonly #retryFor: number;
  readonly #records: SessionRecords;
  readonly #index: SessionIndex;
  readonly #directory: SessionDirectory;
  readonly #marks: IdentityMarks;
  readonly #jobs: EndingJobs;
  readonly #revocations: RevocationQueue;
  readonly #audit: AuditLog;
  readonly #logger: Logger;

  constructor(parts: {
    config: Config;
    records: SessionRecords;
    index: SessionIndex;
    directory: SessionDirectory;
    marks: IdentityMarks;
    jobs: EndingJobs;
    revocations: RevocationQueue;
    audit: AuditLog;
    logger: Logger;
  }) {
    this.#providers = parts.config.providers;
    this.#freshFor = parts.config.session.freshLoginFor;
    this.#retryFor = parts.config.revocation.retryFor;
    this.#records = parts.records;
    this.#index = parts.index;
    this.#directory = parts.directory;
    this.#marks = parts.marks;
    this.#jobs = parts.jobs;
    this.#revocations = parts.revocations;
    this.#audit = parts.audit;
    this.#logger = parts.logger;
  }

  /**
   * Ends every session that a filter means and that began before now.
   *
   * @throws {CloakroomError} `bad-request` for a filter that names nothing; `store-unavailable`, and then what was begun is
   *   finished by whoever reaches the store first
   */
  async end(filter: SessionFilter, how: EndMany): Promise<EndingResult> {
    requireSelection(filter);
    const id = EndingJobs.idOf(how.id ?? randomUUID());
    if (how.id !== undefined && (await this.#jobs.find(id)) !== undefined) return this.#await(id);
    const now = await this.#records.store.now();
    const job: EndingJob = {
      filter: { ...filter, createdBefore: Math.min(filter.createdBefore ?? Infinity, now + SKEW) },
      cause: how.cause,
      reason: how.reason,
      actor: how.actor,
      at: now,
      ...(how.providerSaidAt === undefined ? {} : { saidAt: how.providerSaidAt }),
      ended: 0,
    };
    if (!(await this.#jobs.begin(id, job))) return this.#await(id);
    return this.#run(id, job, how.progress);
  }

  /** The result of an act that somebody has begun: of two who end the same, each would count a part. */
  async #await(id: string): Promise<EndingResult> {
    for (;;) {
      const job = await this.#jobs.find(id);
      if (job === undefined) throw new CloakroomError('internal');
      const { ended, durability } = job;
      if (durability !== undefined) return { id, ended, durability };
      // It may be that of a process that died.
      await this.resume();
      await sleep(LOOK_EVERY);
    }
  }

  /** What became of an act, as far as it has come; kept for a day. */
  async result(id: string): Promise<{ ended: number; durability: Durability | undefined } | undefined> {
    const job = await this.#jobs.find(id);
    return job && { ended: job.ended, durability: job.durability };
  }

  /**
   * Ends one session. Nothing is written down first but its revocation: it is one step.
   *
   * @param revoke whether the refresh token is to be revoked: by whoever works the queue off, or by the caller, who has it at
   *   hand
   * @returns undefined when there was none
   */
  async endOne(handle: string, how: How, revoke: Revoke): Promise<EndedSession | undefined> {
    const keep = revoke !== 'no' && this.#revocations.enabled ? this.#retryFor : 0;
    // A store too full for this still lets the session end, which matters more.
    if (keep > 0) await this.#revocations.intend([handle]).catch(() => undefined);
    const ended = await this.#records.store.end(handle, endingBy(how.cause, keep));
    if (keep > 0 && ended?.revocation !== true) this.#later(this.#revocations.forget([handle]));
    if (revoke === 'queued' && ended?.revocation === true) this.#later(this.#revocations.due([handle]));
    if (ended === undefined) return undefined;
    const about = this.#records.about(handle, ended.about);
    this.noteEnded(handle, about, how);
    if (about !== undefined && this.#asksForFreshLogin(how.cause)) {
      const at = await this.#records.store.now();
      await this.#marks.put(subjectOf(about), { at, freshUntil: at + this.#freshFor });
    }
    return ended;
  }

  /** Counts, writes down and tidies up after a session that has just ended. */
  noteEnded(handle: string, whose: IndexedSession | undefined, { cause, reason, actor }: How): void {
    this.#audit.count(cause, 1);
    this.#audit.record('session_ended', actor, { handle, cause, reason, provider: whose?.provider });
    this.#later(this.#index.remove([{ handle, about: whose }]));
  }

  /**
   * To be asked when a session has just been stored: whether it began before an act that means it was asked for. That act
   * may have looked for sessions a moment too early; it was written down before it looked, so one of the two sees the other.
   *
   * @returns why that act ends sessions
   */
  async overtaken(handle: string): Promise<EndCause | undefined> {
    const found = await this.#directory.find(handle);
    if (found === undefined) return undefined;
    const since = await this.#jobs.since(found.createdAt);
    return since.find(({ filter }) => matches(filter, found, Date.now()))?.cause;
  }

  /** Goes on with what a process that died had begun. */
  async resume(): Promise<void> {
    const claimed = await this.#jobs.claim();
    if (claimed === undefined) return;
    this.#logger.warn('ending_resumed', { ending: claimed.id, ended: claimed.job.ended });
    await this.#run(claimed.id, claimed.job, undefined);
  }

  async #run(
    id: string,
    job: EndingJob,
    progress: ((ended: number) => void) | undefined,
  ): Promise<EndingResult> {
    await this.#markKnown(job);
    let { ended } = job;
    for await (const page of this.#directory.pages(job.filter)) {
      ended += await this.#endPage(page, job);
      await this.#jobs.progress(id, { ...job, ended });
      progress?.(ended);
    }
    const durability = await this.#records.store.confirm();
    const { createdBefore, ...filter } = job.filter;
    this.#audit.record('sessions_ended', job.actor, {
      ending: id,
      cause: job.cause,
      reason: job.reason,
      filter,
      createdBefore: new Date(createdBefore ?? job.at).toISOString(),
      ended,
      durability,
    });
    // Last: should this process die just before, the next one says so once more rather than nobody.
    await this.#jobs.finish(id, { ...job, ended, durability });
    return { id, ended, durability };
  }

  async #endPage(page: readonly FoundSession[], job: EndingJob): Promise<number> {
    const handles = page.map(({ handle }) => handle);
    const keep = this.#revokes(job) ? this.#retryFor : 0;
    if (keep > 0) await this.#revocations.intend(handles);
    const results = await this.#records.store.endMany(handles, endingBy(job.cause, keep));
    const ended = page.filter((_, i) => results[i] !== undefined);
    if (keep > 0) {
      await this.#revocations.due(handles.filter((_, i) => results[i]?.revocation === true));
      await this.#revocations.forget(handles.filter((_, i) => results[i]?.revocation !== true));
    }
    if (this.#asksForFreshLogin(job.cause)) await this.#markFresh(ended, job);
    await this.#index.remove(page);
    this.#audit.count(job.cause, ended.length);
    for (const { handle } of ended) this.#logger.info('session_ended', { handle, cause: job.cause });
    return ended.length;
  }

  /** Before anything ends: a login that is being stored now finds the mark when it looks once more. */
  async #markKnown({ filter, cause, at, saidAt }: EndingJob): Promise<void> {
    if (!this.#asksForFreshLogin(cause)) return;
    const { issuer, sid } = filter;
    const subject = subjectIn(filter);
    const issuers = issuer === undefined ? this.#providers.map((provider) => provider.issuer) : [issuer];
    for (const from of new Set(issuers)) {
      if (sid !== undefined) {
        const mark = { at, freshUntil: 0, deniedUntil: at + DENIED_FOR };
        await this.#marks.put({ kind: 'sid', issuer: from, sid }, mark);
      } else if (subject !== undefined) {
        const denied = saidAt === undefined ? {} : { deniedIssuedUntil: saidAt };
        const mark: Mark = { at, freshUntil: at + this.#freshFor, ...denied };
        await this.#marks.put({ kind: 'subject', issuer: from, subject }, mark);
      }
    }
  }

  async #markFresh(ended: readonly FoundSession[], job: EndingJob): Promise<void> {
    if (job.filter.sid === undefined && subjectIn(job.filter) !== undefined) return;
    const subjects = new Map<string, Exclude<Whose, { kind: 'all' }>>();
    for (const { about } of ended) {
      if (about !== undefined) subjects.set(JSON.stringify([about.issuer, about.subject]), subjectOf(about));
    }
    const mark = { at: job.at, freshUntil: job.at + this.#freshFor };
    await Promise.all([...subjects.values()].map((subject) => this.#marks.put(subject, mark)));
  }

  #asksForFreshLogin(cause: EndCause): boolean {
    return cause === 'operator' || cause === 'provider';
  }

  /** A provider that ends its own session ends what came from it, except what was meant to outlive it. */
  #revokes({ cause, filter }: EndingJob): boolean {
    if (!this.#revocations.enabled) return false;
    if (cause !== 'provider') return true;
    return this.#providers.some(
      ({ issuer, revokeOnBackchannelLogout }) => issuer === filter.issuer && revokeOnBackchannelLogout,
    );
  }

  /** What only tidies up: nobody waits, and what fails is found again by the worker or the sweep. */
  #later(work: Promise<void>): void {
    work.catch(() => undefined);
  }
}

function subjectOf({
  issuer,
  subject,
}: {
  issuer: string;
  subject: string;
}): Exclude<Whose, { kind: 'all' }> {
  return { kind: 'subject', issuer, subject };
}
