import { createHash } from 'node:crypto';
import type { ServerSeal } from '../store/server-seal.js';
import type { Durability, EndCause, SetName, Store } from '../store/store.js';
import type { Actor } from './audit-log.js';
import type { SessionFilter } from './filter.js';

/** An ending of many sessions, written down before the first of them ends. Times are milliseconds since the epoch. */
export interface EndingJob {
  filter: SessionFilter;
  cause: EndCause;
  reason: string;
  actor: Actor;
  /** When it was asked for, by the store's clock. */
  at: number;
  /** When the provider said so, by its own clock. */
  saidAt?: number;
  ended: number;
  /** Set when it is done. */
  durability?: Durability;
}

const QUEUE: SetName = { kind: 'queue', id: 'endings' };
/** Those begun in the last minutes, by the time they were asked for. */
const BEGUN: SetName = { kind: 'queue', id: 'endings-begun' };
/** Milliseconds: longer than it takes to store a session once the provider has answered. */
const REMEMBERED_FOR = 5 * 60 * 1000;
const FORGET_AT_ONCE = 1000;
const KEPT_FOR = 24 * 60 * 60 * 1000;
/** Milliseconds after which a process that did not say that it is still at work is taken for dead. */
const LEASE = 10_000;

/** The journal of endings: what a process that died had begun is finished by another. */
export class EndingJobs {
  readonly #store: Store;
  readonly #seal: ServerSeal;

  constructor(store: Store, seal: ServerSeal) {
    this.#store = store;
    this.#seal = seal;
  }

  /** The place of a job that its caller named: the same name is the same job. */
  static idOf(name: string): string {
    return createHash('sha256').update('cloakroom/ending/v1').update(name).digest('base64url');
  }

  async find(id: string): Promise<EndingJob | undefined> {
    return this.#seal.open('ending', id, await this.#store.get('ending', id)) as EndingJob | undefined;
  }

  /** @returns false when there is such a job already, which stays as it is */
  async begin(id: string, job: EndingJob): Promise<boolean> {
    // The entry first: a record without one would never be finished by anybody.
    await this.#store.addTo(QUEUE, [{ member: id, score: job.at + LEASE }], KEPT_FOR);
    const begun = await this.#store.putNew('ending', id, this.#seal.seal('ending', id, job), KEPT_FOR);
    if (begun) await this.#remember(id, job.at);
    return begun;
  }

  /** Those asked for at a time or later, as far back as a login that was then under way may reach. */
  async since(time: number): Promise<EndingJob[]> {
    const begun = await this.#store.pageOf(BEGUN, {
      after: { member: '', score: time },
      limit: FORGET_AT_ONCE,
    });
    const jobs = await Promise.all(begun.map(({ member }) => this.find(member)));
    return jobs.filter((job) => job !== undefined);
  }

  async progress(id: string, job: EndingJob): Promise<void> {
    await this.#write(id, job);
    await this.#store.postpone(QUEUE, id, LEASE);
  }

  async finish(id: string, job: EndingJob): Promise<void> {
    await this.#write(id, job);
    await this.#store.removeFrom(QUEUE, [id]);
  }

  /** A job whose process has been silent for too long; it is ours now. */
  async claim(): Promise<{ id: string; job: EndingJob } | undefined> {
    const [id] = await this.#store.claimDue(QUEUE, 1, LEASE);
    if (id === undefined) return undefined;
    const job = await this.find(id);
    if (job !== undefined && job.durability === undefined) return { id, job };
    await this.#store.removeFrom(QUEUE, [id]);
    return undefined;
  }

  async #remember(id: string, at: number): Promise<void> {
    const old = await this.#store.pageOf(BEGUN, { to: at - REMEMBERED_FOR, limit: FORGET_AT_ONCE });
    const forgotten = old.map(({ member }) => member);
    await this.#store.removeFrom(BEGUN, forgotten);
    await this.#store.addTo(BEGUN, [{ member: id, score: at }], REMEMBERED_FOR);
  }

  async #write(id: string, job: EndingJob): Promise<void> {
    await this.#store.put('ending', id, this.#seal.seal('ending', id, job), KEPT_FOR);
  }
}
