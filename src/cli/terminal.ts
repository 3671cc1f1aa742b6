import { once } from 'node:events';
import { createInterface } from 'node:readline';

/** What goes to and comes from whoever sits in front of the screen. */

/** Whether somebody can be asked. */
export function isTerminal(): boolean {
  return process.stdin.isTTY && process.stderr.isTTY;
}

/** Characters that move a cursor, colour, hide or reorder text, or end a line; and halves of characters. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}\p{Co}\p{Cn}]/gu;

/** Text from elsewhere, as it may stand on a screen: it gets no line of its own and moves nothing. */
export function printable(text: string): string {
  return text.replace(UNPRINTABLE, '\u{fffd}');
}

/** JSON that also a terminal can be shown: its own writer leaves some control characters as they are. */
export function jsonLine(value: unknown): string {
  const text = JSON.stringify(value).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) =>
    Array.from({ length: character.length }, (_, i) => escaped(character.charCodeAt(i))).join(''),
  );
  return `${text}\n`;
}

function escaped(unit: number): string {
  return `\\u${unit.toString(16).padStart(4, '0')}`;
}

/** Writes to standard output no faster than it is read there. */
export async function print(text: string): Promise<void> {
  if (!process.stdout.write(text)) await once(process.stdout, 'drain');
}

/** What is not the result: explanations, questions, progress. */
export function tell(text: string): void {
  process.stderr.write(text);
}

/** An answer typed in, or nothing when there is none. */
export async function ask(question: string): Promise<string | undefined> {
  const lines = createInterface({ input: process.stdin, output: process.stderr });
  try {
    return await new Promise((resolve) => {
      lines.once('close', () => {
        resolve(undefined);
      });
      lines.question(question, resolve);
    });
  } finally {
    lines.close();
  }
}

/** Milliseconds between two drawings, and between two lines where there is no terminal. */
const DRAW_EVERY = 100;
const LINE_EVERY = 5000;
const WIDTH = 30;

/** How far something long is: a bar on a terminal, now and then a line elsewhere. */
export class Progress {
  readonly #what: string;
  readonly #total: number | undefined;
  readonly #every = process.stderr.isTTY ? DRAW_EVERY : LINE_EVERY;
  #last = performance.now();
  #drawn = false;

  /** @param total how many there will be, where that is known */
  constructor(what: string, total?: number) {
    this.#what = what;
    this.#total = total;
  }

  update(done: number): void {
    const now = performance.now();
    if (now - this.#last < this.#every) return;
    this.#last = now;
    const text = `${this.#what} ${this.#describe(done)}`;
    if (process.stderr.isTTY) {
      tell(`\r${text}\u001b[K`);
      this.#drawn = true;
    } else {
      tell(`${text}\n`);
    }
  }

  end(): void {
    if (this.#drawn) tell('\r\u001b[K');
    this.#drawn = false;
  }

  #describe(done: number): string {
    if (this.#total === undefined || this.#total === 0) return grouped(done);
    // More may have come since it was counted.
    const part = Math.min(1, done / this.#total);
    const counts = `${grouped(done)} of ${grouped(Math.max(done, this.#total))}`;
    if (!process.stderr.isTTY) return counts;
    const full = Math.floor(part * WIDTH);
    return `[${'#'.repeat(full)}${'.'.repeat(WIDTH - full)}] ${String(Math.floor(part * 100)).padStart(3)} %  ${counts}`;
  }
}

/** 12,345 */
export function grouped(count: number): string {
  return count.toLocaleString('en-US');
}

/** `1 session`, `12 sessions` */
export function sessionsIn(count: number): string {
  return `${grouped(count)} ${count === 1 ? 'session' : 'sessions'}`;
}
