import type { Config } from '../config/config.js';
import { EPOCH_CHANGED, type PolicyEpoch } from '../store/policy-epoch.js';
import type { OpenSession } from '../store/session-records.js';
import type { EndCause, Store } from '../store/store.js';

/** Somebody who keeps a connection open for a session and wants to know what becomes of it. */
export interface Watcher {
  ended(cause: EndCause): void;
  /** The session was used at this time, here or elsewhere. Milliseconds since the epoch. */
  used?(at: number): void;
}

interface Watched {
  epoch: number;
  absoluteAt: number;
  idle: number;
  touchedAt: number;
  watchers: Set<Watcher>;
}

/** Milliseconds between two looks at the sessions of open connections. */
const LOOK_EVERY = 1000;
/** Sessions looked at in one go; the next go begins when the answers are there. */
const AT_ONCE = 200;

const CAUSES: ReadonlySet<string> = new Set<EndCause>([
  'user',
  'elsewhere',
  'replaced',
  'provider',
  'operator',
  'epoch',
  'expired',
  'refresh-refused',
  'refresh-lost',
  'identity-changed',
  'token-expired',
]);

/**
 * The sessions of connections that stay open in this process. What ends a session announces it; a look every second finds
 * what nobody announced: a key deleted by hand, an expiry, an announcement that was missed.
 */
export class LiveSessions {
  readonly #store: Store;
  readonly #epoch: PolicyEpoch;
  readonly #idle: number;
  readonly #watched = new Map<string, Watched>();
  #timer: NodeJS.Timeout | undefined;
  #looking = false;

  constructor(config: Config, store: Store, epoch: PolicyEpoch) {
    this.#store = store;
    this.#epoch = epoch;
    this.#idle = config.session.idle;
  }

  /** Begins to listen. */
  start(): void {
    this.#store.subscribe(
      (message) => {
        this.#heard(message);
      },
      () => {
        void this.#epoch.load().catch(() => undefined);
        void this.#look();
      },
    );
    this.#timer = setInterval(() => void this.#look(), LOOK_EVERY).unref();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** Watchers of one session in this process. */
  count(handle: string): number {
    return this.#watched.get(handle)?.watchers.size ?? 0;
  }

  /** @returns stops the watching; it must be called when the connection ends */
  watch(session: OpenSession, watcher: Watcher): () => void {
    const { handle, touchedAt, contents } = session;
    const watched = this.#watched.get(handle) ?? {
      epoch: contents.epoch,
      absoluteAt: contents.absoluteAt,
      idle: contents.idle ?? this.#idle,
      touchedAt,
      watchers: new Set(),
    };
    this.#watched.set(handle, watched);
    watched.watchers.add(watcher);
    return () => {
      watched.watchers.delete(watcher);
      if (watched.watchers.size === 0 && this.#watched.get(handle) === watched) this.#watched.delete(handle);
    };
  }

  #heard(message: string): void {
    const [word, handle = '', cause = ''] = message.split(' ');
    if (word === EPOCH_CHANGED) {
      void this.#epoch.load().then(
        () => {
          this.#endOutdated();
        },
        () => undefined,
      );
    }
    if (word === 'ended' && CAUSES.has(cause)) this.#end(handle, cause as EndCause);
  }

  #endOutdated(): void {
    const end = this.#epoch.known?.end ?? 0;
    for (const [handle, { epoch }] of this.#watched) if (epoch < end) this.#end(handle, 'epoch');
  }

  #endExpired(): void {
    const now = Date.now();
    for (const [handle, { absoluteAt }] of this.#watched) if (absoluteAt <= now) this.#end(handle, 'expired');
  }

  #end(handle: string, cause: EndCause): void {
    const watched = this.#watched.get(handle);
    if (watched === undefined) return;
    this.#watched.delete(handle);
    for (const watcher of watched.watchers) watcher.ended(cause);
  }

  async #look(): Promise<void> {
    // What is known here does not wait for a store that is slow or away.
    this.#endOutdated();
    this.#endExpired();
    if (this.#looking) return;
    this.#looking = true;
    try {
      const handles = [...this.#watched.keys()];
      for (let i = 0; i < handles.length; i += AT_ONCE) {
        await Promise.all(handles.slice(i, i + AT_ONCE).map((handle) => this.#lookAt(handle)));
      }
    } finally {
      this.#looking = false;
    }
  }

  async #lookAt(handle: string): Promise<void> {
    try {
      await this.#compare(handle);
    } catch {
      // A store, or the part of it that has this session, does not answer: that says nothing about sessions, and nothing about
      // the others. It is looked at again in a second.
    }
  }

  async #compare(handle: string): Promise<void> {
    const current = await this.#store.peek(handle);
    const watched = this.#watched.get(handle);
    if (watched === undefined) return;
    if (current === undefined) {
      this.#end(handle, await this.#causeOf(handle, watched));
      return;
    }
    if (current.touchedAt === watched.touchedAt) return;
    watched.touchedAt = current.touchedAt;
    for (const watcher of watched.watchers) watcher.used?.(current.touchedAt);
  }

  /** Without a cause on record the session ran out, or somebody deleted its key. */
  async #causeOf(handle: string, { touchedAt, absoluteAt, idle }: Watched): Promise<EndCause> {
    const cause = String((await this.#store.get('ended', handle)) ?? '');
    if (CAUSES.has(cause)) return cause as EndCause;
    const until = Math.min(touchedAt + idle, absoluteAt);
    return Date.now() >= until - LOOK_EVERY ? 'expired' : 'operator';
  }
}
