import type { ServerSeal } from '../store/server-seal.js';
import type { SessionIndex, Whose } from '../store/session-index.js';
import type { Store } from '../store/store.js';

/** What has to be remembered about a person, or a session at the provider, after their sessions were ended. */
export interface Mark {
  /** Milliseconds since the epoch, as are all times here: when the sessions were ended. */
  at: number;
  /** Until then a login needs a fresh sign-in at the provider. */
  freshUntil: number;
  /** Until then no session of this session at the provider begins. */
  deniedUntil?: number;
  /** No session begins by an ID token issued at this time or before. */
  deniedIssuedUntil?: number;
}

type Identity = Exclude<Whose, { kind: 'all' }>;

/** Marks that stop a login under way, and a single sign-on, from undoing a forced logout. */
export class IdentityMarks {
  readonly #store: Store;
  readonly #index: SessionIndex;
  readonly #seal: ServerSeal;

  constructor(store: Store, index: SessionIndex, seal: ServerSeal) {
    this.#store = store;
    this.#index = index;
    this.#seal = seal;
  }

  async put(identity: Identity, mark: Mark): Promise<void> {
    const [id] = this.#index.ids(identity);
    const until = Math.max(mark.freshUntil, mark.deniedUntil ?? 0);
    const ttl = Math.max(until - mark.at, DENIED_FOR);
    if (id !== undefined) await this.#store.put('mark', id, this.#seal.seal('mark', id, mark), ttl);
  }

  async find(identity: Identity): Promise<Mark | undefined> {
    const ids = this.#index.ids(identity);
    const marks = await Promise.all(
      ids.map(
        async (id) => this.#seal.open('mark', id, await this.#store.get('mark', id)) as Mark | undefined,
      ),
    );
    return marks.reduce((latest, mark) => ((mark?.at ?? 0) > (latest?.at ?? 0) ? mark : latest), undefined);
  }
}

/** Milliseconds after a logout at the provider in which a login of that session there may still be on its way here. */
export const DENIED_FOR = 120_000;
