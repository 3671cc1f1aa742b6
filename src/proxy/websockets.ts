import type { Duplex } from 'node:stream';
import type { LiveSessions } from '../endings/live-sessions.js';
import type { OpenSession } from '../store/session-records.js';
import type { Spend } from './bandwidth.js';
import { CLOSE_CODES, closeFrame, FrameBorders } from './websocket-frames.js';

export interface Ends {
  browser: Duplex;
  upstream: Duplex;
  /** What had arrived behind the heads of the handshake. */
  browserHead: Buffer;
  upstreamHead: Buffer;
  /** undefined: nobody's, and ends with the process at the latest. */
  session: OpenSession | undefined;
  /** Milliseconds without a byte in either direction. */
  idle: number;
  /** undefined: bytes move as fast as they come. */
  spend: Spend | undefined;
  /** Called whenever the browser sends data; undefined: that is no use of the session. */
  used: (() => void) | undefined;
  over: () => void;
}

/** Milliseconds for the last bytes to go out and to be answered. A side that does not take them is cut off then. */
const LEAVE_WITHIN = 1000;

/** The WebSockets of this process: none outlives its session. */
export class WebSockets {
  readonly #live: LiveSessions;
  readonly #open = new Set<Tunnel>();
  /** Connections of browsers, from the handshake on. */
  readonly #taken = new Set<Duplex>();
  #isLeaving = false;

  constructor(live: LiveSessions) {
    this.#live = live;
  }

  /** A connection that the server does not know any more, and would not close. It may be handed over more than once. */
  take(browser: Duplex): void {
    if (this.#taken.has(browser)) return;
    this.#taken.add(browser);
    browser.once('close', () => this.#taken.delete(browser));
  }

  join(ends: Ends): void {
    const tunnel = new Tunnel(ends, () => {
      this.#open.delete(tunnel);
      unwatch?.();
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
    if (this.#isLeaving) tunnel.close(CLOSE_CODES.restart, 'restart');
  }

  /** Sends every browser away, to come back to another replica; those as well that are still to be joined. */
  restart(): void {
    this.#isLeaving = true;
    for (const tunnel of this.#open) tunnel.close(CLOSE_CODES.restart, 'restart');
  }

  /** Ends what is left, handshakes included. */
  cut(): void {
    for (const browser of this.#taken) browser.destroy();
  }
}

class Tunnel {
  readonly #ends: Ends;
  readonly #over: () => void;
  readonly #toBrowser = new FrameBorders();
  readonly #toUpstream = new FrameBorders();
  #timer: NodeJS.Timeout | undefined;
  /** What goes on once the session may move more, by what wakes it. */
  readonly #resting = new Map<NodeJS.Timeout, () => void>();
  /** What is still to be said to the browser, once the frame that goes by is over. */
  #goodbye: Buffer | undefined;
  #isLeaving = false;
  #closed = 0;

  constructor(ends: Ends, over: () => void) {
    this.#ends = ends;
    this.#over = over;
  }

  start(): void {
    const { browser, upstream, browserHead, upstreamHead, idle } = this.#ends;
    const timer = setTimeout(() => {
      if (this.#resting.size > 0) timer.refresh();
      else this.close(CLOSE_CODES.away, 'idle');
    }, idle);
    this.#timer = timer;
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
    const { browser, upstream } = this.#ends;
    this.#goodbye = closeFrame(code, reason, false);
    // Not a byte of the browser reaches the upstream any more, not even the rest of a frame.
    if (this.#toUpstream.isBetween && canWrite(upstream)) {
      upstream.write(closeFrame(CLOSE_CODES.away, '', true));
    }
    this.#sayGoodbye();
    // The frame that is on its way does not rest any more.
    for (const [rest, goOn] of this.#resting) {
      clearTimeout(rest);
      goOn();
    }
    this.#resting.clear();
    // Its answer is to be read, however slow the upstream was.
    browser.resume();
    this.#cutSoon();
  }

  #fromBrowser(chunk: Buffer): void {
    if (this.#goodbye !== undefined) return;
    const { dataFrames } = this.#toUpstream;
    this.#toUpstream.passed(chunk);
    this.#pass(this.#ends.browser, this.#ends.upstream, chunk);
    // Control frames do not count: a browser answers pings with nobody in front of it.
    if (this.#toUpstream.dataFrames > dataFrames) this.#ends.used?.();
  }

  #fromUpstream(chunk: Buffer): void {
    const { browser, upstream } = this.#ends;
    // In the goodbye the rest of one frame goes by, and not a byte of the next.
    const length = this.#toBrowser.passed(chunk, this.#goodbye !== undefined);
    if (length > 0)
      this.#pass(upstream, browser, length === chunk.length ? chunk : chunk.subarray(0, length));
    this.#sayGoodbye();
  }

  #sayGoodbye(): void {
    if (this.#goodbye === undefined) return;
    const { browser, upstream } = this.#ends;
    // Behind a close frame of the upstream nothing more can be said.
    if (this.#toBrowser.isBetween) end(browser, this.#goodbye);
    else if (this.#toBrowser.isClosed) end(browser);
    else return;
    // Not before: it may still have the rest of a frame to send.
    end(upstream);
  }

  #join(from: Duplex, to: Duplex, head: Buffer, pass: (chunk: Buffer) => void): void {
    if (head.length > 0) pass(head);
    from.on('data', pass);
    from.once('end', () => {
      this.#endBehind(to);
    });
    from.once('error', () => {
      to.destroy();
    });
    from.once('close', () => {
      this.#closed += 1;
      if (this.#closed === 2) this.#finish();
      else this.#endBehind(to);
    });
  }

  /** What was sent before the end still goes out, as slowly as it is read. */
  #endBehind(to: Duplex): void {
    end(to);
    if (to.writableFinished) this.#cutSoon();
    else {
      to.once('finish', () => {
        this.#cutSoon();
      });
    }
  }

  /** A side that reads slowly slows down the one that sends, and so does a session that has moved too much. */
  #pass(from: Duplex, to: Duplex, chunk: Buffer): void {
    if (!this.#isLeaving) this.#timer?.refresh();
    if (!canWrite(to)) return;
    const isTaken = to.write(chunk);
    const wait = (this.#goodbye === undefined && this.#ends.spend?.(chunk.length)) || 0;
    if (isTaken && wait === 0) return;
    from.pause();
    const resume = (): void => {
      if (!this.#isLeaving) this.#timer?.refresh();
      from.resume();
    };
    const goOn = (): void => {
      if (to.writableNeedDrain) to.once('drain', resume);
      else resume();
    };
    if (wait === 0) {
      goOn();
      return;
    }
    const rest = setTimeout(() => {
      this.#resting.delete(rest);
      goOn();
    }, wait);
    this.#resting.set(rest, goOn);
  }

  #cutSoon(): void {
    if (this.#isLeaving || this.#closed === 2) return;
    this.#isLeaving = true;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#ends.browser.destroy();
      this.#ends.upstream.destroy();
    }, LEAVE_WITHIN);
  }

  #finish(): void {
    clearTimeout(this.#timer);
    for (const rest of this.#resting.keys()) clearTimeout(rest);
    this.#over();
    this.#ends.over();
  }
}

function canWrite(socket: Duplex): boolean {
  return !socket.writableEnded && !socket.destroyed;
}

function end(socket: Duplex, lastBytes?: Buffer): void {
  if (canWrite(socket)) socket.end(lastBytes);
}
