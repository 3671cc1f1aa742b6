import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { repository } from './cloakroom.js';
import { guard } from './lifetime.js';

const script = '/usr/bin/script';

/** Whether a command can be run as if at a terminal: `(hasTerminals ? test : test.skip)(…)`. */
export const hasTerminals = process.platform === 'linux' && existsSync(script);

export interface Sitting {
  code: number | null;
  /** Everything that appeared on the screen. */
  screen: string;
}

/** Without what the test run itself is told by. */
const environment = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^(?:CLOAKROOM_|JEST_|NODE_OPTIONS$)/.test(name)),
);

/** Runs the command line at a terminal 80 columns wide; each answer is typed when its question has appeared. */
export async function atTerminal(
  args: readonly string[],
  answers: readonly { to: string; type: string }[] = [],
  timeout = 20_000,
): Promise<Sitting> {
  const command = [process.execPath, join(repository, 'bin', 'cloakroom.js'), ...args].map(quoted).join(' ');
  const child = spawn(script, ['-qec', `stty cols 80 rows 25; ${command}`, '/dev/null'], {
    cwd: repository,
    env: environment,
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  guard(child);
  const sitting: Sitting = { code: null, screen: '' };
  const open = [...answers];
  child.stdout.on('data', (chunk: Buffer) => {
    sitting.screen += chunk.toString('utf8');
    if (open[0] === undefined || !sitting.screen.includes(open[0].to)) return;
    child.stdin.write(open.shift()?.type ?? '');
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), timeout);
  sitting.code = await new Promise<number | null>((done, fail) => {
    child.once('error', fail);
    child.once('close', done);
  });
  clearTimeout(timer);
  return sitting;
}

function quoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
