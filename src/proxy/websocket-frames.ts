import { randomBytes } from 'node:crypto';

/** RFC 6455 section 7.4.1 and the registry it begins; of the private range of section 7.4.2 that the session is over. */
export const CLOSE_CODES = { away: 1001, restart: 1012, sessionEnded: 4401 } as const;

const OPCODE_CLOSE = 0x8;
const FINAL = 0x80;
const MASKED = 0x80;

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

/**
 * Follows one direction of a connection from frame to frame without looking into them (RFC 6455 section 5.2). Of a header it
 * reads the opcode, the length and whether a masking key follows; whether a frame is allowed is the business of the two ends.
 */
export class FrameBorders {
  /** Of the frame that goes by: bytes of its payload still to come. */
  #left = 0;
  /** The bytes of a header that is not complete yet. */
  #begun: Buffer | undefined;
  #isClosed = false;
  #dataFrames = 0;

  /** True where a frame of ours would stand between two others, and be read. */
  get isBetween(): boolean {
    return this.#left === 0 && this.#begun === undefined && !this.#isClosed;
  }

  /** A close frame began: nothing may follow it (section 5.5.1). */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Frames that were no control frames. */
  get dataFrames(): number {
    return this.#dataFrames;
  }

  /**
   * @param toNextBorder whether to stop where the frame that goes by is over
   * @returns how many bytes of the chunk went by
   */
  passed(chunk: Buffer, toNextBorder = false): number {
    const before = this.#begun?.length ?? 0;
    const bytes = this.#begun === undefined ? chunk : Buffer.concat([this.#begun, chunk]);
    this.#begun = undefined;
    let at = 0;
    // A header that has begun belongs to the frame that goes by.
    while (at < bytes.length && !(toNextBorder && this.#left === 0 && (at > 0 || before === 0))) {
      if (this.#left > 0) {
        const skipped = Math.min(this.#left, bytes.length - at);
        this.#left -= skipped;
        at += skipped;
        continue;
      }
      const length = headerLength(bytes, at);
      if (length === undefined || at + length > bytes.length) {
        // Copied: a slice would keep the whole chunk in memory.
        this.#begun = Buffer.from(bytes.subarray(at));
        return chunk.length;
      }
      this.#begin(bytes, at);
      at += length;
    }
    return at - before;
  }

  #begin(bytes: Buffer, at: number): void {
    const opcode = (bytes[at] ?? 0) & 0x0f;
    if (opcode === OPCODE_CLOSE) this.#isClosed = true;
    else if (opcode < OPCODE_CLOSE) this.#dataFrames += 1;
    this.#left = payloadLength(bytes, at);
  }
}

/** @returns undefined while too little of it is known */
function headerLength(bytes: Buffer, at: number): number | undefined {
  const second = bytes[at + 1];
  if (second === undefined) return undefined;
  const length = second & 0x7f;
  return 2 + (length === 127 ? 8 : length === 126 ? 2 : 0) + ((second & MASKED) === 0 ? 0 : 4);
}

function payloadLength(bytes: Buffer, at: number): number {
  const length = (bytes[at + 1] ?? 0) & 0x7f;
  if (length < 126) return length;
  return length === 126 ? bytes.readUInt16BE(at + 2) : Number(bytes.readBigUInt64BE(at + 2));
}
