import { CloakroomError } from '../errors.js';
import type { PolicyEpoch } from '../store/policy-epoch.js';
import type { SessionIndex } from '../store/session-index.js';
import type { SessionRecords } from '../store/session-records.js';
import type { Ranked, SetName } from '../store/store.js';
import {
  listed,
  matches,
  subjectIn,
  type FoundSession,
  type ListedSession,
  type SessionFilter,
} from './filter.js';

const PAGE = 256;
/** Records one answer looks at; a filter that matches little goes on in the next. */
const LOOK_AT_MOST = 20 * PAGE;
/** Milliseconds within which an entry may belong to a session that is just being written. */
const SETTLING = 60_000;

/** Finds and lists sessions without their cookies, in pages: memory does not grow with their number. */
export class SessionDirectory {
  readonly #records: SessionRecords;
  readonly #index: SessionIndex;
  readonly #epoch: PolicyEpoch;
  readonly #issuers: readonly string[];

  /** @param issuers of the configured providers */
  constructor(records: SessionRecords, index: SessionIndex, epoch: PolicyEpoch, issuers: readonly string[]) {
    this.#records = records;
    this.#index = index;
    this.#epoch = epoch;
    this.#issuers = [...new Set(issuers)];
  }

  /**
   * @param cursor `next` of the page before
   * @returns at most `limit` sessions, fewer or none where the filter matches little; `next` while there is more to look at
   * @throws {CloakroomError} `bad-request` for a cursor that is not one, `store-unavailable`
   */
  async page(
    filter: SessionFilter,
    cursor: string | undefined,
    limit: number,
  ): Promise<{ sessions: ListedSession[]; next: string | undefined }> {
    if (filter.handle !== undefined) {
      const one = await this.find(filter.handle);
      const session = one?.over === false && matches(filter, one, Date.now()) ? listed(one) : undefined;
      return { sessions: session === undefined ? [] : [session], next: undefined };
    }
    const sets = this.#setsFor(filter);
    let { set, after } = readCursor(cursor, sets.length);
    const sessions: ListedSession[] = [];
    for (let looked = 0; looked < LOOK_AT_MOST; looked += PAGE) {
      const name = sets[set];
      if (name === undefined) return { sessions, next: undefined };
      // No more than is wanted at first; where that was not enough, the filter matches little.
      const size = looked === 0 ? Math.min(PAGE, limit) : PAGE;
      const entries = await this.#index.page(name, after, size, filter.createdBefore);
      const found = await this.#describe(name, entries);
      for (const [i, one] of found.entries()) {
        after = entries[i];
        if (one === undefined || one.over || !matches(filter, one, Date.now())) continue;
        const session = listed(one);
        if (session !== undefined) sessions.push(session);
        if (sessions.length === limit) return { sessions, next: writeCursor(set, after) };
      }
      if (entries.length < size) [set, after] = [set + 1, undefined];
    }
    return { sessions, next: writeCursor(set, after) };
  }

  async show(handle: string): Promise<ListedSession | undefined> {
    const found = await this.find(handle);
    return found?.over === false ? listed(found) : undefined;
  }

  async count(filter: SessionFilter): Promise<number> {
    let count = 0;
    for await (const page of this.pages(filter)) {
      count += page.filter(({ over }) => !over).length;
    }
    return count;
  }

  /** How many there are at most: some that are counted may have run out. Takes no longer for many than for few. */
  async size(): Promise<number> {
    const sizes = this.#index.sets({ kind: 'all' }).map((set) => this.#records.store.sizeOf(set));
    return (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
  }

  async find(handle: string): Promise<FoundSession | undefined> {
    const [found] = await this.#open([handle]);
    return found;
  }

  /**
   * What matches, each once; with damaged records and those that are over, which have a refresh token to revoke like any
   * other. What is ended between two pages does not disturb the next.
   */
  async *pages(filter: SessionFilter): AsyncGenerator<FoundSession[], void, undefined> {
    if (filter.handle !== undefined) {
      const one = await this.find(filter.handle);
      if (one !== undefined && matches(filter, one, Date.now())) yield [one];
      return;
    }
    const sets = this.#setsFor(filter);
    // A session whose record was sealed under two keys in turn stands in the sets of both.
    const seen = sets.length > 1 ? new Set<string>() : undefined;
    for (const set of sets) {
      let after: Ranked | undefined;
      for (;;) {
        const entries = await this.#index.page(set, after, PAGE, filter.createdBefore);
        after = entries.at(-1);
        const found = (await this.#describe(set, entries)).filter(
          (one) => one !== undefined && seen?.has(one.handle) !== true && matches(filter, one, Date.now()),
        ) as FoundSession[];
        for (const { handle } of found) seen?.add(handle);
        if (found.length > 0) yield found;
        if (entries.length < PAGE) break;
      }
    }
  }

  /** Forgets entries of sessions that ran out, which nobody may look up for a long time. */
  async sweep(): Promise<void> {
    let after: Ranked | undefined;
    const [all] = this.#index.sets({ kind: 'all' });
    if (all === undefined) return;
    for (;;) {
      const entries = await this.#index.page(all, after, PAGE);
      await this.#describe(all, entries);
      after = entries.at(-1);
      if (entries.length < PAGE) return;
    }
  }

  #setsFor(filter: SessionFilter): SetName[] {
    const { issuer, sid } = filter;
    const issuers = issuer === undefined ? this.#issuers : [issuer];
    if (sid !== undefined) {
      return issuers.flatMap((from) => this.#index.sets({ kind: 'sid', issuer: from, sid }));
    }
    const subject = subjectIn(filter);
    if (subject === undefined) return this.#index.sets({ kind: 'all' });
    return issuers.flatMap((from) => this.#index.sets({ kind: 'subject', issuer: from, subject }));
  }

  async #describe(set: SetName, entries: readonly Ranked[]): Promise<(FoundSession | undefined)[]> {
    const found = await this.#open(entries.map(({ member }) => member));
    const settled = Date.now() - SETTLING;
    const gone = entries.filter(({ score }, i) => found[i] === undefined && score < settled);
    if (gone.length > 0)
      await this.#index.heal(
        set,
        gone.map(({ member }) => member),
      );
    return found;
  }

  async #open(handles: readonly string[]): Promise<(FoundSession | undefined)[]> {
    const described = await this.#records.store.describe(handles);
    const { end } = await this.#epoch.current();
    return described.map((one, i) => {
      const handle = handles[i] ?? '';
      if (one === undefined) return undefined;
      const about = this.#records.about(handle, one.about);
      const { createdAt, absoluteAt, touchedAt: usedAt } = one;
      const over = about !== undefined && about.epoch < end;
      return { handle, createdAt, usedAt, absoluteAt, about, over };
    });
  }
}

const CURSOR = /^(\d{1,3})\.(\d{1,16})\.([A-Za-z0-9_-]{43})$/;

function writeCursor(set: number, after: Ranked | undefined): string | undefined {
  return after === undefined ? undefined : `${String(set)}.${String(after.score)}.${after.member}`;
}

function readCursor(cursor: string | undefined, sets: number): { set: number; after: Ranked | undefined } {
  if (cursor === undefined) return { set: 0, after: undefined };
  const [, set, score, member] = CURSOR.exec(cursor) ?? [];
  if (member === undefined || Number(set) >= sets) {
    throw new CloakroomError('bad-request', { public: { reason: 'cursor' } });
  }
  return { set: Number(set), after: { member, score: Number(score) } };
}
