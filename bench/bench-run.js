// @ts-check
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/**
 * Runs a measurement with a folder of its own, ends it when it takes too long, and cleans up after it.
 *
 * @param {number} patience seconds
 * @param {(parts: { folder: string, later: (close: () => unknown) => void }) => Promise<void>} measure
 * @returns {Promise<number>} exit code
 */
export async function bounded(patience, measure) {
  const folder = mkdtempSync(join(tmpdir(), 'cloakroom-bench-'));
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) {
    process.on(signal, () => process.exit(130));
  }
  setTimeout(() => {
    console.error(`bench: not done after ${String(patience)} s; giving up`);
    process.exit(1);
  }, patience * 1000).unref();
  /** @type {(() => unknown)[]} */
  const closers = [];
  let code = 0;
  try {
    await measure({ folder, later: (close) => closers.push(close) });
  } catch (error) {
    console.error(`bench: ${/** @type {Error} */ (error).message}`);
    code = 1;
  }
  for (const close of closers.reverse()) await close();
  return code;
}

/**
 * @param {number[]} values
 * @param {number} share for example 0.99
 */
export function percentile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}

/** @param {string} text what is going on, for a person who waits; empty to take it away */
export function progress(text) {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
}
