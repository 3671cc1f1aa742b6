import { spawn, type ChildProcess } from 'node:child_process';

type Closer = () => Promise<void> | void;

const closers = new Set<Closer>();

/** Registers something to be closed when the test file ends, however it ends. Returns the way to take it back. */
export function closeLater(close: Closer): () => void {
  closers.add(close);
  return () => closers.delete(close);
}

/** Closes everything still open, youngest first, so that a client goes before the server it talks to. */
export async function closeEverything(): Promise<void> {
  for (const close of [...closers].reverse()) {
    closers.delete(close);
    try {
      await close();
    } catch (error) {
      process.stderr.write(`closing after the tests failed: ${String(error)}\n`);
    }
  }
}

// A jest worker may be killed, and `process.on('exit')` inside jest's sandbox is not the real one. This shell
// outlives the worker: when its standard input ends it kills what is still on its list.
const REAPER = `
trap '' TERM INT HUP
pids=''
while read -r line; do
  case "$line" in
    +*) pids="$pids \${line#+}" ;;
    -*) kept=''; for p in $pids; do [ "$p" = "\${line#-}" ] || kept="$kept $p"; done; pids="$kept" ;;
  esac
done
for p in $pids; do kill -9 "$p" 2>/dev/null; done
`;

let reaper: ChildProcess | undefined;
let guarded = 0;

function startReaper(): ChildProcess {
  const child = spawn('/bin/sh', ['-c', REAPER], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
  child.unref();
  child.on('error', () => undefined);
  child.stdin.on('error', () => undefined);
  // A pipe is a socket underneath; it must not keep jest from ending.
  (child.stdin as unknown as { unref?: () => void }).unref?.();
  return child;
}

/** Makes sure that the child dies with this process. */
export function guard(child: ChildProcess): void {
  const { pid } = child;
  if (pid === undefined) return;
  reaper ??= startReaper();
  const mine = reaper;
  mine.stdin?.write(`+${String(pid)}\n`);
  guarded += 1;
  child.once('exit', () => {
    mine.stdin?.write(`-${String(pid)}\n`);
    guarded -= 1;
    if (guarded === 0 && reaper === mine) {
      reaper = undefined;
      mine.stdin?.end();
    }
  });
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Polls until the probe answers something other than undefined, null or false. */
export async function eventually<T>(
  probe: () => T | Promise<T>,
  { timeout = 5_000, interval = 20, what = 'the condition' } = {},
): Promise<NonNullable<Exclude<T, false>>> {
  const deadline = Date.now() + timeout;
  for (;;) {
    const value = await probe();
    if (value !== undefined && value !== null && value !== false)
      return value as NonNullable<Exclude<T, false>>;
    if (Date.now() > deadline) throw new Error(`waited ${String(timeout)} ms for ${what}`);
    await sleep(interval);
  }
}
