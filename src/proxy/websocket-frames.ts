import { randomBytes } from 'node:crypto';

/** RFC 6455 section 7.4.1 and the registry it begins; of the private range of section 7.4.2 that the session is over. */
export const CLOSE_CODES = { away: 1001, restart: 1012, sessionEnded: 4401 } as const;

const OPCODE_CLOSE = 0x8;
const FINAL = 0x80;
const MASKED = 0x80;
const LONGEST_HEADER = 14;

/**
 * A close frame (RFC 6455 section 5.5.1).
 *
 * @param reason at most 123 bytes of UTF-8
 * @param mask as the side that opened the connection must send it (section 5.3)
 */
export function closeFrame(code: number, reason: string, mask: boolean): Buffer {
  const payload = Buffer.alloc(2 + Buffer.byteLength(reason));
  payload.writeUInt16BE(code);
  payload.write(reason, 2);
  if (!mask) return Buffer.concat([Buffer.from([FINAL | OPCODE_CLOSE, payload.length]), payload]);
  const key = randomBytes(4);
  for (let i = 0; i < payload.length; i += 1) payload[i] = (payload[i] ?? 0) ^ (key[i & 3] ?? 0);
  return Buffer.concat([Buffer.from([FINAL | OPCODE_CLOSE, MASKED | payload.length]), key, payload]);
}

/** Follows one direction of a connection from frame to frame without looking into them. */
export class FrameBorders {
  /** Of the frame that goes by: bytes of its payload still to come. */
  #left = 0;
  /** The bytes of a header that is not complete yet. */
  readonly #header = Buffer.alloc(LONGEST_HEADER);
  #headerLength = 0;
  #closed = false;

  /** True where a frame of ours would stand between two others, and be read. */
  get isBetween(): boolean {
    return this.#left === 0 && this.#headerLength === 0 && !this.#closed;
  }

  /** A close frame went by: nothing may follow it (section 5.5.1). */
  get isClosed(): boolean {
    return this.#closed;
  }

  /**
   * @param toNextBorder whether to stop where the frame that goes by is over
   * @returns how many bytes of the chunk went by
   */
  passed(chunk: Buffer, toNextBorder = false): number {
    let at = 0;
    while (at < chunk.length && !(toNextBorder && this.isBetween)) {
      if (this.#left > 0) {
        const skipped = Math.min(this.#left, chunk.length - at);
        this.#left -= skipped;
        at += skipped;
        continue;
      }
      this.#header[this.#headerLength] = chunk[at] ?? 0;
      this.#headerLength += 1;
      at += 1;
      if (this.#headerLength === headerLength(this.#header, this.#headerLength)) this.#begin();
    }
    return at;
  }

  #begin(): void {
    if (((this.#header[0] ?? 0) & 0x0f) === OPCODE_CLOSE) this.#closed = true;
    this.#left = payloadLength(this.#header);
    this.#headerLength = 0;
  }
}

/** @returns undefined while too little of it is known */
function headerLength(header: Buffer, known: number): number | undefined {
  if (known < 2) return undefined;
  const second = header[1] ?? 0;
  const length = second & 0x7f;
  return 2 + (length === 127 ? 8 : length === 126 ? 2 : 0) + ((second & MASKED) === 0 ? 0 : 4);
}

function payloadLength(header: Buffer): number {
  const length = (header[1] ?? 0) & 0x7f;
  if (length < 126) return length;
  return length === 126 ? header.readUInt16BE(2) : Number(header.readBigUInt64BE(2));
}
