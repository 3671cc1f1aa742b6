import { connect, type Socket } from 'node:net';
import type { BrowserClient } from '../browser-client.js';
import type { Cloakroom } from '../cloakroom.js';
import { loginsLast } from '../over-at-once.js';
import { random, type Random } from '../random.js';
import { sleep } from '../lifetime.js';
import { sessionPair } from '../script-request.js';
import { Oracle } from './oracle.js';
import { RequestFuzzer, type Sent, type Somebody } from './requests.js';
import { JudgedUpstream } from './upstream.js';

/** Milliseconds. What is whole is answered within it; long enough for a machine that has a lot else to do. */
const PATIENCE = 30_000;
/** Milliseconds within which a connection whose sender is done is closed. */
const CLOSED_WITHIN = 20_000;
/** Milliseconds after which a request that may have no end is taken to wait for more. */
const QUIET = 60;
const PEOPLE = 12;
/** Of a stack, as an answer would show it. */
const STACK = /\n\s+at .+[:(]\d+|node:internal|\.js:\d+:\d+|node_modules/;

export interface FuzzOptions {
  /** Requests. */
  count?: number;
  /** Seconds. */
  seconds?: number;
  /** Connections at once. */
  parallel: number;
  /** Milliseconds of rest after each connection. */
  pause?: number;
  /** Called now and then. */
  progress?: (run: FuzzRun) => void;
}

/** Fuzzed requests against a running Cloakroom, judged at the upstream and at the client. */
export class FuzzRun {
  sent = 0;
  answers = 0;
  connections = 0;
  seconds = 0;
  endedSessions = 0;
  readonly statuses = new Map<string, number>();
  readonly findings: string[] = [];
  readonly oracle: Oracle;
  readonly #people: (Somebody & { client: BrowserClient })[] = [];
  readonly #past: Somebody[] = [];
  readonly #random: Random;
  readonly #fuzzer: RequestFuzzer;
  readonly #names = new Map<string, string | undefined>();
  #logins = 0;

  private constructor(
    private readonly room: Cloakroom,
    private readonly upstream: JudgedUpstream,
    name: string,
  ) {
    this.#random = random(`${name}-run`);
    this.#fuzzer = new RequestFuzzer(random(name), () => [...this.#people, ...this.#past]);
    this.oracle = new Oracle({
      host: upstream.host,
      owner: (token) => this.#owner(token),
      somebody: (user) => [...this.#people, ...this.#past].find((person) => person.user === user),
    });
    upstream.judge = (received) => this.oracle.judge(received);
  }

  static async start(room: Cloakroom, upstream: JudgedUpstream, name: string): Promise<FuzzRun> {
    const run = new FuzzRun(room, upstream, name);
    loginsLast(room.provider, 24 * 3600);
    while (run.#people.length < PEOPLE) await run.#logIn();
    return run;
  }

  get violations(): string[] {
    const unreadable = this.upstream.unreadable;
    return [
      ...this.oracle.violations,
      ...this.findings,
      ...(unreadable > 0 ? [`${String(unreadable)} requests that the upstream could not read`] : []),
    ];
  }

  async run({
    count = Infinity,
    seconds = Infinity,
    parallel,
    pause = 0,
    progress,
  }: FuzzOptions): Promise<void> {
    const began = performance.now();
    const isOver = (): boolean => this.sent >= count || performance.now() - began >= seconds * 1000;
    let said = began;
    const lane = async (): Promise<void> => {
      while (!isOver()) {
        await this.#connection();
        if (pause > 0) await sleep(pause);
        if (progress !== undefined && performance.now() - said > 20_000) {
          said = performance.now();
          this.seconds = (said - began) / 1000;
          progress(this);
        }
      }
    };
    const ends = async (): Promise<void> => {
      while (!isOver()) {
        await sleep(2000);
        await this.#endOne();
      }
    };
    await Promise.all([...Array.from({ length: parallel }, lane), ends()]);
    this.seconds = (performance.now() - began) / 1000;
  }

  /** Everybody who should still be signed in is, and is served as themselves. */
  async stillServes(): Promise<void> {
    this.upstream.judge = () => undefined;
    for (const { client, user } of this.#people) {
      const me = await client.me();
      const call = await client.api('/api/after');
      if (me.status !== 200 || call.status !== 200) {
        this.findings.push(`${user} afterwards: ${String(me.status)} and ${String(call.status)}`);
      }
    }
    const login = await this.room.client().login();
    if (login.status !== 303) this.findings.push(`a login afterwards: ${String(login.status)}`);
  }

  describe(): string {
    const statuses = [...this.statuses]
      .sort(([, a], [, b]) => b - a)
      .map(([status, times]) => `${status}: ${String(times)}`);
    return (
      `${String(this.sent)} requests on ${String(this.connections)} connections in ${this.seconds.toFixed(0)} s ` +
      `(${(this.sent / this.seconds).toFixed(0)}/s), ${String(this.answers)} answers (${statuses.join(', ')}), ` +
      `${String(this.oracle.received)} reached the upstream, ${String(this.endedSessions)} sessions ended meanwhile`
    );
  }

  #owner(token: string): string | undefined {
    if (!this.#names.has(token))
      this.#names.set(token, this.room.provider.ledger.accessTokens.get(token)?.sub);
    return this.#names.get(token);
  }

  async #logIn(): Promise<void> {
    const user = `fuzz-${String((this.#logins += 1))}`;
    const client = await this.room.signedIn({ user });
    this.#people.push({ user, cookie: sessionPair(client), client });
  }

  /** From its end on, no token of it may go anywhere, though its cookie still comes. */
  async #endOne(): Promise<void> {
    const person = this.#people[0];
    if (person === undefined) return;
    const answer = await person.client.clone().api('/auth/logout', { method: 'POST', timeout: PATIENCE });
    if (answer.status !== 200) this.findings.push(`a logout: ${String(answer.status)}`);
    person.endedAt = performance.now();
    this.#people.splice(this.#people.indexOf(person), 1);
    this.#past.push(person);
    if (this.#past.length > 20) this.#past.shift();
    this.endedSessions += 1;
    await this.#logIn();
  }

  async #connection(): Promise<void> {
    const units = this.#pipeline();
    for (const unit of units) this.oracle.sends(unit);
    this.sent += units.length;
    this.connections += 1;
    // An event stream has an answer, but no end.
    const isWhole = units.every(({ whole, target }) => whole && !target.includes('events'));
    const bytes = Buffer.from(units.map((unit) => unit.bytes).join(''), 'latin1');
    const { text, problem } = await this.#exchange(bytes, units.length, isWhole);
    const said = (what: string): void => {
      this.findings.push(
        `${what} after ${JSON.stringify(units.at(-1)?.bytes.slice(0, 2000)).replaceAll(/s%3A[^;"\\]+/g, '(cookie)')}`,
      );
    };
    if (problem !== undefined) said(problem);
    this.#readAnswers(text, units, said);
  }

  #pipeline(): Sent[] {
    const length = this.#random.chance(0.3) ? 1 : this.#random.int(2, 12);
    return Array.from({ length }, (_, index) => this.#fuzzer.next(index === length - 1));
  }

  #readAnswers(text: string, units: readonly Sent[], said: (what: string) => void): void {
    let count = 0;
    for (const [, status = ''] of text.matchAll(/(?:^|\n|;|\})HTTP\/1\.1 (\d{3}) /g)) {
      count += 1;
      this.statuses.set(status, (this.statuses.get(status) ?? 0) + 1);
      if (status === '500') said('an internal error');
    }
    this.answers += count;
    if (text !== '' && !text.startsWith('HTTP/1.1 ')) said('an answer that is none');
    if (STACK.test(text)) said('a stack in an answer');
    let last = -1;
    for (const [, tag] of text.matchAll(/up:(fz\d+x[0-9a-z]+z);/g)) {
      const at = units.findIndex((unit) => unit.tag === tag);
      if (at === -1) said("somebody else's answer");
      else if (at <= last) said('answers in another order');
      last = at;
    }
  }

  /** @param isWhole whether each request has an end, so that an answer or the end of the connection must come */
  #exchange(bytes: Buffer, wanted: number, isWhole: boolean): Promise<{ text: string; problem?: string }> {
    return new Promise((resolve) => {
      const socket = connect({ host: '127.0.0.1', port: this.room.first.port, noDelay: true });
      let text = '';
      let isLeaving = false;
      let late: NodeJS.Timeout | undefined;
      let problem: string | undefined;
      const leave = (): void => {
        if (isLeaving) return;
        isLeaving = true;
        clearTimeout(quiet);
        late = setTimeout(() => {
          problem = 'a connection that is not closed';
          socket.destroy();
        }, CLOSED_WITHIN);
        // A stream would go on for a client that has only said its last word.
        if (this.#random.chance(0.3) || text.includes('text/event-stream')) socket.resetAndDestroy();
        else socket.end();
      };
      const quiet = setTimeout(
        () => {
          if (isWhole) problem = `${String(answersIn(text))} of ${String(wanted)} answers and no end`;
          leave();
        },
        isWhole ? PATIENCE : QUIET,
      );
      socket.setEncoding('latin1');
      socket.on('data', (chunk: string) => {
        text += chunk;
        if (!isWhole) quiet.refresh();
        else if (chunk.includes('\r\n') && answersIn(text) >= wanted) leave();
      });
      socket.on('error', () => undefined);
      socket.on('close', () => {
        clearTimeout(quiet);
        clearTimeout(late);
        resolve(problem === undefined ? { text } : { text, problem });
      });
      socket.once('connect', () => {
        this.#write(socket, bytes);
      });
    });
  }

  /** In one piece mostly, and sometimes broken anywhere. */
  #write(socket: Socket, bytes: Buffer): void {
    if (this.#random.chance(0.8)) {
      socket.write(bytes);
      return;
    }
    const at = this.#random.int(0, bytes.length);
    socket.write(bytes.subarray(0, at));
    setImmediate(() => {
      if (!socket.destroyed && socket.writable) socket.write(bytes.subarray(at));
    });
  }
}

/** Interim ones are none. */
function answersIn(text: string): number {
  return text.match(/HTTP\/1\.1 [2-5]/g)?.length ?? 0;
}
