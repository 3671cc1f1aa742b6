import { fork, type ChildProcess } from 'node:child_process';
import { createWriteStream, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { EndingResult } from '../../src/endings/endings.service.js';
import type { ListedSession, SessionFilter } from '../../src/endings/filter.js';
import type { EndCause } from '../../src/store/store.js';
import type { Cloakroom } from './cloakroom.js';
import { closeLater, eventually, guard } from './lifetime.js';
import { runSubfolder, uniqueName } from './run-folder.js';

/** A session to be written without a login. */
export interface SeedWish {
  subject: string;
  sid?: string;
  accessToken: string;
  refreshToken?: string;
  createdAt?: number;
  provider?: string;
  address?: string;
}

export interface Seeded {
  handle: string;
  /** Value of the session cookie. */
  cookie: string;
}

export interface EndOptions {
  cause?: EndCause;
  reason?: string;
  id?: string;
  /** The process kills itself instead of making this call of the store, counted from 0. */
  dieAtCall?: number;
  /** The process kills itself when so many have ended. */
  dieAtProgress?: number;
}

interface Answer {
  id?: number;
  value?: unknown;
  error?: string;
  progress?: number;
}

/** Milliseconds. */
const LATE_AFTER = 45_000;

const program = fileURLToPath(new URL('administration-process.js', import.meta.url));

/** Ends and lists sessions from outside the replicas, in a process of its own, as the command line does. */
export class Administration {
  /** What the endings told about how far they have come. */
  readonly progress: number[] = [];
  private readonly waiting = new Map<
    number,
    { resolve: (value: unknown) => void; reject: (error: Error) => void }
  >();
  private sent = 0;

  private constructor(private readonly child: ChildProcess) {
    child.on('message', ({ id, value, error, progress }: Answer) => {
      if (progress !== undefined) this.progress.push(progress);
      const caller = id === undefined ? undefined : this.waiting.get(id);
      if (id === undefined || caller === undefined) return;
      this.waiting.delete(id);
      if (error === undefined) caller.resolve(value);
      else caller.reject(new Error(error));
    });
    child.once('exit', (code, signal) => {
      for (const { reject } of this.waiting.values()) reject(new Error(`died: ${String(signal ?? code)}`));
      this.waiting.clear();
    });
    closeLater(() => this.close());
  }

  /** @param env settings that differ from those of the replicas */
  static async start(room: Cloakroom, env: Record<string, string> = {}): Promise<Administration> {
    const log = createWriteStream(join(runSubfolder('logs'), `${uniqueName('administration')}.log`));
    log.on('error', () => undefined);
    const { PATH = '' } = process.env;
    const child = fork(program, [room.first.configFile], {
      env: { PATH, NODE_ENV: 'production', ...env },
      execArgv: [],
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    guard(child);
    let errors = '';
    child.stdout?.on('data', (chunk: Buffer) => log.write(chunk));
    child.stderr?.on('data', (chunk: Buffer) => {
      errors += chunk.toString('utf8');
      log.write(chunk);
    });
    let ready = false;
    child.once('message', () => (ready = true));
    await eventually(
      () => {
        if (child.exitCode !== null) throw new Error(`the administration did not start: ${errors}`);
        return ready;
      },
      { timeout: 20_000, what: 'the administration to be ready' },
    );
    return new Administration(child);
  }

  get alive(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  async end(filter: SessionFilter, options: EndOptions = {}): Promise<EndingResult> {
    const { cause = 'operator', reason = 'test', id, ...death } = options;
    const how = {
      cause,
      reason,
      actor: { kind: 'operator', name: 'tester', from: 'terminal' },
      ...(id === undefined ? {} : { id }),
    };
    return (await this.ask('end', filter, how, death)) as EndingResult;
  }

  async page(
    filter: SessionFilter,
    cursor?: string,
    limit = 100,
  ): Promise<{ sessions: ListedSession[]; next?: string }> {
    return (await this.ask('page', filter, cursor, limit)) as { sessions: ListedSession[]; next?: string };
  }

  /** Every handle that a filter means, page by page. */
  async handles(filter: SessionFilter, limit = 100): Promise<string[]> {
    const handles: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await this.page(filter, cursor, limit);
      handles.push(...page.sessions.map(({ handle }) => handle));
      cursor = page.next;
    } while (cursor !== undefined);
    return handles;
  }

  async show(handle: string): Promise<ListedSession | undefined> {
    return (await this.ask('show', handle)) as ListedSession | undefined;
  }

  async count(filter: SessionFilter): Promise<number> {
    return (await this.ask('count', filter)) as number;
  }

  async sweep(): Promise<void> {
    await this.ask('sweep');
  }

  async result(id: string): Promise<{ ended: number; durability?: string } | undefined> {
    return (await this.ask('result', id)) as { ended: number; durability?: string } | undefined;
  }

  /** Whether an act of this name was written down. */
  async asked(name: string): Promise<boolean> {
    return (await this.ask('asked', name)) as boolean;
  }

  async bump(kind: 'end' | 'refresh'): Promise<number> {
    return (await this.ask('bump', kind)) as number;
  }

  /** Bytes, the most that were in use at any time. Linux alone tells. */
  async peakMemory(): Promise<number> {
    return (await this.ask('peakMemory')) as number;
  }

  async seed(wishes: readonly SeedWish[]): Promise<Seeded[]> {
    return (await this.ask('seed', wishes)) as Seeded[];
  }

  /** SIGKILL, and waits until it is gone. */
  async crash(): Promise<void> {
    this.child.kill('SIGKILL');
    await eventually(() => !this.alive, { what: 'the administration to be gone' });
  }

  async close(): Promise<void> {
    if (this.alive) await this.crash();
  }

  private ask(act: string, ...args: readonly unknown[]): Promise<unknown> {
    if (!this.alive) return Promise.reject(new Error('the administration is gone'));
    this.sent += 1;
    const id = this.sent;
    // A test that waits in vain is ended by its own time, and does not say what it waited for.
    const late = setTimeout(() => {
      process.stderr.write(`still no answer to "${act}"; its process: ${this.state()}\n`);
    }, LATE_AFTER);
    const answer = new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.child.send({ id, act, args });
    });
    return answer.finally(() => {
      clearTimeout(late);
    });
  }

  /** Whether the kernel says that it runs, sleeps or was stopped, and the time it has used. Linux alone tells. */
  private state(): string {
    try {
      const stat = readFileSync(`/proc/${String(this.child.pid)}/stat`, 'utf8');
      const [state, ...numbers] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      return `${String(state)}, ${String(numbers[10])} + ${String(numbers[11])} ticks`;
    } catch (error) {
      return String(error);
    }
  }
}
