import { spawn, type ChildProcess } from 'node:child_process';
import { createWriteStream, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { repository } from './cloakroom.js';
import type { SecretKind } from './ledger.js';
import { closeLater, eventually, guard } from './lifetime.js';
import { freePort, runSubfolder, uniqueName } from './run-folder.js';
import type { SearchedFiles } from './secret-search.js';
import { tapFor, type Tap } from './tap.js';

export interface DemoPorts {
  cloakroom: number;
  provider: number;
  api: number;
}

export interface DemoOptions {
  ports?: Partial<DemoPorts>;
  env?: Record<string, string>;
  /** Do not wait for the ready line. */
  unready?: boolean;
}

/** `node demo/start.js` as a person runs it, on ports of its own. */
export class Demo {
  stdout = '';
  stderr = '';
  exitCode: number | null = null;
  exitSignal: NodeJS.Signals | null = null;
  private readonly secretsFile = join(runSubfolder('secrets'), `${uniqueName('demo')}.ndjson`);
  private readonly logFile = join(runSubfolder('logs'), `${uniqueName('demo')}.log`);
  private readonly child: ChildProcess;
  private readonly forget: () => void;

  private constructor(
    readonly ports: DemoPorts,
    /** Between the browser and Cloakroom. */
    readonly tap: Tap,
    env: Record<string, string>,
  ) {
    writeFileSync(this.secretsFile, '');
    writeFileSync(
      join(runSubfolder('endpoints'), `${uniqueName('demo')}.txt`),
      `http://127.0.0.1:${String(ports.provider)}/session/end\n`,
    );
    const preload = fileURLToPath(new URL('./demo-ledger.js', import.meta.url));
    this.child = spawn(process.execPath, ['--import', preload, 'demo/start.js'], {
      cwd: repository,
      env: {
        ...environment(),
        DEMO_PORT: String(ports.cloakroom),
        DEMO_PROVIDER_PORT: String(ports.provider),
        DEMO_API_PORT: String(ports.api),
        DEMO_LEDGER: this.secretsFile,
        ...env,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
      // A process group, so that a signal can reach all of it, as the terminal's Ctrl-C does.
      detached: true,
    });
    guard(this.child);
    this.forget = closeLater(() => this.close());
    const log = createWriteStream(this.logFile);
    this.child.stdout?.on('data', (chunk: Buffer) => {
      log.write(chunk);
      this.stdout += chunk.toString('utf8');
    });
    this.child.stderr?.on('data', (chunk: Buffer) => {
      log.write(chunk);
      this.stderr += chunk.toString('utf8');
    });
    this.child.once('close', (code, signal) => {
      this.exitCode = code;
      this.exitSignal = signal;
      log.end();
    });
  }

  static async start({ ports = {}, env = {}, unready = false }: DemoOptions = {}): Promise<Demo> {
    const all = {
      cloakroom: ports.cloakroom ?? (await freePort()),
      provider: ports.provider ?? (await freePort()),
      api: ports.api ?? (await freePort()),
    };
    const demo = new Demo(all, await tapFor(all.cloakroom), env);
    if (!unready) {
      await eventually(
        () => {
          if (demo.ended) throw new Error(`the demo ended: ${demo.stdout}${demo.stderr}`);
          return demo.stdout.includes('\n');
        },
        { timeout: 30_000, what: 'the ready line of the demo' },
      );
    }
    return demo;
  }

  get url(): string {
    return `http://localhost:${String(this.ports.cloakroom)}`;
  }

  get issuer(): string {
    return `http://127.0.0.1:${String(this.ports.provider)}`;
  }

  /** For `launchChromium`: the browser believes in {@link url} and its bytes pass through the tap. */
  get hosts(): Record<string, string> {
    return { [`localhost:${String(this.ports.cloakroom)}`]: `127.0.0.1:${String(this.tap.port)}` };
  }

  get ended(): boolean {
    return this.exitCode !== null || this.exitSignal !== null;
  }

  /** Files for the search: what passed between browser and Cloakroom, and what the processes printed. */
  get recordings(): SearchedFiles {
    return { secrets: [this.secretsFile], taps: [this.tap.file], logs: [this.logFile] };
  }

  /** What the provider handed out or was shown so far, by kind. */
  secrets(kind: SecretKind): string[] {
    return readFileSync(this.secretsFile, 'utf8')
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as [SecretKind, string])
      .filter(([one]) => one === kind)
      .map(([, value]) => value);
  }

  /** Pids of the processes it started, where the system tells. */
  children(): number[] {
    const pid = String(this.child.pid);
    const file = `/proc/${pid}/task/${pid}/children`;
    return existsSync(file) ? readFileSync(file, 'utf8').split(' ').filter(Boolean).map(Number) : [];
  }

  /** What Ctrl-C in a terminal does. */
  interrupt(): void {
    if (this.child.pid !== undefined && !this.ended) process.kill(-this.child.pid, 'SIGINT');
  }

  async exited(timeout = 15_000): Promise<number | null> {
    await eventually(() => this.ended, { timeout, what: 'the demo to end' });
    return this.exitCode;
  }

  async close(): Promise<void> {
    this.forget();
    this.interrupt();
    try {
      await this.exited();
    } finally {
      if (!this.ended) this.child.kill('SIGKILL');
      await this.tap.close();
    }
  }
}

/** This process's environment without what would steer the demo: by default there is no Redis. */
function environment(): Record<string, string> {
  const kept: Record<string, string> = {};
  for (const [name, value] of Object.entries(process.env)) {
    const steers =
      /^(?:CLOAKROOM_|DEMO_|JEST_)/.test(name) || ['REDIS_URL', 'NODE_OPTIONS', 'NODE_ENV'].includes(name);
    if (value !== undefined && !steers) kept[name] = value;
  }
  return kept;
}
