import type { ServerResponse } from 'node:http';
import type { Config } from '../config/config.js';
import type { LiveSessions } from '../endings/live-sessions.js';
import { CloakroomError } from '../errors.js';
import type { OpenSession } from '../store/session-records.js';
import { TabStream } from './tab-stream.js';

/** Streams of one session in this process: more tabs than people have, and few enough to be no burden. */
const STREAMS_AT_MOST = 16;
/** Seconds. */
const TRY_AGAIN_IN = 10;
/** Milliseconds between two looks at the clock for all streams. */
const TICK = 1000;

/** The streams of `GET /auth/events` in this process. */
export class EventsService {
  readonly #times: Config['session'];
  readonly #live: LiveSessions;
  readonly #open = new Map<string, Set<TabStream>>();
  #timer: NodeJS.Timeout | undefined;
  #closing = false;

  constructor(parts: { config: Config; live: LiveSessions }) {
    this.#times = parts.config.session;
    this.#live = parts.live;
  }

  /**
   * Begins a stream. Being open is no use of the session.
   * @throws {CloakroomError} `too-many-requests`
   */
  open(session: OpenSession, response: ServerResponse): void {
    const { handle, touchedAt, contents } = session;
    const streams = this.#open.get(handle) ?? new Set();
    if (streams.size >= STREAMS_AT_MOST) {
      throw new CloakroomError('too-many-requests', {
        retryAfter: TRY_AGAIN_IN,
        public: { detail: `At most ${String(STREAMS_AT_MOST)} of these streams can be open in one session.` },
      });
    }
    const { warnBefore } = this.#times;
    const { absoluteAt, idle = this.#times.idle } = contents;
    const stream = new TabStream(response, { idle, warnBefore, absoluteAt, touchedAt });
    stream.begin();
    if (this.#closing) {
      stream.leave();
      return;
    }
    this.#open.set(handle, streams.add(stream));
    this.#timer ??= setInterval(() => {
      this.#tick();
    }, TICK).unref();
    const unwatch = this.#live.watch(session, stream);
    response.once('close', () => {
      unwatch();
      streams.delete(stream);
      if (streams.size === 0 && this.#open.get(handle) === streams) this.#open.delete(handle);
      if (this.#open.size > 0) return;
      clearInterval(this.#timer);
      this.#timer = undefined;
    });
  }

  /** Sends everybody away before a shutdown; they come back elsewhere. */
  close(): void {
    this.#closing = true;
    for (const streams of this.#open.values()) for (const stream of streams) stream.leave();
  }

  #tick(): void {
    const now = Date.now();
    for (const streams of this.#open.values()) for (const stream of streams) stream.tick(now);
  }
}
