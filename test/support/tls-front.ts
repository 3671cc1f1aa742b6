import {
  request as httpRequest,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import { createServer, type Server } from 'node:https';
import { connect, type AddressInfo } from 'node:net';
import type { Duplex } from 'node:stream';
import { selfSigned } from './certificate.js';
import { closeLater } from './lifetime.js';

/** One request as it came in over TLS. */
export interface FrontRequest {
  host: string;
  method: string;
  url: string;
  headers: IncomingHttpHeaders;
  /** 0 until the answer begins. */
  status: number;
}

export interface TlsFrontOptions {
  /** For each host name the origin behind it, asked at each request. */
  behind: Record<string, () => string>;
  /** Pages of all other host names; default: an empty page. */
  page?: (host: string, url: URL) => string;
}

/** Ends TLS for several host names, as a load balancer would, and writes down every request. */
export class TlsFront {
  readonly requests: FrontRequest[] = [];
  private readonly server: Server;
  private readonly upgraded = new Set<Duplex>();
  private readonly forget: () => void;

  private constructor(
    hosts: string[],
    private readonly options: TlsFrontOptions,
  ) {
    this.server = createServer(selfSigned(hosts), (request, response) => {
      this.handle(request, response);
    });
    this.server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      this.upgrade(request, socket, head);
    });
    this.server.requestTimeout = 0;
    this.forget = closeLater(() => this.close());
  }

  static async start(hosts: string[], options: TlsFrontOptions): Promise<TlsFront> {
    const front = new TlsFront(hosts, options);
    await new Promise<void>((resolve, reject) => {
      front.server.once('error', reject);
      front.server.listen(0, '127.0.0.1', resolve);
    });
    return front;
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port;
  }

  /** From now on another origin is behind this host. */
  lead(host: string, to: () => string): void {
    this.options.behind[host] = to;
  }

  /** Requests to this host whose path, without the query, is this one. */
  seen(host: string, path: string): FrontRequest[] {
    return this.requests.filter((one) => one.host === host && one.url.split('?', 1)[0] === path);
  }

  async close(): Promise<void> {
    this.forget();
    const closed = new Promise<void>((resolve) =>
      this.server.close(() => {
        resolve();
      }),
    );
    this.server.closeAllConnections();
    for (const socket of this.upgraded) socket.destroy();
    await closed;
  }

  /** A WebSocket: from its head on, bytes both ways. */
  private upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const host = (request.headers.host ?? '').replace(/:\d+$/, '');
    const { method = '', url = '/', headers, rawHeaders } = request;
    const seen: FrontRequest = { host, method, url, headers, status: 0 };
    this.requests.push(seen);
    this.upgraded.add(socket);
    socket.on('error', () => socket.destroy());
    const origin = this.options.behind[host]?.();
    if (origin === undefined) {
      seen.status = 404;
      socket.end('HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n');
      return;
    }
    const { hostname, port } = new URL(origin);
    const onward = connect({ host: hostname, port: Number(port) });
    const lines = [`${method} ${url} HTTP/1.1`];
    for (let i = 0; i < rawHeaders.length; i += 2)
      lines.push(`${rawHeaders[i] ?? ''}: ${rawHeaders[i + 1] ?? ''}`);
    lines.push('X-Forwarded-Proto: https', 'X-Forwarded-For: 127.0.0.1', '', '');
    onward.write(lines.join('\r\n'), 'latin1');
    onward.write(head);
    onward.once('data', (chunk: Buffer) => {
      seen.status = Number(chunk.toString('latin1').split(' ', 2)[1]);
    });
    onward.on('error', () => socket.destroy());
    onward.on('close', () => socket.destroy());
    socket.on('close', () => {
      this.upgraded.delete(socket);
      onward.destroy();
    });
    socket.pipe(onward).pipe(socket);
  }

  private handle(request: IncomingMessage, response: ServerResponse): void {
    const host = (request.headers.host ?? '').replace(/:\d+$/, '');
    const { method = '', url = '/', headers } = request;
    const seen: FrontRequest = { host, method, url, headers, status: 0 };
    this.requests.push(seen);
    const origin = this.options.behind[host]?.();
    if (origin === undefined) {
      request.resume();
      seen.status = 200;
      response.writeHead(200, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' });
      response.end(
        this.options.page?.(host, new URL(url, `https://${host}`)) ?? '<!doctype html><title>page</title>',
      );
      return;
    }
    const { hostname, port } = new URL(origin);
    const onward = httpRequest({
      host: hostname,
      port,
      method,
      path: url,
      headers: [...request.rawHeaders, 'X-Forwarded-Proto', 'https', 'X-Forwarded-For', '127.0.0.1'],
      setHost: false,
      agent: false,
    });
    onward.on('response', (answer) => {
      seen.status = answer.statusCode ?? 0;
      response.writeHead(seen.status, answer.rawHeaders.filter(hopByHopRemoved(answer.rawHeaders)));
      answer.pipe(response);
      answer.on('error', () => response.destroy());
    });
    onward.on('error', () => response.destroy());
    response.on('close', () => onward.destroy());
    request.pipe(onward);
  }
}

/** Keeps what is not about the connection behind: names stand at even places, their values after them. */
function hopByHopRemoved(raw: string[]): (value: string, at: number) => boolean {
  return (_, at) => !/^(?:connection|keep-alive|transfer-encoding)$/i.test(raw[at - (at % 2)] ?? '');
}
