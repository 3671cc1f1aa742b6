import type { ServerResponse } from 'node:http';

/** Milliseconds after which a reader of a stream that is about to be cut comes back; spread, so that not all come at once. */
const EARLIEST = 500;
const SPREAD = 2000;

/** One event stream that is passed on, and whether it stands between two events. */
export class EventStream {
  readonly #response: ServerResponse;
  readonly #streams: Set<EventStream>;
  #betweenEvents = true;

  constructor(response: ServerResponse, streams: Set<EventStream>) {
    this.#response = response;
    this.#streams = streams;
    streams.add(this);
  }

  passed(chunk: Buffer): void {
    const end = chunk.subarray(-4).toString('latin1');
    this.#betweenEvents = end.endsWith('\n\n') || end.endsWith('\r\n\r\n') || end.endsWith('\r\r');
  }

  /** Tells the reader when to come back. In the middle of an event nothing can be said. */
  hint(): void {
    if (!this.#betweenEvents) return;
    this.#response.write(`retry: ${String(EARLIEST + Math.floor(Math.random() * SPREAD))}\n\n`);
  }

  close(): void {
    this.#streams.delete(this);
  }
}

/**
 * The event streams that are open in this process.
 * @see the field `retry` in https://html.spec.whatwg.org/multipage/server-sent-events.html
 */
export class EventStreams {
  readonly #open = new Set<EventStream>();

  /** @returns undefined for an answer that is no event stream, or is one that we cannot write into */
  watch(response: ServerResponse, headers: readonly string[]): EventStream | undefined {
    let isStream = false;
    for (let i = 0; i < headers.length; i += 2) {
      const name = (headers[i] ?? '').toLowerCase();
      if (name === 'content-encoding') return undefined;
      if (name === 'content-type') isStream = /^text\/event-stream\b/i.test(headers[i + 1] ?? '');
    }
    return isStream ? new EventStream(response, this.#open) : undefined;
  }

  hint(): void {
    for (const stream of this.#open) stream.hint();
  }
}
