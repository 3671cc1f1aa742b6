import { createWriteStream, type WriteStream } from 'node:fs';
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { once } from 'node:events';
import { closeLater } from './lifetime.js';
import { reset } from './reset.js';
import { runFolder, runSubfolder, uniqueName } from './run-folder.js';
import { searchRun, type SearchedFiles, type SearchResult } from './secret-search.js';

export type { Finding, SearchResult } from './secret-search.js';
export { describeFinding } from './secret-search.js';

/** Recorded of one direction of one connection; the rest is passed on and counted, not kept. */
const CAP = 4 * 1024 * 1024;
const FLUSH_AT = 64 * 1024;
// Two pieces of a stream share this much, so that nothing can hide in the seam.
const SEAM = 16 * 1024;

type Direction = 'to-server' | 'to-client';

class Recording {
  private chunks: Buffer[] = [];
  private held = 0;
  private fresh = 0;
  private total = 0;

  constructor(
    private readonly tap: Tap,
    private readonly connection: number,
    private readonly direction: Direction,
  ) {}

  add(chunk: Buffer): void {
    const room = CAP - this.total;
    if (room <= 0) {
      this.tap.skipped += chunk.length;
      return;
    }
    const kept = chunk.length > room ? chunk.subarray(0, room) : chunk;
    this.tap.skipped += chunk.length - kept.length;
    this.total += kept.length;
    this.chunks.push(kept);
    this.held += kept.length;
    this.fresh += kept.length;
    if (this.held >= FLUSH_AT) this.flush();
  }

  flush(): void {
    if (this.fresh === 0) return;
    const bytes = Buffer.concat(this.chunks);
    this.tap.record(this.connection, this.direction, bytes);
    const cut = Math.max(0, bytes.length - SEAM);
    // A head that is cut in two could not be told from a body.
    const head = bytes.lastIndexOf('HTTP/1.1 ', cut);
    const seam = bytes.subarray(head >= 0 && cut - head < SEAM ? head : cut);
    this.chunks = [Buffer.from(seam)];
    this.held = seam.length;
    this.fresh = 0;
  }
}

interface Wire {
  client: Socket;
  server: Socket;
  recordings: [Recording, Recording];
}

const live = new Set<Tap>();

/** Passes bytes between a client and a replica and writes down both directions. */
export class Tap {
  readonly file = join(runSubfolder('taps'), `${uniqueName('tap')}.tap`);
  connections = 0;
  bytesToServer = 0;
  bytesToClient = 0;
  /** Bytes that were passed on but not kept, because their connection had reached the cap. */
  skipped = 0;
  private readonly server: Server;
  private readonly wires = new Set<Wire>();
  private readonly output: WriteStream = createWriteStream(this.file);
  private readonly forget: () => void;
  private closed = false;
  private listenPort = 0;

  private constructor(readonly targetPort: number) {
    this.server = createServer({ allowHalfOpen: true, noDelay: true, pauseOnConnect: true }, (client) => {
      this.accept(client);
    });
    this.output.on('error', () => undefined);
    this.forget = closeLater(() => this.close());
    live.add(this);
  }

  static async start(targetPort: number, port = 0): Promise<Tap> {
    const tap = new Tap(targetPort);
    await new Promise<void>((resolve, reject) => {
      tap.server.once('error', reject);
      tap.server.listen(port, '127.0.0.1', 2048, resolve);
    });
    tap.listenPort = (tap.server.address() as AddressInfo).port;
    return tap;
  }

  get port(): number {
    return this.listenPort;
  }

  get url(): string {
    return `http://127.0.0.1:${String(this.port)}`;
  }

  record(connection: number, direction: Direction, bytes: Buffer): void {
    this.output.write(`\n#TAP ${String(connection)} ${direction} ${String(bytes.length)}\n`);
    this.output.write(bytes);
  }

  /** Brings everything recorded so far onto the disk. */
  async flush(): Promise<void> {
    for (const wire of this.wires) for (const recording of wire.recordings) recording.flush();
    await new Promise<void>((resolve) => {
      if (this.output.closed || this.output.writableEnded) resolve();
      else
        this.output.write('', () => {
          resolve();
        });
    });
  }

  async close(): Promise<void> {
    this.forget();
    live.delete(this);
    if (this.closed) return;
    this.closed = true;
    const done = new Promise<void>((resolve) =>
      this.server.close(() => {
        resolve();
      }),
    );
    for (const wire of this.wires) {
      for (const recording of wire.recordings) recording.flush();
      wire.client.destroy();
      wire.server.destroy();
    }
    await done;
    this.output.end();
    if (!this.output.closed) await once(this.output, 'close');
  }

  private accept(client: Socket): void {
    const server = connect({ host: '127.0.0.1', port: this.targetPort, noDelay: true, allowHalfOpen: true });
    this.connections += 1;
    const id = this.connections;
    const wire: Wire = {
      client,
      server,
      recordings: [new Recording(this, id, 'to-server'), new Recording(this, id, 'to-client')],
    };
    this.wires.add(wire);
    const [toServer, toClient] = wire.recordings;
    client.on('data', (chunk) => {
      this.bytesToServer += chunk.length;
      toServer.add(chunk);
      pass(chunk, client, server);
    });
    server.on('data', (chunk) => {
      this.bytesToClient += chunk.length;
      toClient.add(chunk);
      pass(chunk, server, client);
    });
    // Each end must see what the other did: a clean end as an end, a reset as a reset.
    link(client, server);
    link(server, client);
    const gone = (): void => {
      if (!client.destroyed || !server.destroyed || !this.wires.delete(wire)) return;
      for (const recording of wire.recordings) recording.flush();
    };
    client.on('close', gone);
    server.on('close', gone);
    client.resume();
  }
}

function pass(chunk: Buffer, from: Socket, to: Socket): void {
  if (to.destroyed) return;
  if (!to.write(chunk)) {
    from.pause();
    to.once('drain', () => from.resume());
  }
}

function link(from: Socket, to: Socket): void {
  from.on('end', () => to.end());
  from.on('error', () => {
    if (!to.destroyed) reset(to);
  });
  from.on('close', (hadError) => {
    if (!hadError && !to.destroyed && !to.writableEnded) to.end();
  });
}

/** A tap in front of a port of this machine; its own port is what clients should use. */
export function tapFor(targetPort: number, port = 0): Promise<Tap> {
  return Tap.start(targetPort, port);
}

/**
 * Looks for every secret any provider of this run knows in what was recorded: without arguments in all taps and logs
 * of the run, else for those of the given files in the given files.
 */
export async function searchForSecrets(files: SearchedFiles = {}): Promise<SearchResult> {
  await Promise.all([...live].map((tap) => tap.flush()));
  // Ledgers write what they saw in the next turn of the event loop.
  await new Promise((resolve) => setTimeout(resolve, 5));
  return searchRun(runFolder(), files);
}
