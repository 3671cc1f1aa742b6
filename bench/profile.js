// @ts-check
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * @typedef {{ id: number, callFrame: { functionName: string, url: string, lineNumber: number } }} Node
 * @typedef {{ nodes: Node[], startTime: number, samples: number[], timeDeltas: number[] }} Profile
 * @typedef {{ name: string, where: string, file: string, time: number }} Line
 */

const root = fileURLToPath(new URL('..', import.meta.url));
const NOT_WORK = new Set(['(idle)', '(root)']);

/**
 * Prints the functions that used the most time themselves, by file.
 *
 * @param {object} parts
 * @param {string} parts.folder where the process left its profile
 * @param {number} parts.from microseconds on the monotonic clock, which is the one that profiles use
 * @param {number} parts.to
 * @param {number} parts.requests
 * @param {number} parts.top
 */
export function printProfile({ folder, from, to, requests, top }) {
  const name = readdirSync(folder).find((file) => file.endsWith('.cpuprofile'));
  if (name === undefined) throw new Error('the process left no profile');
  const profile = /** @type {Profile} */ (JSON.parse(readFileSync(join(folder, name), 'utf8')));
  const lines = selfTimes(profile, from, to);
  const total = lines.reduce((sum, line) => sum + line.time, 0);
  const cells = (/** @type {number} */ time) =>
    `${((100 * time) / total).toFixed(1).padStart(5)} %  ${(time / requests).toFixed(2).padStart(7)} µs`;

  console.log(
    `\n${String(requests)} requests; share of busy time, and of one request, spent in the function itself\n`,
  );
  /** @type {Map<string, Line[]>} */
  const files = new Map();
  for (const line of lines.slice(0, top)) files.set(line.file, [...(files.get(line.file) ?? []), line]);
  const wholes = new Map();
  for (const line of lines) wholes.set(line.file, (wholes.get(line.file) ?? 0) + line.time);
  for (const [file, functions] of [...files].sort((a, b) => wholes.get(b[0]) - wholes.get(a[0]))) {
    console.log(`${cells(wholes.get(file))}  ${file}`);
    for (const line of functions) console.log(`  ${cells(line.time)}    ${line.name}${line.where}`);
  }
}

/**
 * @param {Profile} profile
 * @param {number} from
 * @param {number} to
 * @returns {Line[]} most first
 */
function selfTimes({ nodes, samples, timeDeltas, startTime }, from, to) {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  /** @type {Map<string, Line>} */
  const lines = new Map();
  let at = startTime;
  samples.forEach((id, index) => {
    const time = timeDeltas[index] ?? 0;
    at += time;
    const node = byId.get(id);
    if (at < from || at > to || node === undefined || NOT_WORK.has(node.callFrame.functionName)) return;
    const { functionName, url, lineNumber } = node.callFrame;
    const file = fileName(url);
    const where = url === '' ? '' : `:${String(lineNumber + 1)}`;
    const key = `${functionName} ${file}${where}`;
    const line = lines.get(key) ?? { name: functionName || '(anonymous)', where, file, time: 0 };
    line.time += time;
    lines.set(key, line);
  });
  return [...lines.values()].sort((a, b) => b.time - a.time);
}

/** @param {string} url */
function fileName(url) {
  if (url === '') return '(the engine: system calls, garbage collection, built-ins)';
  const path = url.startsWith('file:') ? fileURLToPath(url) : url;
  return path.startsWith(root) ? path.slice(root.length) : path;
}
