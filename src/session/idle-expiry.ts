import type { Config } from '../config/config.js';
import { Recent } from '../store/recent.js';
import type { OpenSession, SessionRecords } from '../store/session-records.js';
import { shortestIdle } from './lifetimes.js';

/** Idle expiry is moved at most this often (milliseconds), or ten times within a shorter idle time. */
const TOUCH_EVERY = 60_000;

/** Moves idle expiry when a session is used: in the background and seldom, so that no request waits and most write nothing. */
export class IdleExpiry {
  readonly #config: Config;
  readonly #records: SessionRecords;
  readonly #touchEvery: number;
  /** Sessions this process touched or tried to touch a moment ago. */
  readonly #touching: Recent<true>;

  constructor(config: Config, records: SessionRecords) {
    this.#config = config;
    this.#records = records;
    this.#touchEvery = Math.min(TOUCH_EVERY, shortestIdle(config.session) / 10);
    // Remembered for up to twice this long: shorter than the time to the next touch, or a session in use would run out.
    this.#touching = new Recent(Math.min(1000, this.#touchEvery / 2), 50_000);
  }

  /** Milliseconds since the epoch. @param isUse whether this look counts as use */
  expiresAt(session: OpenSession, isUse: boolean): number {
    const { absoluteAt, idle = this.#config.session.idle } = session.contents;
    const usedAt = isUse && this.#isDue(session) ? Date.now() : session.touchedAt;
    return Math.min(usedAt + idle, absoluteAt);
  }

  /** A session is used now. */
  slide(session: OpenSession): void {
    if (this.#isDue(session)) this.#touch(session);
  }

  /** For a connection that stays open: what it returns is called whenever the session is used there. */
  use(session: OpenSession): () => void {
    let dueAt = session.touchedAt + this.#touchEvery;
    return () => {
      const now = Date.now();
      if (now < dueAt) return;
      dueAt = now + this.#touchEvery;
      this.#touch(session);
    };
  }

  #touch({ handle, contents }: OpenSession): void {
    if (this.#touching.get(handle) !== undefined) return;
    this.#touching.set(handle, true);
    const { idle = this.#config.session.idle } = contents;
    this.#records.store.touch(handle, idle).catch(() => undefined);
  }

  #isDue(session: OpenSession): boolean {
    return Date.now() - session.touchedAt >= this.#touchEvery;
  }
}
