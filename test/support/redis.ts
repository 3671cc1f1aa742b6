import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createServer, connect, type AddressInfo, type Server, type Socket } from 'node:net';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { Redis } from 'ioredis';
import { closeLater, eventually, guard } from './lifetime.js';
import { freePort, scratchFolder } from './run-folder.js';

function findBinary(): string | undefined {
  const given = process.env['CLOAKROOM_TEST_REDIS_SERVER'];
  if (given !== undefined && given !== '') return given;
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    const candidate = join(folder, 'redis-server');
    if (folder !== '' && existsSync(candidate)) return candidate;
  }
  return undefined;
}

const binary = findBinary();
const sharedUrl = process.env['CLOAKROOM_TEST_REDIS_URL'] ?? process.env['REDIS_URL'];

/** Whether tests may kill, freeze and configure a Redis of their own: `(ownRedis ? test : test.skip)(…)`. */
export const ownRedis = binary !== undefined;

export interface RedisOptions {
  appendonly?: boolean;
  port?: number;
  /** More arguments for redis-server, for example `['--maxmemory-policy', 'noeviction']`. */
  args?: string[];
  /** Do not start the process: `restart()` does it later. */
  stopped?: boolean;
}

export interface RedisTarget {
  readonly host: string;
  readonly port: number;
  readonly url: string;
  readonly prefix: string;
}

export class RedisServer implements RedisTarget {
  readonly host: string;
  readonly port: number;
  readonly url: string;
  /** Unique to this instance, so that a shared server can serve many tests. */
  readonly prefix = `t${randomBytes(5).toString('hex')}`;
  private child: ChildProcess | undefined;
  private connection: Redis | undefined;
  private closed = false;
  private readonly forget: () => void;

  private constructor(
    url: string,
    private readonly program: { binary: string; args: string[] } | undefined,
  ) {
    const parsed = new URL(url);
    this.url = url;
    this.host = parsed.hostname;
    this.port = Number(parsed.port === '' ? 6379 : parsed.port);
    this.forget = closeLater(() => this.close());
  }

  static async start(options: RedisOptions = {}): Promise<RedisServer> {
    if (binary === undefined) {
      if (sharedUrl === undefined || sharedUrl === '') {
        throw new Error('no redis-server on PATH and no REDIS_URL');
      }
      const server = new RedisServer(sharedUrl, undefined);
      await server.command('PING');
      return server;
    }
    const folder = scratchFolder('redis');
    mkdirSync(folder, { recursive: true });
    const port = options.port ?? (await freePort());
    const file = join(folder, 'redis.conf');
    writeFileSync(file, 'save ""\n');
    const args = [
      file,
      ...['--port', String(port), '--bind', '127.0.0.1', '--dir', folder, '--daemonize', 'no'],
      ...['--appendonly', options.appendonly === true ? 'yes' : 'no', '--appendfsync', 'always'],
      ...['--loglevel', 'warning', '--logfile', join(folder, 'redis.log')],
      ...(options.args ?? []),
    ];
    const server = new RedisServer(`redis://127.0.0.1:${String(port)}`, { binary, args });
    if (options.stopped !== true) await server.restart();
    return server;
  }

  get pid(): number | undefined {
    return this.child?.pid;
  }

  get running(): boolean {
    return this.child !== undefined && this.child.exitCode === null && this.child.signalCode === null;
  }

  /** A connection of the test's own, straight to the server and not through any proxy. */
  get client(): Redis {
    // A new connection would try for ever, and keep the process, to reach a server that has gone.
    if (this.closed) throw new Error('this Redis is closed');
    this.connection ??= connectTo(this.url);
    return this.connection;
  }

  /** One command on the test's connection, for example `command('DEL', key)`. */
  async command(name: string, ...args: Array<string | number | Buffer>): Promise<unknown> {
    return await this.client.call(name, ...args);
  }

  async configSet(name: string, value: string): Promise<void> {
    await this.command('CONFIG', 'SET', name, value);
  }

  /** Keys by pattern; without one, those under this instance's prefix. */
  async keys(pattern = `${this.prefix}:*`): Promise<string[]> {
    const found: string[] = [];
    let cursor = '0';
    do {
      const [next, page] = await this.client.scan(cursor, 'MATCH', pattern, 'COUNT', 1000);
      cursor = next;
      found.push(...page);
    } while (cursor !== '0');
    return [...new Set(found)].sort();
  }

  /** Milliseconds each key has to live, -1 for ever; undefined when the server does not answer. */
  async lifetimes(pattern: string): Promise<Map<string, number> | undefined> {
    if (this.program !== undefined && !this.running) return undefined;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<undefined>((resolve) => {
      timer = setTimeout(() => {
        resolve(undefined);
      }, 3_000);
    });
    const asked = (async () => {
      const found = new Map<string, number>();
      for (const key of await this.keys(pattern)) {
        const left = await this.client.pttl(key);
        // -2: it ended between the two commands.
        if (left !== -2) found.set(key, left);
      }
      return found;
    })().catch(() => undefined);
    const result = await Promise.race([asked, late]);
    clearTimeout(timer);
    return result;
  }

  /** Removes what is under this instance's prefix. */
  async clear(): Promise<void> {
    const keys = await this.keys();
    for (let at = 0; at < keys.length; at += 500) await this.client.del(...keys.slice(at, at + 500));
  }

  /** SIGKILL by default; ends when the process is gone. */
  async kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.own();
    this.connection?.disconnect();
    this.connection = undefined;
    if (child === undefined || !this.running) return;
    const gone = new Promise<void>((resolve) =>
      child.once('exit', () => {
        resolve();
      }),
    );
    child.kill(signal);
    if (signal !== 'SIGKILL') child.kill('SIGCONT');
    await gone;
    this.child = undefined;
  }

  /** Starts the process (again), same port, same data folder, and waits for its first PONG. */
  async restart(): Promise<void> {
    if (this.running) await this.kill();
    if (this.program === undefined) throw new Error('a shared Redis cannot be restarted by a test');
    const child = spawn(this.program.binary, this.program.args, { stdio: 'ignore' });
    child.on('error', () => undefined);
    guard(child);
    this.child = child;
    await eventually(
      async () => {
        if (!this.running) throw new Error(`redis-server did not start on port ${String(this.port)}`);
        return (await ping(this.host, this.port)) ? true : undefined;
      },
      { timeout: 10_000, interval: 10, what: 'redis-server' },
    );
  }

  pause(): void {
    this.own()?.kill('SIGSTOP');
  }

  resume(): void {
    this.own()?.kill('SIGCONT');
  }

  async close(): Promise<void> {
    this.forget();
    if (this.program === undefined) {
      await this.clear().catch(() => undefined);
      this.closed = true;
      this.connection?.disconnect();
      return;
    }
    this.closed = true;
    await this.kill();
  }

  private own(): ChildProcess | undefined {
    if (this.program === undefined) throw new Error('a shared Redis cannot be killed or frozen by a test');
    return this.child;
  }
}

function connectTo(url: string): Redis {
  const client = new Redis(url, { maxRetriesPerRequest: 2, connectTimeout: 2_000, disconnectTimeout: 50 });
  client.on('error', () => undefined);
  return client;
}

function ping(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port });
    const end = (answer: boolean): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(1_000, () => {
      end(false);
    });
    socket.once('error', () => {
      end(false);
    });
    socket.once('connect', () => socket.write('PING\r\n'));
    socket.once('data', (chunk) => {
      end(chunk.toString('latin1').startsWith('+PONG'));
    });
  });
}

export function startRedis(options: RedisOptions = {}): Promise<RedisServer> {
  return RedisServer.start(options);
}

interface Pipe {
  client: Socket;
  server: Socket;
  /** Bytes held back while the proxy is a black hole. */
  heldForServer: Buffer[];
  heldForClient: Buffer[];
  replies: Promise<void>;
  swallow: boolean;
}

export interface ProxyStats {
  connections: number;
  open: number;
  bytesToServer: number;
  bytesToClient: number;
  swallowed: number;
  cuts: number;
}

interface Drop {
  when: RegExp | undefined;
  done: (command: string) => void;
}

/** A TCP proxy in front of Redis whose network can be made bad. */
export class RedisProxy implements RedisTarget {
  readonly host = '127.0.0.1';
  readonly prefix: string;
  readonly stats: ProxyStats = {
    connections: 0,
    open: 0,
    bytesToServer: 0,
    bytesToClient: 0,
    swallowed: 0,
    cuts: 0,
  };
  private server: Server | undefined;
  private readonly pipes = new Set<Pipe>();
  private latency = 0;
  private hole = false;
  private remaining: number | undefined;
  private drops: Drop[] = [];
  private readonly forget: () => void;
  private listenPort = 0;

  private constructor(readonly target: RedisTarget) {
    this.prefix = target.prefix;
    this.forget = closeLater(() => this.close());
  }

  static async start(target: RedisTarget): Promise<RedisProxy> {
    const proxy = new RedisProxy(target);
    await proxy.listen();
    return proxy;
  }

  get port(): number {
    return this.listenPort;
  }

  get url(): string {
    return `redis://127.0.0.1:${String(this.listenPort)}`;
  }

  /** Every reply comes this much later. Zero ends it. */
  delay(ms: number): void {
    this.latency = ms;
  }

  /** Accepts connections and bytes and passes nothing on; what was held is delivered by `heal()`. */
  blackhole(): void {
    this.hole = true;
  }

  /** Cuts what is open and refuses new connections. */
  async refuse(): Promise<void> {
    await this.unlisten();
    this.cutAll();
  }

  /** Lets exactly this many more reply bytes through, then cuts the connection that carried them. Once. */
  cutAfter(bytes: number): void {
    this.remaining = bytes;
  }

  /**
   * Forwards the next command (or the next one that matches, for example `/evalsha/i`), swallows its reply and cuts
   * the connection: Redis has executed it and the client does not know. Resolves with the command's bytes when done.
   */
  dropNextReply(when?: RegExp): Promise<string> {
    return new Promise((done) => {
      this.drops.push({ when, done });
    });
  }

  cutAll(): void {
    for (const pipe of this.pipes) {
      this.stats.cuts += 1;
      cut(pipe);
    }
  }

  /** Ends every fault. Connections that were cut stay cut. */
  async heal(): Promise<void> {
    this.latency = 0;
    this.remaining = undefined;
    this.drops = [];
    this.hole = false;
    for (const pipe of this.pipes) {
      for (const chunk of pipe.heldForServer.splice(0)) pipe.server.write(chunk);
      for (const chunk of pipe.heldForClient.splice(0)) pipe.client.write(chunk);
    }
    if (this.server === undefined) await this.listen();
  }

  async close(): Promise<void> {
    this.forget();
    await this.unlisten();
    for (const pipe of this.pipes) cut(pipe);
  }

  private async listen(): Promise<void> {
    const server = createServer({ allowHalfOpen: false, noDelay: true }, (client) => {
      this.accept(client);
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(this.listenPort, this.host, resolve);
    });
    this.listenPort = (server.address() as AddressInfo).port;
    this.server = server;
  }

  private async unlisten(): Promise<void> {
    const { server } = this;
    this.server = undefined;
    if (server === undefined) return;
    const closed = new Promise<void>((resolve) =>
      server.close(() => {
        resolve();
      }),
    );
    this.cutAll();
    await closed;
  }

  private accept(client: Socket): void {
    const server = connect({ host: this.target.host, port: this.target.port, noDelay: true });
    const pipe: Pipe = {
      client,
      server,
      heldForServer: [],
      heldForClient: [],
      replies: Promise.resolve(),
      swallow: false,
    };
    this.pipes.add(pipe);
    this.stats.connections += 1;
    this.stats.open += 1;
    const gone = (): void => {
      if (this.pipes.delete(pipe)) this.stats.open -= 1;
      cut(pipe);
    };
    for (const socket of [client, server]) {
      socket.on('error', gone);
      socket.on('close', gone);
    }
    client.on('data', (chunk) => {
      this.fromClient(pipe, chunk);
    });
    server.on('data', (chunk) => {
      this.fromServer(pipe, chunk);
    });
  }

  private fromClient(pipe: Pipe, chunk: Buffer): void {
    const drop = this.drops[0];
    if (drop !== undefined && !this.hole) {
      const text = chunk.toString('latin1');
      if (drop.when === undefined || drop.when.test(text)) {
        this.drops.shift();
        pipe.swallow = true;
        pipe.server.once('data', () => {
          drop.done(text);
        });
      }
    }
    this.stats.bytesToServer += chunk.length;
    if (this.hole) pipe.heldForServer.push(chunk);
    else pipe.server.write(chunk);
  }

  private fromServer(pipe: Pipe, chunk: Buffer): void {
    if (pipe.swallow) {
      this.stats.swallowed += chunk.length;
      this.stats.cuts += 1;
      cut(pipe);
      return;
    }
    if (this.hole) {
      pipe.heldForClient.push(chunk);
      return;
    }
    if (this.latency > 0) {
      const due = Date.now() + this.latency;
      pipe.replies = pipe.replies.then(
        () =>
          new Promise((resolve) => {
            setTimeout(
              () => {
                this.toClient(pipe, chunk);
                resolve();
              },
              Math.max(0, due - Date.now()),
            );
          }),
      );
      return;
    }
    // Bytes delayed before the latency ended must still come first.
    void pipe.replies.then(() => {
      this.toClient(pipe, chunk);
    });
  }

  private toClient(pipe: Pipe, chunk: Buffer): void {
    if (pipe.client.destroyed) return;
    let bytes = chunk;
    if (this.remaining !== undefined) {
      bytes = chunk.subarray(0, this.remaining);
      this.remaining -= bytes.length;
      if (this.remaining <= 0) {
        this.remaining = undefined;
        this.stats.cuts += 1;
        this.stats.bytesToClient += bytes.length;
        pipe.client.end(bytes, () => {
          cut(pipe);
        });
        return;
      }
    }
    this.stats.bytesToClient += bytes.length;
    pipe.client.write(bytes);
  }
}

function cut(pipe: Pipe): void {
  pipe.client.destroy();
  pipe.server.destroy();
}

export function startRedisProxy(target: RedisTarget): Promise<RedisProxy> {
  return RedisProxy.start(target);
}
