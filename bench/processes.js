// @ts-check
import { execFileSync, fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { fileURLToPath } from 'node:url';

/** @typedef {import('node:child_process').ChildProcess} ChildProcess */

const STOP_WITHIN = 8000;

/** @type {Set<ChildProcess>} */
const running = new Set();

// Whatever ends this process, nothing that it started is left behind.
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/**
 * @param {ChildProcess} child
 * @param {string} name
 * @returns {ChildProcess}
 */
function keep(child, name) {
  running.add(child);
  child.on('error', (error) => {
    running.delete(child);
    console.error(`${name} could not be started: ${error.message}`);
  });
  child.on('exit', () => running.delete(child));
  return child;
}

/**
 * Settings that were meant for another Cloakroom would change ours, and options for Node would slow one side only.
 *
 * @param {Record<string, string>} [extra]
 */
function environment(extra = {}) {
  const inherited = Object.entries(process.env).filter(
    ([name]) => !name.startsWith('CLOAKROOM_') && name !== 'NODE_OPTIONS',
  );
  return { ...Object.fromEntries(inherited), NODE_ENV: 'production', ...extra };
}

/**
 * Starts a script of this folder and waits for its first message.
 *
 * @param {string} script
 * @param {string[]} [args]
 * @returns {Promise<{ child: ChildProcess, pid: number, message: any }>}
 */
export async function startScript(script, args = []) {
  const file = fileURLToPath(new URL(script, import.meta.url));
  const child = keep(fork(file, args, { env: environment(), execArgv: [] }), script);
  return { child, pid: child.pid ?? 0, message: await messageFrom(child, script, 10_000) };
}

/**
 * @param {string} command
 * @param {string[]} args
 * @param {{ cwd?: string, env?: Record<string, string> }} [options]
 * @returns {ChildProcess} its standard output is a pipe that somebody must read
 */
export function startProgram(command, args, options = {}) {
  return keep(
    spawn(command, args, {
      ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      env: environment(options.env),
      stdio: ['ignore', 'pipe', 'inherit'],
    }),
    command,
  );
}

/**
 * @param {ChildProcess} child
 * @param {string} name
 * @param {number} within milliseconds
 * @returns {Promise<any>}
 */
export async function messageFrom(child, name, within) {
  const deadline = new AbortController();
  const timer = setTimeout(() => deadline.abort(), within);
  const died = once(child, 'exit', { signal: deadline.signal }).then(([code, signal]) => {
    throw new Error(`${name} ended early (${String(signal ?? code)})`);
  });
  const said = once(child, 'message', { signal: deadline.signal }).then(([message]) => message);
  try {
    return await Promise.race([said, died]);
  } catch (error) {
    if (!deadline.signal.aborted) throw error;
    throw new Error(`${name} did not answer within ${String(within / 1000)} s`, { cause: error });
  } finally {
    clearTimeout(timer);
    // Ends the listener that lost the race; its rejection is nobody's concern any more.
    said.catch(() => undefined);
    died.catch(() => undefined);
    deadline.abort();
  }
}

/** @param {ChildProcess | undefined} child */
export async function stop(child) {
  if (child === undefined || !running.has(child)) return;
  const gone = once(child, 'exit');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_WITHIN);
  child.kill('SIGTERM');
  await gone;
  clearTimeout(timer);
}

/** @returns {Promise<number>} a loopback port that was free a moment ago */
export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  server.close();
  await once(server, 'close');
  return port;
}

/** @type {number | undefined} */
let ticksPerSecond;

/**
 * CPU time a process has used so far, user and system, all threads.
 *
 * @param {number} pid
 * @returns {number} milliseconds
 */
export function cpuTime(pid) {
  if (process.platform !== 'linux') return cpuTimeFromPs(pid);
  ticksPerSecond ??= Number(execFileSync('getconf', ['CLK_TCK'], { encoding: 'utf8' }));
  const stat = readFileSync(`/proc/${String(pid)}/stat`, 'utf8');
  // The second field is the command in parentheses and may hold anything; utime and stime are the 14th and 15th.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return ((Number(fields[11]) + Number(fields[12])) * 1000) / ticksPerSecond;
}

/** @param {number} pid */
function cpuTimeFromPs(pid) {
  const text = execFileSync('ps', ['-o', 'time=', '-p', String(pid)], { encoding: 'utf8' }).trim();
  const [days, clock] = text.includes('-') ? text.split('-') : ['0', text];
  const seconds = (clock ?? '').split(':').reduce((sum, part) => sum * 60 + Number(part), 0);
  return (Number(days) * 86_400 + seconds) * 1000;
}
