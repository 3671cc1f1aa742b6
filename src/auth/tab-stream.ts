import type { ServerResponse } from 'node:http';
import type { Watcher } from '../endings/live-sessions.js';
import { endSoon, eventText, retryText } from '../http/event-stream.js';
import type { EndCause } from '../store/store.js';

/** Milliseconds of silence after which a sign of life is due: less than proxies and networks wait. */
const SILENCE = 15_000;
/** Bytes a reader may leave lying; all that is ever sent to one is less. */
const UNREAD_AT_MOST = 8 * 1024;

/** Milliseconds, points in time since the epoch. */
interface Times {
  readonly idle: number;
  readonly warnBefore: number;
  readonly absoluteAt: number;
  touchedAt: number;
}

/** What one tab is told of its session, as server-sent events. */
export class TabStream implements Watcher {
  readonly #response: ServerResponse;
  readonly #times: Times;
  /** The end that was warned of: a later one is warned of again. */
  #warnedOf: number | undefined;
  #wroteAt = 0;
  #over = false;

  constructor(response: ServerResponse, times: Times) {
    this.#response = response;
    this.#times = times;
  }

  /** What holds already is said at once: a reader that comes back may have missed it. */
  begin(): void {
    this.#response.writeHead(200, {
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      // For reverse proxies that would collect an answer before they pass it on.
      'x-accel-buffering': 'no',
    });
    this.#write(retryText());
    this.#warn(Date.now());
  }

  tick(now: number): void {
    if (this.#over) return;
    this.#warn(now);
    if (now - this.#wroteAt >= SILENCE) this.#write(':\n\n');
  }

  used(at: number): void {
    const before = this.#endsAt();
    this.#times.touchedAt = Math.max(at, this.#times.touchedAt);
    const after = this.#endsAt();
    if (after === before) return;
    this.#write(eventText('extended', { idleExpiresAt: new Date(after).toISOString() }));
    this.#warn(Date.now());
  }

  ended(cause: EndCause): void {
    this.#write(eventText('ended', { reason: cause }));
    this.#end();
  }

  /** Ends the stream, not the session. */
  leave(): void {
    this.#write(retryText());
    this.#end();
  }

  #end(): void {
    if (this.#over) return;
    this.#over = true;
    endSoon(this.#response);
  }

  #warn(now: number): void {
    const { absoluteAt, warnBefore } = this.#times;
    const endsAt = this.#endsAt();
    if (endsAt === this.#warnedOf || endsAt - now > warnBefore || endsAt <= now) return;
    this.#warnedOf = endsAt;
    const kind = endsAt === absoluteAt ? 'absolute' : 'idle';
    this.#write(eventText('expiring', { in: Math.ceil((endsAt - now) / 1000), kind }));
  }

  #endsAt(): number {
    const { idle, absoluteAt, touchedAt } = this.#times;
    return Math.min(touchedAt + idle, absoluteAt);
  }

  /** What a reader leaves lying is ours to keep: one that does not read is cut off. */
  #write(text: string): void {
    if (this.#over) return;
    if (this.#response.writableLength > UNREAD_AT_MOST) {
      this.#over = true;
      this.#response.destroy();
      return;
    }
    this.#wroteAt = Date.now();
    this.#response.write(text);
  }
}
