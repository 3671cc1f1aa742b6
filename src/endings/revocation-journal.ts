import type { SetName, Store } from '../store/store.js';
import { readRevocation, writeRevocation, type RevocationRecord } from './revocation-record.js';

const QUEUE: SetName = { kind: 'queue', id: 'revocations' };
/** Milliseconds that records outlive the last try, so that somebody can say that it was the last. */
const AFTERWARDS = 60 * 60 * 1000;
/** Handles a single command is about, and commands at once. */
const CHUNK = 1000;
const AT_ONCE = 100;

/**
 * What waits for its revocation, as the store keeps it: an entry in the queue, ordered by when it is due, and a record with
 * the envelope. The entry comes first and goes last: a record without one would be forgotten.
 */
export class RevocationJournal {
  readonly #store: Store;
  readonly #retryFor: number;

  constructor(store: Store, retryFor: number) {
    this.#store = store;
    this.#retryFor = retryFor;
  }

  async add(handles: readonly string[], delay: number): Promise<void> {
    if (handles.length > 0) await this.#enter(handles, (await this.#store.now()) + delay);
  }

  /** Removes the entries that have no record. Where there is one, somebody else ended that session, and the entry is theirs. */
  async forget(handles: readonly string[]): Promise<void> {
    for (const chunk of chunks(handles, AT_ONCE)) {
      const records = await Promise.all(chunk.map((handle) => this.#store.get('revocation', handle)));
      const without = chunk.filter((_, i) => records[i] === undefined);
      await this.#store.removeFrom(QUEUE, without);
    }
  }

  /** Entries that are due; nobody else gets them for as long as the lease lasts. */
  async claim(limit: number, lease: number): Promise<string[]> {
    return this.#store.claimDue(QUEUE, limit, lease);
  }

  /** Keeps an entry from others for a while, if there is one. */
  async hold(handle: string, lease: number): Promise<void> {
    await this.#store.postpone(QUEUE, handle, lease);
  }

  async find(handle: string): Promise<RevocationRecord | undefined> {
    const value = await this.#store.get('revocation', handle);
    return value && readRevocation(value);
  }

  /**
   * Puts away a token that no session holds.
   * @param delay long enough for the record to follow its entry
   */
  async put(id: string, envelope: Buffer, delay: number): Promise<void> {
    await this.add([id], delay);
    await this.#store.put('revocation', id, envelope, this.#retryFor);
  }

  /**
   * Notes a failure.
   * @param wait milliseconds until the next try; the last one is when the time is up
   * @returns false when the time was up already: nothing is noted then
   */
  async failed(handle: string, record: RevocationRecord, tried: boolean, wait: number): Promise<boolean> {
    const now = await this.#store.now();
    const since = record.since ?? now;
    const left = since + this.#retryFor - now;
    if (left <= 0) return false;
    // Not only moved: who ended a session without an envelope, and has the token at hand, has taken its entry away.
    await this.#enter([handle], now + Math.ceil(Math.min(wait, left)));
    if (tried || record.since === undefined) {
      const value = writeRevocation({ ...record, since, tries: record.tries + Number(tried) });
      await this.#store.put('revocation', handle, value, left + AFTERWARDS);
    }
    return true;
  }

  async remove(handle: string): Promise<void> {
    await this.#store.take('revocation', handle);
    await this.drop(handle);
  }

  /** Removes an entry that turned out to have no record. */
  async drop(handle: string): Promise<void> {
    await this.#store.removeFrom(QUEUE, [handle]);
  }

  async #enter(handles: readonly string[], score: number): Promise<void> {
    for (const chunk of chunks(handles, CHUNK)) {
      const members = chunk.map((member) => ({ member, score }));
      await this.#store.addTo(QUEUE, members, this.#retryFor + AFTERWARDS);
    }
  }
}

function* chunks(handles: readonly string[], size: number): Generator<readonly string[]> {
  for (let at = 0; at < handles.length; at += size) yield handles.slice(at, at + size);
}
