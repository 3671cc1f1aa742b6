import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { closeLater } from '../lifetime.js';
import type { Received } from './oracle.js';

const LONGEST_BODY = 64 * 1024;

/** An upstream that shows each request to a judge, and answers with the name that it was given. */
export class JudgedUpstream {
  /** What it could not read, which Cloakroom must never send. */
  unreadable = 0;
  judge: (received: Received) => string | undefined = () => undefined;
  readonly #server: Server;
  readonly #tunnels = new Set<Socket>();

  private constructor() {
    this.#server = createServer({
      keepAliveTimeout: 0,
      requestTimeout: 0,
      headersTimeout: 0,
      maxHeaderSize: 64 * 1024,
    });
    this.#server.on('request', (request, response) => {
      const chunks: Buffer[] = [];
      let length = 0;
      request.on('data', (chunk: Buffer) => {
        if ((length += chunk.length) <= LONGEST_BODY) chunks.push(chunk);
      });
      request.on('error', () => undefined);
      // Only what came whole: a request that breaks off says nothing about what would have followed.
      request.on('end', () => {
        response.end(
          `up:${this.judge(received(request, Buffer.concat(chunks).toString('latin1'))) ?? 'nobody'};`,
        );
      });
    });
    this.#server.on('upgrade', (request: IncomingMessage, socket: Socket) => {
      this.judge({ ...received(request, ''), isUpgrade: true });
      socket.on('error', () => undefined);
      socket.on('data', () => undefined);
      socket.on('end', () => socket.end());
      socket.on('close', () => this.#tunnels.delete(socket));
      this.#tunnels.add(socket);
      const accept = createHash('sha1')
        .update(`${String(request.headers['sec-websocket-key'])}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
        .digest('base64');
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
      );
    });
    this.#server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => {
      // An upload that its sender gave up is cut off by a reset; that is no request that cannot be read.
      if (error.code !== 'ECONNRESET' && error.code !== 'HPE_INVALID_EOF_STATE') this.unreadable += 1;
      socket.destroy();
    });
  }

  static async start(): Promise<JudgedUpstream> {
    const upstream = new JudgedUpstream();
    await new Promise<void>((resolve) => upstream.#server.listen(0, '127.0.0.1', resolve));
    closeLater(() => {
      for (const socket of upstream.#tunnels) socket.destroy();
      upstream.#server.closeAllConnections();
      upstream.#server.close();
    });
    return upstream;
  }

  get host(): string {
    return `127.0.0.1:${String((this.#server.address() as AddressInfo).port)}`;
  }

  get url(): string {
    return `http://${this.host}`;
  }
}

function received(request: IncomingMessage, body: string): Received {
  const { method = '', url = '', rawHeaders } = request;
  return { method, url, rawHeaders, body, isUpgrade: false };
}
