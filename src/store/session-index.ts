import { createHmac } from 'node:crypto';
import type { Ranked, SetName, Store } from './store.js';

/** Which sessions: everybody's, those of a person, or those that belong to one session at the provider. */
export type Whose =
  | { kind: 'all' }
  | { kind: 'subject'; issuer: string; subject: string }
  | { kind: 'sid'; issuer: string; sid: string };

/** What decides in which sets a session stands. */
export interface IndexedSession {
  provider: string;
  issuer: string;
  subject: string;
  sid?: string;
}

const ALL: SetName = { kind: 'sessions', id: 'all' };

/**
 * Finds sessions without their cookies: sets of handles ordered by creation. Entries are written before the session and
 * removed after it, so a set can name sessions that are gone, but never lacks one that lives.
 */
export class SessionIndex {
  readonly #store: Store;
  readonly #keys: readonly Buffer[];
  readonly #ttl: number;

  /**
   * @param keys the first is written under, all are looked up
   * @param ttl milliseconds a session can live at most
   */
  constructor(store: Store, keys: readonly Buffer[], ttl: number) {
    this.#store = store;
    this.#keys = keys;
    this.#ttl = ttl;
  }

  async add(handle: string, about: IndexedSession & { createdAt: number }): Promise<void> {
    const entry = [{ member: handle, score: about.createdAt }];
    await Promise.all(this.#setsOf(about, 0).map((set) => this.#store.addTo(set, entry, this.#ttl)));
  }

  /** @param abouts undefined where nothing is known but the handle */
  async remove(entries: readonly { handle: string; about: IndexedSession | undefined }[]): Promise<void> {
    const members = new Map<string, { set: SetName; handles: string[] }>();
    for (const { handle, about } of entries) {
      const sets = about === undefined ? [ALL] : this.#keys.flatMap((_, key) => this.#setsOf(about, key));
      for (const set of sets) {
        const known = members.get(set.id) ?? { set, handles: [] };
        if (!known.handles.includes(handle)) known.handles.push(handle);
        members.set(set.id, known);
      }
    }
    await Promise.all([...members.values()].map(({ set, handles }) => this.#store.removeFrom(set, handles)));
  }

  /** The sets to read for an answer: one for each server key, since entries are not moved when a key changes. */
  sets(whose: Whose): SetName[] {
    if (whose.kind === 'all') return [ALL];
    return this.#keys.map((_, key) => this.#set(whose, key));
  }

  /** Where marks about a person or a provider session are kept, under each server key; the first is written. */
  ids(whose: Exclude<Whose, { kind: 'all' }>): string[] {
    return this.sets(whose).map(({ id }) => id);
  }

  page(set: SetName, after: Ranked | undefined, limit: number, to?: number): Promise<Ranked[]> {
    return this.#store.pageOf(set, { after, to, limit });
  }

  /** Forgets entries of sessions that are gone. */
  async heal(set: SetName, handles: readonly string[]): Promise<void> {
    await this.#store.removeFrom(set, handles).catch(() => undefined);
  }

  #setsOf({ issuer, subject, sid }: IndexedSession, key: number): SetName[] {
    const sets = [ALL, this.#set({ kind: 'subject', issuer, subject }, key)];
    return sid === undefined ? sets : [...sets, this.#set({ kind: 'sid', issuer, sid }, key)];
  }

  #set(whose: Exclude<Whose, { kind: 'all' }>, key: number): SetName {
    const value = whose.kind === 'subject' ? whose.subject : whose.sid;
    const hmac = createHmac('sha256', this.#keys[key] ?? '');
    // As JSON, so that no issuer and value can be cut another way.
    const id = hmac.update(JSON.stringify([whose.kind, whose.issuer, value])).digest('base64url');
    return { kind: 'sessions', id };
  }
}
