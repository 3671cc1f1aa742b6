import type { Logger } from '../observability/logger.js';
import type { ServerSeal } from './server-seal.js';
import type { Store } from './store.js';

/** Milliseconds since the epoch: sessions begun before `end` are over, tokens asked for before `refresh` count as expired. */
export interface Epoch {
  end: number;
  refresh: number;
}

/** The word by which processes tell each other. */
export const EPOCH_CHANGED = 'epoch';

/** Milliseconds between two looks, for a process that missed an announcement. */
const LOOK_EVERY = 1000;
/** Milliseconds: longer than any session lives. */
const KEPT_FOR = 31 * 24 * 60 * 60 * 1000;

/**
 * Ends or renews everything from before a moment, at no cost for the number of sessions. What a session remembers is the
 * epoch it began under, not a time of its own: clocks that differ between processes do not matter.
 */
export class PolicyEpoch {
  readonly #store: Store;
  readonly #seal: ServerSeal;
  readonly #logger: Logger;
  #current: Epoch | undefined;
  #loading: Promise<Epoch> | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(store: Store, seal: ServerSeal, logger: Logger) {
    this.#store = store;
    this.#seal = seal;
    this.#logger = logger;
  }

  /** As last heard of; undefined until the store was reached for the first time. */
  get known(): Epoch | undefined {
    return this.#current;
  }

  /** @throws {CloakroomError} `store-unavailable` when it was never known and cannot be read */
  async current(): Promise<Epoch> {
    return this.#current ?? this.load();
  }

  start(): void {
    const look = (): void => {
      this.load().catch(() => undefined);
    };
    look();
    this.#timer = setInterval(look, LOOK_EVERY).unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  load(): Promise<Epoch> {
    this.#loading ??= this.#read().finally(() => {
      this.#loading = undefined;
    });
    return this.#loading;
  }

  /** Raises one of the two to now, by the store's clock. Returns it. */
  async bump(kind: keyof Epoch): Promise<number> {
    const before = await this.#read();
    // Never equal to one that sessions may have been given already.
    const at = Math.max(await this.#store.now(), before[kind] + 1);
    await this.#store.put('epoch', kind, this.#seal.seal('epoch', kind, { at }), KEPT_FOR);
    await this.#store.announce(EPOCH_CHANGED);
    await this.#read();
    return at;
  }

  async #read(): Promise<Epoch> {
    const [end, refresh] = await Promise.all([this.#readOne('end'), this.#readOne('refresh')]);
    const known = this.#current ?? { end: 0, refresh: 0 };
    // Never back: a store that came up with older data must not wake what was ended.
    const next = { end: Math.max(known.end, end), refresh: Math.max(known.refresh, refresh) };
    if (this.#current !== undefined && (next.end > known.end || next.refresh > known.refresh)) {
      this.#logger.info('policy_epoch_changed', { ...next });
    }
    this.#current = next;
    return next;
  }

  async #readOne(kind: keyof Epoch): Promise<number> {
    const record = this.#seal.open('epoch', kind, await this.#store.get('epoch', kind));
    const { at } = (record ?? {}) as { at?: unknown };
    return typeof at === 'number' ? at : 0;
  }
}
