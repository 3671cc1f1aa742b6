import { connect, type Socket } from 'node:net';
import { sleep } from './lifetime.js';

export interface RawResponse {
  statusLine: string;
  status: number;
  headers: Array<[string, string]>;
  header(name: string): string | undefined;
  body: Buffer;
}

export interface RawResult {
  bytes: Buffer;
  text: string;
  /** Every complete answer found in the bytes, interim ones included. */
  responses: RawResponse[];
  /** How the connection stood when collecting ended. */
  end: 'closed' | 'reset' | 'timeout' | 'enough';
}

export interface SendOptions {
  host?: string;
  /** Milliseconds until collecting ends. */
  timeout?: number;
  /** Stop as soon as this many complete final answers are there. */
  answers?: number;
  /** Half-close after the last byte. */
  end?: boolean;
  /** Milliseconds between the pieces when `bytes` is a list. */
  pause?: number;
  /** The request was HEAD, so answers have no body. */
  head?: boolean;
}

/** A connection on which a test writes what it wants and reads what comes. */
export class RawConnection {
  private readonly chunks: Buffer[] = [];
  private state: 'open' | 'closed' | 'reset' = 'open';
  private readonly waiters = new Set<() => void>();

  private constructor(readonly socket: Socket) {
    socket.on('data', (chunk) => {
      this.chunks.push(chunk);
      this.wake();
    });
    socket.on('error', () => {
      this.state = 'reset';
      this.wake();
    });
    socket.on('end', () => {
      if (this.state === 'open') this.state = 'closed';
      this.wake();
    });
    socket.on('close', () => {
      if (this.state === 'open') this.state = 'closed';
      this.wake();
    });
  }

  static async open(port: number, host = '127.0.0.1'): Promise<RawConnection> {
    const socket = connect({ port, host, noDelay: true, allowHalfOpen: true });
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return new RawConnection(socket);
  }

  get received(): Buffer {
    return Buffer.concat(this.chunks);
  }

  get open(): boolean {
    return this.state === 'open';
  }

  write(bytes: string | Buffer): void {
    if (!this.socket.destroyed)
      this.socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes);
  }

  end(): void {
    this.socket.end();
  }

  reset(): void {
    this.socket.resetAndDestroy();
  }

  close(): void {
    this.socket.destroy();
  }

  /** Waits for the end of the connection, the time, or that many final answers. */
  async collect({ timeout = 2_000, answers, head = false }: SendOptions = {}): Promise<RawResult> {
    const deadline = Date.now() + timeout;
    let end: RawResult['end'] = 'timeout';
    for (;;) {
      if (answers !== undefined) {
        const final = parseResponses(this.received, head).filter((response) => response.status >= 200);
        if (final.length >= answers) {
          end = 'enough';
          break;
        }
      }
      if (this.state !== 'open') {
        end = this.state;
        break;
      }
      const left = deadline - Date.now();
      if (left <= 0) break;
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          clearTimeout(timer);
          this.waiters.delete(wake);
          resolve();
        };
        const timer = setTimeout(wake, left);
        this.waiters.add(wake);
      });
    }
    const bytes = this.received;
    return { bytes, text: bytes.toString('latin1'), responses: parseResponses(bytes, head), end };
  }

  private wake(): void {
    for (const waiter of [...this.waiters]) waiter();
  }
}

/** Opens a connection, sends the bytes (strings as latin1), collects what comes back and closes. */
export async function sendRaw(
  port: number,
  bytes: string | Buffer | Array<string | Buffer>,
  options: SendOptions = {},
): Promise<RawResult> {
  const connection = await RawConnection.open(port, options.host);
  try {
    const pieces = Array.isArray(bytes) ? bytes : [bytes];
    for (const [at, piece] of pieces.entries()) {
      if (at > 0 && options.pause !== undefined) await sleep(options.pause);
      connection.write(piece);
    }
    if (options.end === true) connection.end();
    return await connection.collect(options);
  } finally {
    connection.close();
  }
}

/** Several requests in one write on one connection. */
export function pipeline(
  port: number,
  requests: Array<string | Buffer>,
  options: SendOptions = {},
): Promise<RawResult> {
  const bytes = Buffer.concat(
    requests.map((request) => (typeof request === 'string' ? Buffer.from(request, 'latin1') : request)),
  );
  return sendRaw(port, bytes, { answers: requests.length, ...options });
}

export function parseResponses(bytes: Buffer, head = false): RawResponse[] {
  const responses: RawResponse[] = [];
  let at = 0;
  for (;;) {
    const headEnd = bytes.indexOf('\r\n\r\n', at);
    if (headEnd < 0) return responses;
    const [statusLine = '', ...lines] = bytes.subarray(at, headEnd).toString('latin1').split('\r\n');
    const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(statusLine)?.[1] ?? Number.NaN);
    if (Number.isNaN(status)) return responses;
    const headers = lines.map((line): [string, string] => {
      const colon = line.indexOf(':');
      return [line.slice(0, colon), line.slice(colon + 1).trim()];
    });
    const header = (name: string): string | undefined =>
      headers.find(([given]) => given.toLowerCase() === name.toLowerCase())?.[1];
    const start = headEnd + 4;
    let end = start;
    let body = Buffer.alloc(0);
    const bodyless = head || status < 200 || status === 204 || status === 304;
    if (!bodyless && /chunked/i.test(header('transfer-encoding') ?? '')) {
      const parts: Buffer[] = [];
      for (;;) {
        const lineEnd = bytes.indexOf('\r\n', end);
        if (lineEnd < 0) return responses;
        const size = Number.parseInt(bytes.subarray(end, lineEnd).toString('latin1'), 16);
        if (Number.isNaN(size) || bytes.length < lineEnd + 2 + size + 2) return responses;
        parts.push(bytes.subarray(lineEnd + 2, lineEnd + 2 + size));
        end = lineEnd + 2 + size + 2;
        if (size === 0) break;
      }
      body = Buffer.concat(parts);
    } else if (!bodyless) {
      const length = header('content-length');
      end = length === undefined ? bytes.length : start + Number(length);
      if (bytes.length < end) return responses;
      body = Buffer.from(bytes.subarray(start, end));
    }
    responses.push({ statusLine, status, headers, header, body });
    at = end;
  }
}
