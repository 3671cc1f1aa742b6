// @ts-check
// `npm run bench`: what Cloakroom costs beside a proxy that does nothing but forward. See --help.
import { mkdtempSync, rmSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CLIENT_ID, startCloakroom } from './cloakroom.js';
import { logIn } from './logins.js';
import { readOptions } from './options.js';
import { cpuTime, messageFrom, startScript, stop } from './processes.js';
import { printProfile } from './profile.js';
import { startProvider } from './provider.js';
import { startRedis } from './redis.js';

const TARGET = 2;
/** Milliseconds after which the longest-lived memory of a process (of verified cookies) is certainly gone. */
const FORGOTTEN_AFTER = 11_000;
/** Logins a second that even a slow machine manages. */
const SLOWEST_LOGINS = 50;

/** What a browser sends beside the cookie. */
const BROWSER_HEADERS = [
  ...[
    'accept',
    'application/json',
    'accept-language',
    'en-GB,en;q=0.8',
    'accept-encoding',
    'gzip, deflate, br',
  ],
  ...['user-agent', 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0'],
  ...['sec-fetch-site', 'same-origin', 'sec-fetch-mode', 'cors', 'sec-fetch-dest', 'empty', 'x-csrf', '1'],
];
const TLS_PROXY_HEADERS = ['x-forwarded-for', '203.0.113.7', 'x-forwarded-proto', 'https'];

/** @type {Record<string, (() => Promise<{ run: (args: string[]) => Promise<number> }>) | undefined>} */
const OTHERS = {
  logout: () => import('./logout.js'),
  sessions: () => import('./sessions.js'),
  streams: () => import('./streams.js'),
};

/** @typedef {{ requests: number, refused: number, seconds: number, p50: number, p99: number }} Load */
/** @typedef {Load & { cpu: number, redisCpu: number | undefined }} Measured CPU in microseconds a request */

// Measurements of their own, by name.
const other = OTHERS[process.argv[2] ?? ''];
if (other !== undefined) {
  const { run } = await other();
  process.exit(await run(process.argv.slice(3)));
}
const options = readOptions(process.argv.slice(2));
if ('say' in options) {
  (options.code === 0 ? process.stdout : process.stderr).write(options.say);
  process.exit(options.code);
}
const settings = options;

/** @type {(() => unknown)[]} */
const closers = [];
const folder = mkdtempSync(join(tmpdir(), 'cloakroom-bench-'));
process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) {
  process.on(signal, () => process.exit(130));
}
const patience = patienceFor(settings);
setTimeout(() => {
  console.error(`bench: not done after ${String(patience)} s; giving up`);
  process.exit(1);
}, patience * 1000).unref();

let code = 0;
try {
  await main();
} catch (error) {
  console.error(`bench: ${/** @type {Error} */ (error).message}`);
  code = 1;
}
for (const close of closers.reverse()) await close();
process.exit(code);

async function main() {
  const provider = await startProvider({ clientId: CLIENT_ID });
  closers.push(() => provider.close());
  const redis = await startRedis(folder);
  closers.push(redis.close);
  const upstream = await startScript('upstream.js', [String(settings.body)]);
  closers.push(() => stop(upstream.child));
  const upstreamOrigin = `http://127.0.0.1:${String(upstream.message.port)}`;
  const cloakroom = await startCloakroom({
    folder,
    issuer: provider.issuer,
    upstream: upstreamOrigin,
    redis,
    behindTls: settings.behindTls,
    nodeOptions: settings.profile
      ? ['--cpu-prof', '--cpu-prof-interval=250', `--cpu-prof-dir=${folder}`]
      : [],
  });
  closers.push(() => stop(cloakroom.child));
  const load = await startScript('load.js');
  closers.push(() => stop(load.child));

  const front = settings.behindTls ? TLS_PROXY_HEADERS : [];
  const cookies = await logIn({
    origin: cloakroom.origin,
    provider,
    count: settings.sessions,
    headers: front,
    progress: (done) => progress(`${String(done)} of ${String(settings.sessions)} people logged in`),
  });
  await proveItself(cloakroom.origin, cookies[0] ?? '');
  load.child.send({ cookies, headers: [...BROWSER_HEADERS, ...front] });
  await messageFrom(load.child, 'load.js', 10_000);

  /**
   * @param {string} origin
   * @param {number} seconds
   * @returns {Promise<Load>}
   */
  const loadOn = async (origin, seconds) => {
    load.child.send({
      origin,
      seconds,
      connections: settings.connections,
      oncePerSession: settings.cold,
      length: upstream.message.length,
    });
    const result = await messageFrom(load.child, 'load.js', (seconds + 10) * 1000);
    if (result.failed !== undefined)
      throw new Error(`the load on ${origin} failed: ${String(result.failed)}`);
    return result;
  };

  let lastColdStart = -Infinity;
  const forget = async () => {
    if (settings.cold) await sleep(Math.max(0, lastColdStart + FORGOTTEN_AFTER - performance.now()));
    lastColdStart = performance.now();
  };

  if (settings.profile) {
    await loadOn(cloakroom.origin, settings.warmup);
    await forget();
    const from = Number(process.hrtime.bigint() / 1000n);
    const { requests } = await loadOn(cloakroom.origin, settings.seconds);
    const to = Number(process.hrtime.bigint() / 1000n);
    await stop(cloakroom.child);
    printProfile({ folder, from, to, requests, top: settings.top });
    return;
  }

  const reference = await startScript('reference-proxy.js', [upstreamOrigin]);
  closers.push(() => stop(reference.child));
  const referenceOrigin = `http://127.0.0.1:${String(reference.message.port)}`;

  /**
   * @param {{ pid: number, origin: string }} proxy
   * @returns {Promise<Measured>}
   */
  const measure = async ({ pid, origin }) => {
    const [before, redisBefore] = [cpuTime(pid), redis.pid === undefined ? 0 : cpuTime(redis.pid)];
    const result = await loadOn(origin, settings.seconds);
    const cpu = ((cpuTime(pid) - before) * 1000) / result.requests;
    const redisCpu =
      redis.pid === undefined ? undefined : ((cpuTime(redis.pid) - redisBefore) * 1000) / result.requests;
    return { ...result, cpu, redisCpu };
  };

  progress('warming up');
  await loadOn(referenceOrigin, settings.warmup);
  await forget();
  await loadOn(cloakroom.origin, settings.warmup);
  /** @type {{ reference: Measured, cloakroom: Measured }[]} */
  const rounds = [];
  for (let round = 1; round <= settings.rounds; round += 1) {
    progress(`round ${String(round)} of ${String(settings.rounds)}`);
    const bare = await measure({ pid: reference.pid, origin: referenceOrigin });
    await forget();
    rounds.push({ reference: bare, cloakroom: await measure(cloakroom) });
  }
  progress('');
  report(rounds);
}

/**
 * That what is measured is the real thing: a session is required, and one that exists lets the request through.
 *
 * @param {string} origin
 * @param {string} cookie
 */
async function proveItself(origin, cookie) {
  const without = await fetch(`${origin}/api/orders`, { headers: { 'x-csrf': '1' } });
  const withCookie = await fetch(`${origin}/api/orders`, { headers: { 'x-csrf': '1', cookie } });
  if (without.status !== 401 || withCookie.status !== 200) {
    throw new Error(
      `Cloakroom answered ${String(without.status)} without a session and ${String(withCookie.status)} with one`,
    );
  }
}

/** @param {{ reference: Measured, cloakroom: Measured }[]} rounds */
function report(rounds) {
  const kind = settings.cold
    ? `cold: ${String(settings.sessions)} sessions, each at most once a round`
    : `warm: ${String(settings.sessions)} sessions`;
  console.log(
    `Node ${process.version}, ${String(cpus().length)} CPUs; ${kind}; ${String(settings.connections)} connections; ` +
      `${String(rounds.length)} rounds each, in turns, of up to ${String(settings.seconds)} s; medians\n`,
  );
  const rows = [['', 'requests/s', 'p50 ms', 'p99 ms', 'CPU µs/request', 'Redis µs/request']];
  for (const name of /** @type {const} */ (['reference', 'cloakroom'])) {
    const all = rounds.map((round) => round[name]);
    const redis = all.map((one) => one.redisCpu ?? NaN);
    rows.push([
      name,
      median(all.map((one) => one.requests / one.seconds)).toFixed(0),
      median(all.map((one) => one.p50)).toFixed(2),
      median(all.map((one) => one.p99)).toFixed(2),
      median(all.map((one) => one.cpu)).toFixed(1),
      name === 'reference' || redis.some(Number.isNaN) ? '-' : median(redis).toFixed(1),
    ]);
  }
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  for (const row of rows) {
    const cells = row.map((cell, i) =>
      i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0),
    );
    console.log(cells.join('   '));
  }
  const refused = rounds.reduce((sum, round) => sum + round.reference.refused + round.cloakroom.refused, 0);
  if (refused > 0)
    console.log(`\n${String(refused)} answers were wrong: this machine was busy with something else`);
  const ratios = rounds.map((round) => round.cloakroom.cpu / round.reference.cpu);
  const ratio = median(ratios);
  const verdict = ratio <= TARGET ? 'at or under the target' : 'OVER the target';
  console.log(
    `\nCPU per request, Cloakroom / reference: ${ratio.toFixed(2)} (rounds: ${ratios.map((r) => r.toFixed(2)).join(', ')})` +
      `\n${verdict} of ${TARGET.toFixed(1)}`,
  );
}

/** @param {number[]} values */
function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[middle] ?? NaN)
    : ((sorted[middle - 1] ?? NaN) + (sorted[middle] ?? NaN)) / 2;
}

/** @param {string} text what is going on, for a person who waits; empty to take it away */
function progress(text) {
  if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`);
}

/** @param {import('./options.js').Options} given */
function patienceFor(given) {
  const rest = given.cold ? FORGOTTEN_AFTER / 1000 : 0;
  const load = (given.warmup + given.seconds * given.rounds) * 2 + (given.rounds + 2) * rest;
  return Math.ceil(60 + given.sessions / SLOWEST_LOGINS + load * 1.5);
}
