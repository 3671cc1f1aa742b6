import type { IncomingMessage, Server } from 'node:http';
import type { Duplex } from 'node:stream';
import { closeLater } from './lifetime.js';

interface Started {
  server: Server;
  close: () => Promise<void>;
}

/** The demo's example API in this process, and what reached it. */
export class DemoApi {
  /** Method and address of each request, handshakes of WebSockets included. */
  readonly seen: string[] = [];
  readonly #sockets = new Set<Duplex>();

  private constructor(private readonly api: Started) {
    api.server.prependListener('request', ({ method, url }: IncomingMessage) => {
      this.seen.push(`${String(method)} ${String(url)}`);
    });
    api.server.prependListener('upgrade', ({ method, url }: IncomingMessage, socket: Duplex) => {
      this.seen.push(`${String(method)} ${String(url)}`);
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
    closeLater(() => api.close());
  }

  static async start(options: { port: number; issuer: string; audience: string }): Promise<DemoApi> {
    const file = new URL('../../demo/api.js', import.meta.url).href;
    const { startApi } = (await import(file)) as { startApi: (given: typeof options) => Promise<Started> };
    return new DemoApi(await startApi(options));
  }

  /** WebSockets that are open now. */
  get sockets(): number {
    return this.#sockets.size;
  }

  async close(): Promise<void> {
    await this.api.close();
  }
}
