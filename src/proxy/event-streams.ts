import type { ServerResponse } from 'node:http';
import type { LiveSessions } from '../endings/live-sessions.js';
import { endSoon, eventText, isEventStream, retryText } from '../http/event-stream.js';
import type { OpenSession } from '../store/session-records.js';
import type { EndCause } from '../store/store.js';

/** An empty line was the last thing, or nothing was sent yet. */
const BETWEEN_EVENTS = /^$|(?:\n\r?\n|\r\r)$/;

/** One event stream that is passed on, and whether it stands between two events. */
export class EventStream {
  readonly #response: ServerResponse;
  readonly #writable: boolean;
  /** The last bytes that went by. */
  #tail = '';

  /** @param writable false where the body is encoded, and a word of ours would be noise in it */
  constructor(response: ServerResponse, writable: boolean) {
    this.#response = response;
    this.#writable = writable;
  }

  passed(chunk: Buffer): void {
    const end = chunk.subarray(-4).toString('latin1');
    this.#tail = end.length < 4 ? (this.#tail + end).slice(-4) : end;
  }

  /** Tells the reader when to come back. */
  hint(): void {
    this.#say(retryText());
  }

  /** Ends it. A reader drops an event that was not finished. */
  end(cause: EndCause): void {
    this.#say(eventText('session-ended', { reason: cause }));
    endSoon(this.#response);
  }

  /** In the middle of an event nothing can be said. */
  #say(text: string): void {
    if (this.#writable && BETWEEN_EVENTS.test(this.#tail)) this.#response.write(text);
  }
}

/** A stream while it is open. */
export interface OpenStream {
  stream: EventStream;
  /** Forgets it; to be called once it is over. */
  close: () => void;
}

/** Whether an answer with these header lines, name and value in turns, is an event stream. */
export function isStreamHead(headers: readonly string[]): boolean {
  for (let i = 0; i < headers.length; i += 2) {
    if ((headers[i] ?? '').toLowerCase() === 'content-type') return isEventStream(headers[i + 1] ?? '');
  }
  return false;
}

/** The event streams that are passed on by this process: none outlives its session. */
export class EventStreams {
  readonly #live: LiveSessions;
  readonly #open = new Set<EventStream>();

  constructor(live: LiveSessions) {
    this.#live = live;
  }

  /**
   * @param session undefined: nobody's, which ends with the process at the latest
   * @param ended called after the session has ended and the reader has been told
   * @returns undefined for an answer that is no event stream
   */
  watch(
    response: ServerResponse,
    headers: readonly string[],
    session: OpenSession | undefined,
    ended: () => void,
  ): OpenStream | undefined {
    if (!isStreamHead(headers)) return undefined;
    const writable = headers.every((name, index) => index % 2 === 1 || !/^content-encoding$/i.test(name));
    const stream = new EventStream(response, writable);
    this.#open.add(stream);
    const unwatch =
      session &&
      this.#live.watch(session, {
        ended: (cause) => {
          stream.end(cause);
          ended();
        },
      });
    const close = (): void => {
      this.#open.delete(stream);
      unwatch?.();
    };
    return { stream, close };
  }

  hint(): void {
    for (const stream of this.#open) stream.hint();
  }
}
