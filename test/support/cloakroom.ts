import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createWriteStream, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { BrowserClient, type BrowserOptions } from './browser-client.js';
import type { FaultProvider } from './fault-provider.js';
import { startProvider } from './fault-provider.js';
import { closeLater, eventually, guard } from './lifetime.js';
import { RedisProxy, RedisServer, startRedis, type RedisTarget } from './redis.js';
import { freePort, runSubfolder, scratchFolder, uniqueName } from './run-folder.js';
import { secretFiles } from './ledger.js';
import { searchForSecrets, tapFor, type SearchResult, type Tap } from './tap.js';
import type { Upstream } from './upstream.js';
import { startUpstream, type RawUpstream } from './upstream.js';

export const repository = resolve(fileURLToPath(new URL('../..', import.meta.url)));
export const program = join(repository, 'bin', 'cloakroom.js');

/** A configuration file's content. Loose on purpose: tests write wrong ones too. */
export type ConfigFile = Record<string, unknown>;

export interface LogEvent extends Record<string, unknown> {
  event?: string;
  level?: number | string;
  msg?: string;
}

export interface StartOptions {
  /** 2 unless told; 1 with the memory store. */
  replicas?: number;
  /** A provider of the test's own, one started by itself, or (with `providers`) several by name. */
  provider?: FaultProvider;
  providers?: Record<string, FaultProvider>;
  upstream?: Upstream | RawUpstream | { url: string };
  redis?: RedisServer | RedisProxy | RedisTarget | 'memory';
  /** Key prefix; the Redis instance's own unless told. */
  prefix?: string;
  /** `https://app.example.test` behind a TLS-ending proxy unless told. */
  publicUrl?: string;
  /** Plain http on `http://localhost:<port>`, as for a browser on this machine. One replica. */
  local?: boolean;
  /** Whether X-Forwarded-Proto from this machine is believed. True unless told, and not with `local`. */
  trustForwarded?: boolean;
  /** Merged into the file: objects key by key, lists and values replaced, undefined removes. Or a function. */
  config?: ConfigFile | ((file: ConfigFile) => ConfigFile | undefined);
  env?: Record<string, string>;
  /** Arguments for node itself. */
  nodeArgs?: string[];
  /** Put a tap before each replica. True unless told. */
  tap?: boolean;
  /** Wait for /readyz too. True unless told; set false when Redis or the provider are down on purpose. */
  ready?: boolean;
  /** Do not start the processes: `replica.start()` does it. */
  stopped?: boolean;
}

/** One process. */
export class Replica {
  readonly logFile: string;
  /** Standard output so far, and standard error. */
  stdout = '';
  stderr = '';
  /** Every JSON line of standard output. */
  readonly log: LogEvent[] = [];
  exitCode: number | null = null;
  exitSignal: NodeJS.Signals | null = null;
  /** Pids of every start. */
  readonly pids: number[] = [];
  tap: Tap | undefined;
  private child: ChildProcess | undefined;
  private rest = '';
  private readonly output;

  constructor(
    readonly index: number,
    readonly port: number,
    readonly configFile: string,
    private readonly options: {
      env: Record<string, string>;
      nodeArgs: string[];
      ready: boolean;
      headers: Record<string, string>;
    },
  ) {
    this.logFile = join(runSubfolder('logs'), `${uniqueName(`replica-${String(index)}`)}.log`);
    this.output = createWriteStream(this.logFile);
    this.output.on('error', () => undefined);
  }

  get pid(): number | undefined {
    return this.child?.pid;
  }

  get running(): boolean {
    return this.child !== undefined && this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Where clients connect: the tap if there is one. */
  get clientPort(): number {
    return this.tap?.port ?? this.port;
  }

  get url(): string {
    return `http://127.0.0.1:${String(this.clientPort)}`;
  }

  get environment(): Record<string, string> {
    return cleanEnvironment(this.options.env);
  }

  async start(): Promise<void> {
    if (this.running) return;
    const from = this.mark();
    const child = spawn(
      process.execPath,
      [...this.options.nodeArgs, program, 'start', '--config', this.configFile],
      {
        cwd: repository,
        env: this.environment,
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    );
    guard(child);
    this.child = child;
    this.exitCode = null;
    this.exitSignal = null;
    if (child.pid !== undefined) this.pids.push(child.pid);
    child.on('error', (error) => {
      this.stderr += String(error);
    });
    child.once('exit', (code, signal) => {
      if (this.child !== child) return;
      this.exitCode = code;
      this.exitSignal = signal;
    });
    child.stdout.on('data', (chunk: Buffer) => {
      this.output.write(chunk);
      this.take(chunk.toString('utf8'));
    });
    child.stderr.on('data', (chunk: Buffer) => {
      this.output.write(chunk);
      this.stderr += chunk.toString('utf8');
    });
    await eventually(
      () => {
        if (!this.running) {
          throw new Error(
            `replica ${String(this.index)} ended with ${String(this.exitCode ?? this.exitSignal)} before it listened\n${this.tail()}`,
          );
        }
        return this.log.slice(from).some((line) => line.event === 'listening');
      },
      { timeout: 20_000, what: `replica ${String(this.index)} to listen` },
    ).catch((error: unknown) => {
      throw new Error(`${String(error)}\n${this.tail()}`);
    });
    if (this.options.ready) await this.waitReady();
  }

  /** Polls /readyz, past the tap, until it answers 200. */
  async waitReady(timeout = 15_000): Promise<void> {
    let last = '';
    await eventually(
      async () => {
        try {
          const response = await globalThis.fetch(`http://127.0.0.1:${String(this.port)}/readyz`, {
            headers: this.options.headers,
          });
          last = `${String(response.status)} ${await response.text()}`;
          return response.status === 200;
        } catch (error) {
          last = String(error);
          return false;
        }
      },
      { timeout, interval: 50, what: `replica ${String(this.index)} to be ready` },
    ).catch((error: unknown) => {
      throw new Error(`${String(error)}; last answer: ${last}\n${this.tail()}`);
    });
  }

  kill(signal: NodeJS.Signals = 'SIGKILL'): void {
    if (this.running) this.child?.kill(signal);
  }

  /** SIGKILL, and waits until the process is gone. */
  async crash(): Promise<void> {
    this.kill('SIGKILL');
    await this.exited();
  }

  /** Waits for the end of the process. */
  async exited(timeout = 45_000): Promise<number | null> {
    await eventually(
      () => !this.running && (this.exitCode !== null || this.exitSignal !== null || this.child === undefined),
      {
        timeout,
        what: `replica ${String(this.index)} to end`,
      },
    );
    return this.exitCode;
  }

  /** SIGTERM, waits for the end, and returns the exit code. */
  async stop(timeout = 45_000): Promise<number | null> {
    if (!this.running) return this.exitCode;
    this.kill('SIGCONT');
    this.kill('SIGTERM');
    try {
      return await this.exited(timeout);
    } catch (error) {
      await this.crash();
      throw error;
    }
  }

  async restart({ crash = false } = {}): Promise<void> {
    if (crash) await this.crash();
    else await this.stop();
    await this.start();
  }

  pause(): void {
    this.kill('SIGSTOP');
  }

  resume(): void {
    this.kill('SIGCONT');
  }

  /** A place in the log, for `events(name, mark)` and `waitForEvent`. */
  mark(): number {
    return this.log.length;
  }

  /** Log lines with this `event`, since the mark. */
  events(name: string, from = 0): LogEvent[] {
    return this.log.slice(from).filter((line) => line.event === name);
  }

  async waitForEvent(
    name: string,
    {
      from = 0,
      timeout = 5_000,
      where = () => true,
    }: { from?: number; timeout?: number; where?: (line: LogEvent) => boolean } = {},
  ): Promise<LogEvent> {
    return await eventually(() => this.events(name, from).find(where), {
      timeout,
      what: `event ${name} in the log of replica ${String(this.index)}`,
    });
  }

  /** The end of what the process wrote. */
  tail(length = 4_000): string {
    return `${this.stdout.slice(-length)}\n${this.stderr.slice(-length)}`;
  }

  /** Resident memory in bytes. */
  memory(): number {
    const status = readFileSync(`/proc/${String(this.pid)}/status`, 'utf8');
    return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1024;
  }

  async dispose(): Promise<void> {
    if (this.running) {
      this.kill('SIGCONT');
      this.kill('SIGTERM');
      try {
        await this.exited(3_000);
      } catch {
        await this.crash();
      }
    }
    await this.tap?.close();
    await new Promise<void>((done) =>
      this.output.end(() => {
        done();
      }),
    );
  }

  private take(text: string): void {
    // A long run at debug level must not fill the test's memory; the file has it all.
    this.stdout = `${this.stdout}${text}`.slice(-1_000_000);
    const lines = `${this.rest}${text}`.split('\n');
    this.rest = lines.pop() ?? '';
    for (const line of lines) {
      if (!line.startsWith('{')) continue;
      try {
        this.log.push(JSON.parse(line) as LogEvent);
      } catch {
        continue;
      }
    }
  }
}

/** A set of replicas with everything around them. */
export class Cloakroom {
  /** Milliseconds each key had to live when this was closed; undefined while it is open, or without a Redis. */
  keysAtClose: Map<string, number> | undefined;
  private readonly forget: () => void;
  private readonly rotating: { at: number } = { at: 0 };

  constructor(
    readonly replicas: Replica[],
    readonly publicUrl: string,
    readonly folder: string,
    readonly provider: FaultProvider,
    readonly upstream: Upstream,
    /** The Redis itself, past any proxy; undefined with the memory store or a target not started by the rig. */
    readonly redis: RedisServer | undefined,
    readonly redisProxy: RedisProxy | undefined,
    readonly prefix: string,
    private readonly forwardedProto: 'https' | undefined,
    private readonly owned: Array<{ close(): Promise<void> }>,
  ) {
    this.forget = closeLater(() => this.close());
  }

  get first(): Replica {
    return this.replica(0);
  }

  replica(index: number): Replica {
    const replica = this.replicas[index];
    if (replica === undefined) throw new Error(`there is no replica ${String(index)}`);
    return replica;
  }

  /** A browser with an empty jar. Its requests rotate over the replicas unless pinned. */
  client(options: BrowserOptions = {}): BrowserClient {
    return new BrowserClient(
      {
        publicUrl: this.publicUrl,
        replicas: () => this.replicas.map((replica) => replica.url),
        forwardedProto: this.forwardedProto,
      },
      options,
    );
  }

  /** A client that is signed in, as `user` if given. */
  async signedIn(options: BrowserOptions & { user?: string } = {}): Promise<BrowserClient> {
    const { user, ...rest } = options;
    const client = this.client(rest);
    const answer = await client.login(user === undefined ? {} : { as: user });
    if (answer.status !== 303 || client.sessionCookie === undefined) {
      throw new Error(
        `login failed: ${String(answer.status)} ${answer.text.slice(0, 500)}\n${this.replicas.map((replica) => replica.tail(1_500)).join('\n')}`,
      );
    }
    return client;
  }

  /** Log lines with this `event` of all replicas. */
  events(name: string): LogEvent[] {
    return this.replicas.flatMap((replica) => replica.events(name));
  }

  /** Waits until so many lines of that name are read, which may be after the answer that they are about. */
  async logged(name: string, count: number): Promise<void> {
    await eventually(() => this.events(name).length >= count, { what: `${String(count)} lines ${name}` });
  }

  async waitForEvent(
    name: string,
    where: (line: LogEvent) => boolean = () => true,
    timeout = 5_000,
  ): Promise<LogEvent> {
    return await eventually(() => this.events(name).find(where), { timeout, what: `event ${name}` });
  }

  /** The next replica in turn. */
  next(): Replica {
    const replica = this.replica(this.rotating.at % this.replicas.length);
    this.rotating.at += 1;
    return replica;
  }

  /** Replaces a secret file: `client-secret`, `cookie-0`, `seal-0`, `client-secret-<provider>`. */
  writeSecret(name: string, value: string): void {
    writeFileSync(join(this.folder, name), value);
  }

  /**
   * Looks for the secrets of this test file's providers in what the replicas sent and logged. Those of the other files
   * are looked for once, at the end of the run: they are a hundred thousand.
   */
  async search(): Promise<SearchResult> {
    return await searchForSecrets({
      secrets: secretFiles,
      taps: this.replicas.flatMap((replica) => (replica.tap === undefined ? [] : [replica.tap.file])),
      logs: this.replicas.map((replica) => replica.logFile),
    });
  }

  /** Stops the processes, then what was started along with them. */
  async close(): Promise<void> {
    this.forget();
    await Promise.all(this.replicas.map((replica) => replica.dispose()));
    this.keysAtClose ??= await this.redis?.lifetimes(`${this.prefix}:*`);
    for (const resource of this.owned.splice(0)) await resource.close();
  }
}

function cleanEnvironment(extra: Record<string, string>): Record<string, string> {
  const environment: Record<string, string> = {};
  for (const [name, value] of Object.entries(process.env)) {
    if (
      value === undefined ||
      name.startsWith('CLOAKROOM_') ||
      name.startsWith('JEST_') ||
      name === 'NODE_OPTIONS'
    )
      continue;
    environment[name] = value;
  }
  return { ...environment, NODE_ENV: 'production', ...extra };
}

/** Objects key by key; lists and plain values replace; undefined removes. */
export function merge(base: ConfigFile, changes: ConfigFile): ConfigFile {
  const merged: ConfigFile = { ...base };
  for (const [name, value] of Object.entries(changes)) {
    if (value === undefined) Reflect.deleteProperty(merged, name);
    else if (isObject(value) && isObject(merged[name])) merged[name] = merge(merged[name], value);
    else merged[name] = value;
  }
  return merged;
}

function isObject(value: unknown): value is ConfigFile {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export async function startCloakroom(options: StartOptions = {}): Promise<Cloakroom> {
  const folder = scratchFolder('cloakroom');
  const owned: Array<{ close(): Promise<void> }> = [];
  const keep = <T extends { close(): Promise<void> }>(resource: T): T => {
    owned.push(resource);
    return resource;
  };

  const named = options.providers ?? { main: options.provider ?? keep(await startProvider()) };
  const provider = options.provider ?? Object.values(named)[0];
  if (provider === undefined) throw new Error('at least one provider is needed');
  const upstream =
    options.upstream ??
    keep(
      await startUpstream({
        identify: (bearer) =>
          Object.values(named)
            .map(({ ledger }) => ledger.validAccessToken(bearer)?.sub)
            .find((sub) => sub !== undefined),
      }),
    );
  const target = options.redis ?? keep(await startRedis());
  const count = options.local === true ? 1 : (options.replicas ?? (target === 'memory' ? 1 : 2));
  const prefix = options.prefix ?? (target === 'memory' ? 'cloakroom' : target.prefix);

  const ports = await Promise.all(Array.from({ length: count }, () => freePort()));
  const taps = options.tap === false ? [] : await Promise.all(ports.map((port) => tapFor(port)));
  const publicUrl =
    options.publicUrl ??
    (options.local === true
      ? `http://localhost:${String(taps[0]?.port ?? ports[0])}`
      : 'https://app.example.test');
  const https = publicUrl.startsWith('https:');
  const trust = options.trustForwarded ?? https;

  const secret = (name: string, value: string): { file: string } => {
    const file = join(folder, name);
    writeFileSync(file, value);
    return { file };
  };
  const providers: ConfigFile = {};
  for (const [name, one] of Object.entries(named)) {
    providers[name] = {
      issuer: one.issuer,
      clientId: one.clientId,
      clientSecret: secret(one === provider ? 'client-secret' : `client-secret-${name}`, one.clientSecret),
      scopes: ['openid', 'profile', 'email', 'offline_access'],
    };
  }
  // A busy machine must not look like an outage. Whoever puts a proxy in between plays one, with limits of its own.
  const patience = target instanceof RedisProxy ? {} : { commandTimeout: '1s' };
  const base: ConfigFile = {
    publicUrl,
    listen: { host: '127.0.0.1', trustedProxies: trust ? ['127.0.0.1'] : [] },
    store:
      target === 'memory'
        ? https
          ? { memory: { singleProcess: true } }
          : 'memory'
        : { redis: { url: target.url, prefix, ...patience } },
    secrets: {
      cookie: [secret('cookie-0', randomBytes(32).toString('hex'))],
      seal: [secret('seal-0', randomBytes(32).toString('hex'))],
    },
    providers,
    // Everybody here comes from one address.
    rateLimits: { login: 'off', callback: 'off' },
    routes: [{ path: '/api/', upstream: upstream.url }],
    shutdown: { delay: '100ms', drain: '5s' },
  };

  const replicas = ports.map((port, index) => {
    let file: ConfigFile = merge(base, { listen: { port } });
    if (typeof options.config === 'function') file = options.config(file) ?? file;
    else if (options.config !== undefined) file = merge(file, options.config);
    const configFile = join(folder, `cloakroom-${String(index)}.yaml`);
    writeFileSync(configFile, stringify(file));
    const replica = new Replica(index, port, configFile, {
      env: options.env ?? {},
      nodeArgs: options.nodeArgs ?? [],
      ready: options.ready ?? true,
      headers: { ...(https ? { 'x-forwarded-proto': 'https' } : {}) },
    });
    replica.tap = taps[index];
    return replica;
  });

  const redisProxy = target instanceof RedisProxy ? target : undefined;
  const behind = redisProxy?.target ?? target;
  const cloakroom = new Cloakroom(
    replicas,
    publicUrl,
    folder,
    provider,
    upstream as Upstream,
    behind instanceof RedisServer ? behind : undefined,
    redisProxy,
    prefix,
    https && trust ? 'https' : undefined,
    owned,
  );
  if (options.stopped !== true) {
    try {
      await Promise.all(replicas.map((replica) => replica.start()));
    } catch (error) {
      await cloakroom.close();
      throw error;
    }
  }
  return cloakroom;
}

export interface RunResult {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** Runs the command line to its end, for example `runCloakroom(['check', '--config', file])`. */
export async function runCloakroom(
  args: string[],
  {
    env = {},
    cwd = repository,
    timeout = 20_000,
  }: { env?: Record<string, string>; cwd?: string; timeout?: number } = {},
): Promise<RunResult> {
  const child = spawn(process.execPath, [program, ...args], {
    cwd,
    env: cleanEnvironment(env),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  guard(child);
  const result: RunResult = { code: null, signal: null, stdout: '', stderr: '' };
  child.stdout.on('data', (chunk: Buffer) => {
    result.stdout += chunk.toString('utf8');
  });
  child.stderr.on('data', (chunk: Buffer) => {
    result.stderr += chunk.toString('utf8');
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), timeout);
  await new Promise<void>((done, fail) => {
    child.once('error', fail);
    child.once('close', (code, signal) => {
      result.code = code;
      result.signal = signal;
      done();
    });
  });
  clearTimeout(timer);
  return result;
}

/** Writes a configuration file for `runCloakroom`; returns its path. */
export function writeConfig(file: ConfigFile | string): string {
  const path = join(scratchFolder('config'), 'cloakroom.yaml');
  writeFileSync(path, typeof file === 'string' ? file : stringify(file));
  return path;
}
