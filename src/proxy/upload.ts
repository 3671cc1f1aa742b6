import type { IncomingMessage } from 'node:http';
import { PassThrough, type Duplex } from 'node:stream';
import { Paced, type Spend } from './bandwidth.js';
import { UPLOAD_STALLED, UPLOAD_TOO_LARGE } from './upstream-errors.js';

export interface UploadLimits {
  /** Milliseconds without a byte. */
  idle: number;
  /** Bytes. */
  requestBody: number;
}

/** The body of a request on its way to an upstream. */
export class Upload {
  /** Not the request itself: the client destroys a body it cannot deliver, and the browser's connection with it. */
  readonly body: Duplex;
  readonly #request: IncomingMessage;
  readonly #limits: UploadLimits;
  readonly #failed: (error: Error) => void;
  #stalled: NodeJS.Timeout | undefined;
  /** Bytes. */
  #received = 0;

  /** @param spend undefined: as fast as it comes */
  constructor(
    request: IncomingMessage,
    limits: UploadLimits,
    spend: Spend | undefined,
    failed: (error: Error) => void,
  ) {
    this.body = spend === undefined ? new PassThrough() : new Paced(spend);
    this.#request = request;
    this.#limits = limits;
    this.#failed = failed;
  }

  start(): void {
    // Nothing else limits a body that stops coming: the server sets no time for it, the client watches only the upstream.
    const timer = setTimeout(() => {
      // With bytes waiting it is the upstream that is slow, whose own times are for that, or the bandwidth that is used up.
      if (this.body.writableLength > 0) timer.refresh();
      else this.#failed(Object.assign(new Error('the upload stopped'), { code: UPLOAD_STALLED }));
    }, this.#limits.idle);
    this.#stalled = timer;
    // Before the pipe: a chunk that is too much must not be on its way when it is found to be.
    this.#request.on('data', this.#onData);
    this.#request.once('end', () => {
      clearTimeout(timer);
    });
    this.#request.pipe(this.body);
  }

  stop(): void {
    clearTimeout(this.#stalled);
    this.#request.removeListener('data', this.#onData);
    this.#request.unpipe(this.body);
    this.body.destroy();
    // An upstream may answer before it has read everything; the rest must not stay in the connection.
    this.#request.resume();
  }

  readonly #onData = (chunk: Buffer): void => {
    this.#stalled?.refresh();
    this.#received += chunk.length;
    if (this.#received <= this.#limits.requestBody || this.body.destroyed) return;
    this.#failed(Object.assign(new Error('the upload is too large'), { code: UPLOAD_TOO_LARGE }));
  };
}

/** Whether a request announces a body (RFC 9112 section 6.3). */
export function hasBody({ headers }: IncomingMessage): boolean {
  const length = headers['content-length'];
  return headers['transfer-encoding'] !== undefined || (length !== undefined && length !== '0');
}
