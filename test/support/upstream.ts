import { createHash } from 'node:crypto';
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http';
import { createServer, type AddressInfo, type Server as NetServer, type Socket } from 'node:net';
import { closeLater, sleep } from './lifetime.js';

/** One request as its bytes stood on the wire. */
export interface RawRequest {
  connection: number;
  /** Head and body, untouched. */
  bytes: Buffer;
  head: string;
  requestLine: string;
  method: string;
  target: string;
  /** Lines between the request line and the empty line, as `[name, value]`, in order, doubles kept. */
  headers: Array<[string, string]>;
  /** Body as sent: chunk framing still in it. */
  body: Buffer;
  header(name: string): string | undefined;
}

export interface RawConnection {
  id: number;
  /** Everything the peer sent, framing tricks included. */
  received: Buffer;
  requests: RawRequest[];
  closed: boolean;
  socket: Socket;
}

/** What the raw upstream answers: bytes, bytes and then close, or nothing. */
export type RawAnswer = string | Buffer | { bytes: string | Buffer; close: 'end' | 'reset' } | undefined;

export type RawHandler = (request: RawRequest, socket: Socket) => RawAnswer | Promise<RawAnswer>;

const OK = 'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok';

/** An upstream that shows exactly what it got and can answer anything. */
export class RawUpstream {
  connections: RawConnection[] = [];
  /** Every complete request, over all connections. */
  readonly requests: RawRequest[] = [];
  /** Over all connections, those that were forgotten by `clear` while they were open among them. */
  bytesReceived = 0;
  handler: RawHandler = () => OK;
  private server: NetServer;
  private readonly forget: () => void;

  private constructor() {
    this.server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
      this.accept(socket);
    });
    this.forget = closeLater(() => this.close());
  }

  static async start(handler?: RawHandler): Promise<RawUpstream> {
    const upstream = new RawUpstream();
    if (handler !== undefined) upstream.handler = handler;
    await listen(upstream.server, 0);
    return upstream;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${String(this.port)}`;
  }

  /** All bytes of all connections, one after the other. */
  get received(): Buffer {
    return Buffer.concat(this.connections.map((connection) => connection.received));
  }

  clear(): void {
    this.requests.length = 0;
    this.connections.length = 0;
    this.bytesReceived = 0;
  }

  async close(): Promise<void> {
    this.forget();
    for (const connection of this.connections) connection.socket.destroy();
    if (!this.server.listening) return;
    await new Promise<void>((resolve) =>
      this.server.close(() => {
        resolve();
      }),
    );
  }

  private accept(socket: Socket): void {
    const connection: RawConnection = {
      id: this.connections.length,
      received: Buffer.alloc(0),
      requests: [],
      closed: false,
      socket,
    };
    this.connections.push(connection);
    let rest = Buffer.alloc(0);
    let turn = Promise.resolve();
    socket.on('error', () => undefined);
    socket.on('end', () => socket.end());
    socket.on('close', () => {
      connection.closed = true;
    });
    socket.on('data', (chunk) => {
      this.bytesReceived += chunk.length;
      connection.received = Buffer.concat([connection.received, chunk]);
      rest = Buffer.concat([rest, chunk]);
      for (;;) {
        const request = parseRequest(rest, connection.id);
        if (request === undefined) return;
        rest = rest.subarray(request.bytes.length);
        connection.requests.push(request);
        this.requests.push(request);
        turn = turn.then(async () => {
          const answer = await this.handler(request, socket);
          if (answer === undefined || socket.destroyed) return;
          if (typeof answer === 'string' || Buffer.isBuffer(answer)) {
            socket.write(answer);
          } else if (answer.close === 'end') {
            socket.end(answer.bytes);
          } else {
            socket.write(answer.bytes, () => setTimeout(() => socket.resetAndDestroy(), 10));
          }
        });
      }
    });
  }
}

/** Cuts one request off the front, as a lenient peer would; undefined while bytes are missing. */
function parseRequest(bytes: Buffer, connection: number): RawRequest | undefined {
  const headEnd = bytes.indexOf('\r\n\r\n');
  if (headEnd < 0) return undefined;
  const head = bytes.subarray(0, headEnd).toString('latin1');
  const [requestLine = '', ...lines] = head.split('\r\n');
  const headers = lines.map((line): [string, string] => {
    const colon = line.indexOf(':');
    return colon < 0 ? [line, ''] : [line.slice(0, colon), line.slice(colon + 1).trim()];
  });
  const header = (name: string): string | undefined =>
    headers.find(([given]) => given.toLowerCase() === name.toLowerCase())?.[1];
  const start = headEnd + 4;
  let end = start;
  if (/chunked/i.test(header('transfer-encoding') ?? '')) {
    for (;;) {
      const lineEnd = bytes.indexOf('\r\n', end);
      if (lineEnd < 0) return undefined;
      const size = Number.parseInt(bytes.subarray(end, lineEnd).toString('latin1'), 16);
      if (Number.isNaN(size)) return undefined;
      if (size === 0) {
        // Trailers, if any, run to the next empty line.
        if (bytes.subarray(lineEnd, lineEnd + 4).toString('latin1') === '\r\n\r\n') {
          end = lineEnd + 4;
          break;
        }
        const trailersEnd = bytes.indexOf('\r\n\r\n', lineEnd);
        if (trailersEnd < 0) return undefined;
        end = trailersEnd + 4;
        break;
      }
      end = lineEnd + 2 + size + 2;
      if (bytes.length < end) return undefined;
    }
  } else {
    end = start + Number.parseInt(header('content-length') ?? '0', 10);
    if (bytes.length < end) return undefined;
  }
  const [method = '', target = ''] = requestLine.split(' ');
  return {
    connection,
    bytes: Buffer.from(bytes.subarray(0, end)),
    head,
    requestLine,
    method,
    target,
    headers,
    body: Buffer.from(bytes.subarray(start, end)),
    header,
  };
}

export function startRawUpstream(handler?: RawHandler): Promise<RawUpstream> {
  return RawUpstream.start(handler);
}

/** A listener nobody should ever connect to. */
export interface Sink {
  readonly url: string;
  readonly port: number;
  connections: number;
  close(): Promise<void>;
}

export async function startSink(): Promise<Sink> {
  const server = createServer((socket) => {
    sink.connections += 1;
    socket.on('error', () => undefined);
    socket.destroy();
  });
  await listen(server, 0);
  const { port } = server.address() as AddressInfo;
  const sink: Sink = {
    url: `http://127.0.0.1:${String(port)}`,
    port,
    connections: 0,
    async close() {
      forget();
      if (server.listening)
        await new Promise<void>((resolve) =>
          server.close(() => {
            resolve();
          }),
        );
    },
  };
  const forget = closeLater(() => sink.close());
  return sink;
}

/** What the HTTP upstream noted about a request. */
export interface SeenRequest {
  method: string;
  url: string;
  rawHeaders: string[];
  headers: IncomingMessage['headers'];
  /** The bearer token as received; stays in the test's process. */
  bearer: string | undefined;
  bodyLength: number;
  bodySha256: string;
  at: number;
  /** The request's body came in whole. */
  complete: boolean;
  /** The peer went away before the answer was finished. */
  aborted: boolean;
  answered: boolean;
}

export interface UpstreamOptions {
  /** Says who a bearer token belongs to; an unknown token is answered 401. Without it every token will do. */
  identify?: (bearer: string) => string | undefined;
  port?: number;
}

export type UpstreamHandler = (
  request: IncomingMessage,
  response: ServerResponse,
  seen: SeenRequest,
) => boolean | Promise<boolean>;

/**
 * An ordinary API. The end of the path chooses the behaviour, whatever comes before it:
 *
 * - `…/delay/<ms>` the echo after so long · `…/status/<code>` an empty answer
 * - `…/sse/<count>/<ms>` that many events so far apart · `…/bytes/<n>` n bytes, with back-pressure
 * - `…/chunked/<n>` the same without a length · `…/drip/<n>/<ms>` a byte every ms
 * - `…/slow-read/<ms>` reads a chunk, waits, reads the next · `…/early` answers before it reads the body
 * - `…/reset/<n>` n bytes of a longer body, then a reset; `…/reset` a reset before any byte
 * - `…/redirect?to=<url>` 302 · `…/interim/<n>` n times 103, then the echo · `…/hang` no answer
 * - `…/headers` answers with hop-by-hop headers, Set-Cookie and a few more to be filtered
 *
 * Everything else echoes method, URL, headers and the body's length and digest as JSON. The bearer token is
 * shown as a digest and never returned.
 */
export class Upstream {
  readonly requests: SeenRequest[] = [];
  /** Asked first; answers true when it dealt with the request. */
  handler: UpstreamHandler | undefined;
  identify: UpstreamOptions['identify'];
  /** Connections accepted so far. */
  connections = 0;
  bytesReceived = 0;
  bytesSent = 0;
  private server: Server;
  private port_: number;
  private readonly forget: () => void;

  private constructor(options: UpstreamOptions) {
    this.identify = options.identify;
    this.port_ = options.port ?? 0;
    this.server = this.create();
    this.forget = closeLater(() => this.close());
  }

  static async start(options: UpstreamOptions = {}): Promise<Upstream> {
    const upstream = new Upstream(options);
    await upstream.listen();
    return upstream;
  }

  get port(): number {
    return this.port_;
  }

  get url(): string {
    return `http://127.0.0.1:${String(this.port_)}`;
  }

  get last(): SeenRequest | undefined {
    return this.requests[this.requests.length - 1];
  }

  clear(): void {
    this.requests.length = 0;
  }

  /** Stops listening and cuts every connection; `start()` listens on the same port again. */
  async stop(): Promise<void> {
    if (!this.server.listening) return;
    const closed = new Promise<void>((resolve) =>
      this.server.close(() => {
        resolve();
      }),
    );
    this.server.closeAllConnections();
    await closed;
  }

  async start(): Promise<void> {
    if (this.server.listening) return;
    this.server = this.create();
    await this.listen();
  }

  async close(): Promise<void> {
    this.forget();
    await this.stop();
  }

  private async listen(): Promise<void> {
    await listen(this.server, this.port_);
    this.port_ = (this.server.address() as AddressInfo).port;
  }

  private create(): Server {
    const server = createHttpServer({ keepAliveTimeout: 30_000, requestTimeout: 0 }, (request, response) => {
      this.handle(request, response).catch(() => response.destroy());
    });
    server.on('connection', () => {
      this.connections += 1;
    });
    server.on('clientError', (_error, socket) => socket.destroy());
    return server;
  }

  private async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const bearer = /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1];
    const seen: SeenRequest = {
      method: request.method ?? '',
      url: request.url ?? '',
      rawHeaders: request.rawHeaders,
      headers: request.headers,
      bearer,
      bodyLength: 0,
      bodySha256: '',
      at: Date.now(),
      complete: false,
      aborted: false,
      answered: false,
    };
    this.requests.push(seen);
    request.on('error', () => undefined);
    response.on('error', () => undefined);
    response.once('close', () => {
      seen.answered = response.writableFinished;
      seen.aborted = !response.writableFinished;
    });
    if (this.handler !== undefined && (await this.handler(request, response, seen))) return;

    const user = bearer === undefined ? undefined : this.identify?.(bearer);
    if (this.identify !== undefined && user === undefined) {
      await drain(request, seen);
      respond(
        response,
        401,
        { 'www-authenticate': 'Bearer error="invalid_token"' },
        { error: 'unknown token' },
      );
      return;
    }
    const url = new URL(seen.url, 'http://upstream.invalid');
    const path = url.pathname;
    const arg = (pattern: RegExp): number[] | undefined => pattern.exec(path)?.slice(1).map(Number);

    const echo = (status = 200): void => {
      respond(response, status, {}, echoOf(seen, user));
    };
    let args: number[] | undefined;

    if (path.endsWith('/hang')) {
      await drain(request, seen);
      return;
    }
    if (path.endsWith('/early')) {
      echo();
      return;
    }
    if ((args = arg(/\/slow-read\/(\d+)$/)) !== undefined) {
      await drain(request, seen, args[0]);
      echo();
      return;
    }
    if (path.endsWith('/reset')) {
      request.socket.resetAndDestroy();
      return;
    }
    await drain(request, seen);
    if ((args = arg(/\/delay\/(\d+)$/)) !== undefined) {
      await sleep(args[0] ?? 0);
      echo();
    } else if ((args = arg(/\/status\/(\d{3})$/)) !== undefined) {
      response.writeHead(args[0] ?? 200).end();
    } else if ((args = arg(/\/sse\/(\d+)\/(\d+)$/)) !== undefined) {
      await events(response, args[0] ?? 0, args[1] ?? 0);
    } else if ((args = arg(/\/(?:bytes|chunked)\/(\d+)$/)) !== undefined) {
      const total = args[0] ?? 0;
      response.writeHead(200, {
        'content-type': 'application/octet-stream',
        ...(path.includes('/bytes/') ? { 'content-length': total } : {}),
      });
      await this.pour(response, total);
    } else if ((args = arg(/\/drip\/(\d+)\/(\d+)$/)) !== undefined) {
      response.writeHead(200, { 'content-type': 'text/plain' });
      for (let sent = 0; sent < (args[0] ?? 0) && !response.destroyed; sent += 1) {
        response.write('.');
        await sleep(args[1] ?? 0);
      }
      response.end();
    } else if ((args = arg(/\/reset\/(\d+)$/)) !== undefined) {
      const sent = args[0] ?? 0;
      response.writeHead(200, { 'content-length': sent + 100_000 });
      response.flushHeaders();
      response.write(Buffer.alloc(sent, 0x61), () => setTimeout(() => request.socket.resetAndDestroy(), 20));
    } else if (path.endsWith('/redirect')) {
      respond(response, 302, { location: url.searchParams.get('to') ?? '/' }, {});
    } else if ((args = arg(/\/interim\/(\d+)$/)) !== undefined) {
      for (let sent = 0; sent < (args[0] ?? 0); sent += 1) {
        request.socket.write('HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n');
      }
      echo();
    } else if (path.endsWith('/headers')) {
      response.writeHead(200, [
        ...[
          'Content-Type',
          'application/json',
          'Connection',
          'keep-alive, X-Nominated',
          'X-Nominated',
          'yes',
        ],
        ...['Keep-Alive', 'timeout=77', 'Proxy-Authenticate', 'Basic', 'Trailer', 'X-T', 'Upgrade', 'h2c'],
        ...['Set-Cookie', 'theme=dark; Path=/', 'Set-Cookie', 'wide=1; Domain=example.test; Path=/'],
        ...['X-Powered-By', 'upstream', 'ETag', '"abc"', 'X-Custom', 'kept?'],
      ]);
      response.end(JSON.stringify(echoOf(seen, user)));
    } else {
      echo();
    }
  }

  private async pour(response: ServerResponse, total: number): Promise<void> {
    const block = Buffer.alloc(64 * 1024, 'cloakroom ');
    let left = total;
    while (left > 0 && !response.destroyed) {
      const chunk = left >= block.length ? block : block.subarray(0, left);
      left -= chunk.length;
      this.bytesSent += chunk.length;
      if (!response.write(chunk)) {
        await new Promise<void>((resolve) => {
          const go = (): void => {
            response.off('drain', go);
            response.off('close', go);
            resolve();
          };
          response.once('drain', go);
          response.once('close', go);
        });
      }
    }
    response.end();
  }
}

/** What the echo shows; the type of the JSON a test gets back. */
export interface Echo {
  method: string;
  url: string;
  headers: Array<[string, string]>;
  user: string | null;
  bearerSha256: string | null;
  bodyLength: number;
  bodySha256: string;
}

function echoOf(seen: SeenRequest, user: string | undefined): Echo {
  const headers: Array<[string, string]> = [];
  for (let i = 0; i < seen.rawHeaders.length; i += 2) {
    const name = seen.rawHeaders[i] ?? '';
    const value = seen.rawHeaders[i + 1] ?? '';
    headers.push([name, name.toLowerCase() === 'authorization' ? '(not shown)' : value]);
  }
  return {
    method: seen.method,
    url: seen.url,
    headers,
    user: user ?? null,
    bearerSha256: seen.bearer === undefined ? null : createHash('sha256').update(seen.bearer).digest('hex'),
    bodyLength: seen.bodyLength,
    bodySha256: seen.bodySha256,
  };
}

function respond(
  response: ServerResponse,
  status: number,
  headers: Record<string, string>,
  body: object,
): void {
  if (response.destroyed) return;
  const text = JSON.stringify(body);
  response.writeHead(status, {
    'content-type': 'application/json',
    ...headers,
    'content-length': Buffer.byteLength(text),
  });
  response.end(text);
}

async function drain(request: IncomingMessage, seen: SeenRequest, pause?: number): Promise<void> {
  const hash = createHash('sha256');
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) {
      seen.bodyLength += chunk.length;
      hash.update(chunk);
      if (pause !== undefined) await sleep(pause);
    }
    seen.complete = request.complete;
  } catch {
    seen.aborted = true;
  }
  seen.bodySha256 = hash.digest('hex');
}

async function events(response: ServerResponse, count: number, pause: number): Promise<void> {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
  response.flushHeaders();
  for (let id = 1; id <= count && !response.destroyed; id += 1) {
    response.write(`id: ${String(id)}\ndata: {"n":${String(id)}}\n\n`);
    await sleep(pause);
  }
  response.end();
}

async function listen(server: NetServer | Server, port: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', 1024, resolve);
  });
}

export function startUpstream(options: UpstreamOptions = {}): Promise<Upstream> {
  return Upstream.start(options);
}
