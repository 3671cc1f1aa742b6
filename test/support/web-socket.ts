import { createHash, randomBytes } from 'node:crypto';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { BrowserClient } from './browser-client.js';
import type { Cloakroom } from './cloakroom.js';
import { closeLater, eventually } from './lifetime.js';
import { sessionPair } from './script-request.js';

// Both ends of a WebSocket (RFC 6455), written out by hand: tests must see, and send, what no library would.

export const OPCODES = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;

export interface Frame {
  fin: boolean;
  /** The first of the reserved bits, by which compressed messages are known. */
  compressed: boolean;
  opcode: number;
  masked: boolean;
  payload: Buffer;
}

export function frame(
  opcode: number,
  payload: Buffer | string,
  { mask = false, fin = true, compressed = false } = {},
): Buffer {
  const body = Buffer.from(payload);
  const head = [(fin ? 0x80 : 0) | (compressed ? 0x40 : 0) | opcode];
  const flag = mask ? 0x80 : 0;
  if (body.length < 126) head.push(flag | body.length);
  else if (body.length < 65_536) head.push(flag | 126, body.length >> 8, body.length & 0xff);
  else {
    const length = Buffer.alloc(8);
    length.writeBigUInt64BE(BigInt(body.length));
    head.push(flag | 127, ...length);
  }
  if (!mask) return Buffer.concat([Buffer.from(head), body]);
  const key = randomBytes(4);
  for (let i = 0; i < body.length; i += 1) body[i] = (body[i] ?? 0) ^ (key[i & 3] ?? 0);
  return Buffer.concat([Buffer.from(head), key, body]);
}

/** Cuts a stream of bytes into frames. */
export class FrameReader {
  readonly frames: Frame[] = [];
  private rest = Buffer.alloc(0);

  add(chunk: Buffer): void {
    this.rest = Buffer.concat([this.rest, chunk]);
    for (;;) {
      const next = this.read();
      if (next === undefined) return;
      this.frames.push(next);
    }
  }

  /** Bytes of a frame that is not complete. */
  get pending(): number {
    return this.rest.length;
  }

  private read(): Frame | undefined {
    const { rest } = this;
    if (rest.length < 2) return undefined;
    const [first = 0, second = 0] = rest;
    const masked = (second & 0x80) !== 0;
    let at = 2;
    let length = second & 0x7f;
    if (length === 126) {
      if (rest.length < 4) return undefined;
      length = rest.readUInt16BE(2);
      at = 4;
    } else if (length === 127) {
      if (rest.length < 10) return undefined;
      length = Number(rest.readBigUInt64BE(2));
      at = 10;
    }
    const key = rest.subarray(at, at + 4);
    if (masked) at += 4;
    if (rest.length < at + length) return undefined;
    const payload = Buffer.from(rest.subarray(at, at + length));
    if (masked)
      for (let i = 0; i < payload.length; i += 1) payload[i] = (payload[i] ?? 0) ^ (key[i & 3] ?? 0);
    this.rest = rest.subarray(at + length);
    return {
      fin: (first & 0x80) !== 0,
      compressed: (first & 0x40) !== 0,
      opcode: first & 0x0f,
      masked,
      payload,
    };
  }
}

export interface HandshakeOptions {
  replica?: number;
  cookie?: string;
  /** Header lines; they take the place of the usual ones of the same name. A value of undefined removes one. */
  headers?: Record<string, string | undefined>;
  method?: string;
  version?: string;
  /** Sent right behind the handshake, in one packet with it. */
  behind?: Buffer;
}

/** The end in a browser. */
export class BrowserSocket {
  readonly reader = new FrameReader();
  status = 0;
  headers: Record<string, string> = {};
  /** Header lines of the answer. */
  lines: string[] = [];
  /** The body of an answer that is no 101. */
  text = '';
  closed = false;
  wasReset = false;
  key = '';
  private head = '';

  private constructor(readonly socket: Socket) {
    socket.on('data', (chunk: Buffer) => {
      this.take(chunk);
    });
    socket.on('error', () => {
      this.wasReset = true;
    });
    socket.on('close', () => {
      this.closed = true;
    });
  }

  /** The bytes that a page of the application would send, and the key in them. */
  static handshake(
    client: BrowserClient,
    path: string,
    { method = 'GET', version = 'HTTP/1.1', ...options }: HandshakeOptions = {},
  ): { head: Buffer; key: string } {
    const key = randomBytes(16).toString('base64');
    const usual: Record<string, string | undefined> = {
      host: client.publicUrl.host,
      connection: 'Upgrade',
      upgrade: 'websocket',
      origin: client.publicUrl.origin,
      'sec-websocket-version': '13',
      'sec-websocket-key': key,
      'x-forwarded-proto': client.publicUrl.protocol.slice(0, -1),
      cookie: options.cookie ?? (client.sessionCookie === undefined ? undefined : sessionPair(client)),
      ...options.headers,
    };
    const lines = Object.entries(usual).flatMap(([name, value]) =>
      value === undefined ? [] : [`${name}: ${value}`],
    );
    return {
      head: Buffer.from(`${method} ${path} ${version}\r\n${lines.join('\r\n')}\r\n\r\n`, 'latin1'),
      key,
    };
  }

  /** Sends a handshake, and waits for the head of the answer. */
  static async open(
    room: Cloakroom,
    client: BrowserClient,
    path: string,
    options: HandshakeOptions = {},
  ): Promise<BrowserSocket> {
    const { head, key } = BrowserSocket.handshake(client, path, options);
    const port = room.replica(options.replica ?? 0).clientPort;
    const socket = connect({ host: '127.0.0.1', port, noDelay: true });
    const end = new BrowserSocket(socket);
    closeLater(() => {
      socket.destroy();
    });
    end.key = key;
    socket.write(options.behind === undefined ? head : Buffer.concat([head, options.behind]));
    await eventually(() => end.status !== 0 || end.closed, {
      timeout: 15_000,
      interval: 2,
      what: 'an answer to the handshake',
    });
    return end;
  }

  /** The type of the problem document that was the answer. */
  get problem(): unknown {
    return (JSON.parse(this.text) as { type?: unknown }).type;
  }

  get frames(): Frame[] {
    return this.reader.frames;
  }

  get texts(): string[] {
    return this.frames
      .filter(({ opcode }) => opcode === OPCODES.text)
      .map(({ payload }) => payload.toString());
  }

  /** Code and reason of the close frame, if one came. */
  get closing(): [code: number, reason: string] | undefined {
    const last = this.frames.find(({ opcode }) => opcode === OPCODES.close);
    if (last === undefined) return undefined;
    return [
      last.payload.length < 2 ? 1005 : last.payload.readUInt16BE(0),
      last.payload.subarray(2).toString(),
    ];
  }

  send(
    opcode: number,
    payload: Buffer | string,
    options: { fin?: boolean; compressed?: boolean } = {},
  ): void {
    this.socket.write(frame(opcode, payload, { mask: true, ...options }));
  }

  async heard(text: string): Promise<void> {
    await eventually(() => this.texts.includes(text), { timeout: 10_000, what: `"${text}" to arrive` });
  }

  async ended(timeout = 10_000): Promise<void> {
    await eventually(() => this.closed, { timeout, what: 'the connection to end' });
  }

  private take(chunk: Buffer): void {
    if (this.status === 101) {
      this.reader.add(chunk);
      return;
    }
    this.head += chunk.toString('latin1');
    const end = this.head.indexOf('\r\n\r\n');
    if (end < 0) return;
    const [statusLine = '', ...lines] = this.head.slice(0, end).split('\r\n');
    this.lines = lines;
    this.headers = Object.fromEntries(
      lines.map((line) => [
        line.slice(0, line.indexOf(':')).toLowerCase(),
        line.slice(line.indexOf(':') + 1).trim(),
      ]),
    );
    const rest = Buffer.from(this.head.slice(end + 4), 'latin1');
    const status = Number(statusLine.split(' ')[1]);
    if (status === 101) {
      this.status = status;
      this.reader.add(rest);
    } else {
      this.text = rest.toString();
      this.status = status;
    }
  }
}

/** One socket as the upstream has it. */
export class UpstreamSocket {
  readonly reader = new FrameReader();
  closed = false;

  constructor(
    readonly request: IncomingMessage,
    readonly socket: Duplex,
  ) {
    socket.on('data', (chunk: Buffer) => {
      this.reader.add(chunk);
    });
    socket.on('error', () => undefined);
    // A server of Node leaves its side open otherwise.
    socket.on('end', () => socket.end());
    socket.on('close', () => {
      this.closed = true;
    });
  }

  get texts(): string[] {
    return this.reader.frames
      .filter(({ opcode }) => opcode === OPCODES.text)
      .map(({ payload }) => payload.toString());
  }

  send(
    opcode: number,
    payload: Buffer | string,
    options: { fin?: boolean; compressed?: boolean } = {},
  ): void {
    this.socket.write(frame(opcode, payload, options));
  }
}

/** An upstream that opens WebSockets and echoes what it hears. */
export class WebSocketUpstream {
  readonly sockets: UpstreamSocket[] = [];
  /** Requests without a handshake. */
  plain = 0;
  /** Lines of the 101, when it should be another than the right one; or a whole answer of another status. */
  answer: ((accept: string, request: IncomingMessage) => string) | undefined;
  echoes = true;
  private readonly server: Server;

  private constructor() {
    this.server = createServer((_request, response) => {
      this.plain += 1;
      response.end('plain');
    });
    this.server.on('upgrade', (request: IncomingMessage, socket: Socket, head: Buffer) => {
      this.accept(request, socket, head);
    });
    closeLater(() => this.close());
  }

  static async start(): Promise<WebSocketUpstream> {
    const upstream = new WebSocketUpstream();
    await new Promise<void>((resolve) => upstream.server.listen(0, '127.0.0.1', resolve));
    return upstream;
  }

  get url(): string {
    return `http://127.0.0.1:${String((this.server.address() as AddressInfo).port)}`;
  }

  get last(): UpstreamSocket {
    const last = this.sockets.at(-1);
    if (last === undefined) throw new Error('no socket was opened');
    return last;
  }

  get open(): number {
    return this.sockets.filter(({ closed }) => !closed).length;
  }

  async close(): Promise<void> {
    for (const { socket } of this.sockets) socket.destroy();
    this.server.closeAllConnections();
    await new Promise((resolve) => this.server.close(resolve));
  }

  private accept(request: IncomingMessage, socket: Socket, head: Buffer): void {
    const accept = createHash('sha1')
      .update(`${String(request.headers['sec-websocket-key'])}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
      .digest('base64');
    const right = [
      'HTTP/1.1 101 Switching Protocols',
      'Connection: Upgrade',
      'Upgrade: websocket',
      `Sec-WebSocket-Accept: ${accept}`,
    ].join('\r\n');
    socket.write(this.answer?.(accept, request) ?? `${right}\r\n\r\n`);
    const end = new UpstreamSocket(request, socket);
    this.sockets.push(end);
    if (head.length > 0) end.reader.add(head);
    let seen = 0;
    const echo = (): void => {
      for (; seen < end.reader.frames.length; seen += 1) {
        const got = end.reader.frames[seen];
        if (got === undefined || !this.echoes) continue;
        if (got.opcode === OPCODES.close) socket.end(frame(OPCODES.close, got.payload));
        else if (got.opcode === OPCODES.ping) end.send(OPCODES.pong, got.payload);
        else if (got.opcode <= OPCODES.binary) {
          end.send(got.opcode, got.payload, { fin: got.fin, compressed: got.compressed });
        }
      }
    };
    socket.on('data', echo);
    echo();
  }
}

/**
 * Passes a handshake on as it came, and joins both ends: for a server that has its WebSockets elsewhere.
 *
 * @param to the URL of where they are
 */
export function passUpgrade(request: IncomingMessage, socket: Duplex, head: Buffer, to: string): Socket {
  const onward = connect(Number(new URL(to).port), '127.0.0.1');
  const lines = request.rawHeaders.flatMap((name, i, all) =>
    i % 2 === 0 ? [`${name}: ${String(all[i + 1])}`] : [],
  );
  onward.write(`GET ${String(request.url)} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`);
  onward.write(head);
  onward.on('error', () => socket.destroy());
  socket.on('error', () => onward.destroy());
  socket.pipe(onward).pipe(socket);
  return onward;
}
