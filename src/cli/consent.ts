import { UsageError } from './arguments.js';
import { EX_USAGE, NOTHING } from './exit-codes.js';
import { ask, isTerminal, tell } from './terminal.js';

/** Whether somebody really means it. */

const SHORTEST_REASON = 3;
const LONGEST_REASON = 500;

/** @throws {UsageError} */
export function readReason(text: string | undefined): string | undefined {
  const reason = text?.trim();
  if (reason === undefined) return undefined;
  if (reason.length < SHORTEST_REASON) throw new UsageError("'--reason' does not say why");
  if (reason.length > LONGEST_REASON) {
    throw new UsageError(`'--reason' is longer than ${String(LONGEST_REASON)} characters`);
  }
  return reason;
}

/**
 * Asks for a word to be typed; without a terminal to ask at, only `--yes` will do.
 * @param act what is about to be done, as in "to end 12 sessions"
 * @returns the exit code where it is not meant, nothing where it is
 */
export async function refusal(yes: boolean, word: string, act: string): Promise<number | undefined> {
  if (yes) return undefined;
  if (!isTerminal()) {
    tell(`cloakroom: nothing was done: there is no terminal to ask at. Add --yes ${act}\n`);
    return EX_USAGE;
  }
  if ((await ask(`Type '${word}' ${act}: `))?.trim() === word) return undefined;
  tell('Nothing was done.\n');
  return NOTHING;
}
