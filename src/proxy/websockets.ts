import type { Duplex } from 'node:stream';
import type { LiveSessions } from '../endings/live-sessions.js';
import type { OpenSession } from '../store/session-records.js';
import { CLOSE_CODES, closeFrame, FrameBorders } from './websocket-frames.js';

export interface Ends {
  browser: Duplex;
  upstream: Duplex;
  /** What had arrived behind the heads of the handshake. */
  browserHead: Buffer;
  upstreamHead: Buffer;
  /** undefined: nobody's, and ends with nobody's session. */
  session: OpenSession | undefined;
  /** Milliseconds without a byte in either direction. */
  idle: number;
  over: () => void;
}

/** Milliseconds for the last frame to go out and to be answered. */
const LEAVE_WITHIN = 1000;

/** The WebSockets that are joined in this process: none outlives its session. */
export class WebSockets {
  readonly #live: LiveSessions;
  readonly #open = new Set<Tunnel>();

  constructor(live: LiveSessions) {
    this.#live = live;
  }

  get count(): number {
    return this.#open.size;
  }

  join(ends: Ends): void {
    const tunnel = new Tunnel(ends, () => {
      this.#open.delete(tunnel);
      unwatch?.();
      ends.over();
    });
    const unwatch =
      ends.session &&
      this.#live.watch(ends.session, {
        ended: (cause) => {
          tunnel.close(CLOSE_CODES.sessionEnded, cause);
        },
      });
    this.#open.add(tunnel);
    tunnel.start();
  }

  /** Sends every browser away, to come back to another replica. */
  restart(): void {
    for (const tunnel of this.#open) tunnel.close(CLOSE_CODES.restart, 'restart');
  }
}

class Tunnel {
  readonly #ends: Ends;
  readonly #over: () => void;
  readonly #toBrowser = new FrameBorders();
  readonly #toUpstream = new FrameBorders();
  #silence: NodeJS.Timeout | undefined;
  /** What is still to be said to the browser, once the frame that goes by is over. */
  #goodbye: Buffer | undefined;
  #closed = 0;

  constructor(ends: Ends, over: () => void) {
    this.#ends = ends;
    this.#over = over;
  }

  start(): void {
    const { browser, upstream, browserHead, upstreamHead, idle } = this.#ends;
    this.#silence = setTimeout(() => {
      this.#cut();
    }, idle);
    this.#join(browser, upstream, browserHead, (chunk) => {
      this.#fromBrowser(chunk);
    });
    this.#join(upstream, browser, upstreamHead, (chunk) => {
      this.#fromUpstream(chunk);
    });
  }

  /** Closes both ends as the protocol wants it, and by force where that takes too long. */
  close(code: number, reason: string): void {
    if (this.#goodbye !== undefined) return;
    const { upstream } = this.#ends;
    this.#goodbye = closeFrame(code, reason, false);
    // Not a byte of the browser reaches the upstream any more, not even the rest of a frame.
    if (this.#toUpstream.isBetween) upstream.end(closeFrame(CLOSE_CODES.away, '', true));
    this.#sayGoodbye();
    this.#cutLater();
  }

  #fromBrowser(chunk: Buffer): void {
    if (this.#goodbye !== undefined) return;
    this.#toUpstream.passed(chunk);
    write(this.#ends.browser, this.#ends.upstream, chunk);
  }

  #fromUpstream(chunk: Buffer): void {
    const { browser, upstream } = this.#ends;
    // In the goodbye the rest of one frame goes by, and not a byte of the next.
    const length = this.#toBrowser.passed(chunk, this.#goodbye !== undefined);
    if (length > 0) write(upstream, browser, length === chunk.length ? chunk : chunk.subarray(0, length));
    this.#sayGoodbye();
  }

  #sayGoodbye(): void {
    const { browser } = this.#ends;
    if (this.#goodbye === undefined || browser.writableEnded) return;
    if (this.#toBrowser.isBetween) browser.end(this.#goodbye);
  }

  #join(from: Duplex, to: Duplex, head: Buffer, pass: (chunk: Buffer) => void): void {
    if (head.length > 0) pass(head);
    from.on('data', (chunk: Buffer) => {
      this.#silence?.refresh();
      pass(chunk);
    });
    from.once('end', () => {
      to.end();
    });
    from.once('error', () => {
      to.destroy();
    });
    from.once('close', () => {
      to.end();
      this.#closed += 1;
      if (this.#closed === 1) this.#cutLater();
      else this.#finish();
    });
  }

  /** The last bytes may still go out; a side that does not take them is cut off. */
  #cutLater(): void {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => {
      this.#cut();
    }, LEAVE_WITHIN);
  }

  #cut(): void {
    this.#ends.browser.destroy();
    this.#ends.upstream.destroy();
  }

  #finish(): void {
    clearTimeout(this.#silence);
    this.#over();
  }
}

/** A side that reads slowly slows down the one that sends. */
function write(from: Duplex, to: Duplex, chunk: Buffer): void {
  if (to.writableEnded || to.destroyed || to.write(chunk)) return;
  from.pause();
  to.once('drain', () => from.resume());
}
