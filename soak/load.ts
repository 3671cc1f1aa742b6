import { fork, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import type { BrowserClient } from '../test/support/browser-client.js';
import { repository, type Cloakroom } from '../test/support/cloakroom.js';
import { closeLater, guard } from '../test/support/lifetime.js';
import { sessionPair } from '../test/support/script-request.js';
import { ms, type Say } from './scenario.js';

export interface LoadOptions {
  clients: readonly BrowserClient[];
  /** Requests a second. */
  rate: number;
  /** After which it ends by itself. */
  seconds: number;
  /** Only to replicas that say they are ready. */
  balance?: boolean;
  /** Origin of another server that gets them instead of the replicas. */
  to?: string;
}

interface Result {
  due: Float64Array;
  took: Float64Array;
  /** 0 when there was no answer. */
  status: Uint16Array;
  /** 1 when the answer had a Set-Cookie or a Location. */
  marks: Uint8Array;
  errors: [string, number][];
  rate: number;
  unsent: number;
}

/** Starts a script of plain JavaScript and waits for its first message. */
export async function startScript(
  path: string,
  args: string[] = [],
): Promise<{ child: ChildProcess; first: unknown }> {
  const child = fork(join(repository, path), args, { execArgv: [], serialization: 'advanced' });
  guard(child);
  closeLater(() => {
    child.kill('SIGKILL');
  });
  return { child, first: await messageFrom(child) };
}

export function messageFrom(child: ChildProcess): Promise<unknown> {
  return new Promise((resolve, reject) => {
    child.once('message', resolve);
    child.once('exit', () => reject(new Error('a process of the load ended by itself')));
    child.once('error', reject);
  });
}

/** An API in a process of its own that says the same to everybody, so that it takes as little of the machine as it can. */
export async function startPlainUpstream(): Promise<{ url: string; pid: number | undefined }> {
  const { child, first } = await startScript(join('bench', 'upstream.js'), ['200']);
  return { url: `http://127.0.0.1:${String((first as { port: number }).port)}`, pid: child.pid };
}

/** Calls of signed-in people at a fixed rate, from a process of its own. */
export class Load {
  private readonly result: Promise<Result>;

  private constructor(private readonly child: ChildProcess) {
    this.result = messageFrom(child).then((message) => {
      const { result, failed } = message as { result?: Result; failed?: string };
      child.kill('SIGKILL');
      if (result === undefined) throw new Error(`the load failed: ${String(failed)}`);
      return result;
    });
    this.result.catch(() => undefined);
  }

  static async start(room: Cloakroom, options: LoadOptions): Promise<Load> {
    const { child } = await startScript(join('soak', 'sender.js'));
    child.send({
      order: {
        targets:
          options.to === undefined
            ? room.replicas.map(({ port }) => `http://127.0.0.1:${String(port)}`)
            : [options.to],
        cookies: options.clients.map(sessionPair),
        headers: [
          ...['host', new URL(room.publicUrl).host, 'x-forwarded-proto', 'https', 'x-csrf', '1'],
          ...['accept', 'application/json', 'user-agent', 'cloakroom-soak', 'sec-fetch-site', 'same-origin'],
        ],
        path: '/api/orders?page=2',
        rate: options.rate,
        seconds: options.seconds,
        balance: options.balance ?? false,
      },
    });
    return new Load(child);
  }

  get pid(): number | undefined {
    return this.child.pid;
  }

  /** Lets what is under way end. */
  async stop(): Promise<Samples> {
    if (this.child.connected) this.child.send({ stop: true });
    return this.ended();
  }

  async ended(): Promise<Samples> {
    return Samples.of(await this.result);
  }
}

/** Answers, each by the moment at which its request was due. */
export class Samples {
  private constructor(
    private readonly result: Result,
    private readonly picked: readonly number[],
  ) {}

  static of(result: Result): Samples {
    return new Samples(result, [...result.due.keys()]);
  }

  /** Those that were due from one moment to another, both in milliseconds since the epoch. */
  between(from: number, to: number): Samples {
    const { due } = this.result;
    return new Samples(
      this.result,
      this.picked.filter((at) => (due[at] ?? 0) >= from && (due[at] ?? 0) < to),
    );
  }

  withStatus(status: number): Samples {
    return new Samples(
      this.result,
      this.picked.filter((at) => this.result.status[at] === status),
    );
  }

  get count(): number {
    return this.picked.length;
  }

  /** When the last of them was due. */
  get last(): number {
    return this.picked.reduce((latest, at) => Math.max(latest, this.result.due[at] ?? 0), 0);
  }

  /** How many of each status; 0 is no answer. */
  get statuses(): Record<string, number> {
    const counts: Record<string, number> = {};
    for (const at of this.picked) {
      const status = String(this.result.status[at]);
      counts[status] = (counts[status] ?? 0) + 1;
    }
    return counts;
  }

  /** Answers that set or cleared a cookie or sent the browser elsewhere. */
  get marked(): number {
    return this.picked.filter((at) => this.result.marks[at] === 1).length;
  }

  /** Milliseconds within which this share of the answers came. */
  percentile(share: number): number {
    const sorted = this.picked.map((at) => this.result.took[at] ?? 0).sort((a, b) => a - b);
    return sorted[Math.min(sorted.length - 1, Math.ceil((sorted.length * share) / 100) - 1)] ?? Number.NaN;
  }

  /** Requests a second that the sender really sent, over all its time. */
  get rate(): number {
    return this.result.rate;
  }

  /** Requests that were due and never sent, because too many were waiting or nobody was ready. */
  get unsent(): number {
    return this.result.unsent;
  }

  get errors(): [string, number][] {
    return this.result.errors;
  }

  describe(): string {
    const statuses = Object.entries(this.statuses).map(([status, count]) => `${String(count)} x ${status}`);
    return `${statuses.join(', ')}; p50 ${ms(this.percentile(50))}, p99 ${ms(this.percentile(99))}`;
  }
}

/** The highest of these rates at which everybody is served and nobody waits long. */
export async function carriedRate(
  room: Cloakroom,
  clients: readonly BrowserClient[],
  rates: readonly number[],
  say: Say,
): Promise<number> {
  // A process that has just begun is slow until its code is compiled.
  await (await Load.start(room, { clients, rate: rates.at(-1) ?? 0, seconds: 6 })).ended();
  for (const rate of rates) {
    const load = await Load.start(room, { clients, rate, seconds: 6 });
    const samples = await load.ended();
    // The first second opens connections.
    const warm = samples.between(samples.last - 5000, Infinity);
    const carried = warm.withStatus(200).count === warm.count && warm.percentile(99) < 150;
    say(
      `${String(rate)} requests/s for 6 s: ${warm.describe()}${carried ? '' : '; too much for this machine'}`,
    );
    if (carried && samples.unsent === 0) return rate;
  }
  return rates.at(-1) ?? 0;
}
