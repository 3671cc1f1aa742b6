import type { ServerResponse } from 'node:http';

/** Milliseconds after which a reader that is sent away comes back; spread, so that not all come at once. */
const EARLIEST = 500;
const SPREAD = 2000;
/** Milliseconds for the last bytes to go out. A reader that has stopped reading is cut off then. */
const LEAVE_WITHIN = 1000;

export function isEventStream(contentType: string): boolean {
  return /^text\/event-stream\b/i.test(contentType);
}

/** @see https://html.spec.whatwg.org/multipage/server-sent-events.html */
export function eventText(name: string, data: unknown): string {
  return `event: ${name}\ndata: ${JSON.stringify(data)}\n\n`;
}

/** When to come back, should the stream end. */
export function retryText(): string {
  return `retry: ${String(EARLIEST + Math.floor(Math.random() * SPREAD))}\n\n`;
}

/** Ends an answer that was a stream, also towards a reader that does not take what was sent. */
export function endSoon(response: ServerResponse): void {
  response.end();
  const timer = setTimeout(() => response.destroy(), LEAVE_WITHIN).unref();
  response.once('close', () => {
    clearTimeout(timer);
  });
}
