import { test } from '@jest/globals';

/** Prints one figure, or what is going on. */
export type Say = (text: string) => void;

/**
 * One promise at its full size. It says what it does, prints its figures while it runs, and ends with PASS or FAIL.
 *
 * @param row of the standard, for example `A-079`
 * @param minutes after which it has failed
 * @param skipped why it cannot run here, if it cannot
 */
export function scenario(
  row: string,
  what: string,
  minutes: number,
  run: (say: Say) => Promise<void>,
  skipped?: string,
): void {
  const say: Say = (text) => process.stdout.write(`${row}   ${text}\n`);
  if (skipped !== undefined) {
    process.stdout.write(`${row} ${what}\n`);
    say(`skipped: ${skipped}`);
    test.skip(`${row} ${what}`, () => undefined);
    return;
  }
  test(
    `${row} ${what}`,
    async () => {
      const begun = performance.now();
      const end = (verdict: string): void => {
        process.stdout.write(
          `${verdict} ${row} after ${((performance.now() - begun) / 1000).toFixed(0)} s\n`,
        );
      };
      process.stdout.write(`\n${row} ${what}\n`);
      try {
        await run(say);
      } catch (error) {
        end('FAIL');
        throw error;
      }
      end('PASS');
    },
    minutes * 60_000,
  );
}

/**
 * A time that was promised, as information: a machine that is busy with something else, or slower than the one the promise
 * is made for, must not make a run fail.
 */
export function target(what: string, value: number, limit: number, unit = ''): string {
  const verdict = value < limit ? 'PASS' : 'FAIL';
  return `${what}: ${value.toFixed(value < 10 ? 2 : 0)}${unit}, target under ${String(limit)}${unit}: ${verdict} (information)`;
}

export const ms = (value: number): string => `${value.toFixed(value < 10 ? 1 : 0)} ms`;
