// @ts-check
// `npm run bench -- streams`: what Cloakroom adds to a message of a WebSocket and to a server-sent event.
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { bounded, percentile, progress } from './bench-run.js';
import { CLIENT_ID, startCloakroom } from './cloakroom.js';
import { logIn } from './logins.js';
import { cpuTime, messageFrom, startScript, stop } from './processes.js';
import { startProvider } from './provider.js';
import { startRedis } from './redis.js';

const USAGE = `Usage: npm run bench -- streams [options]

Opens WebSockets and event streams to one upstream, directly and through Cloakroom in turns, and prints what a message takes.
A message of a WebSocket is sent when the last one has come back; events come at a fixed pace.

  --connections N  (default 50)
  --rounds N       rounds for each, in turns (default 5)
  --seconds N      length of a round (default 3)
  --help           this text
`;

/** @typedef {{ messages: number, seconds: number, p50: number, p99: number, cpu: number }} Measured CPU in microseconds a message */

/**
 * @param {string[]} args
 * @returns {Promise<number>} exit code
 */
export async function run(args) {
  const { values } = parseArgs({
    args,
    options: {
      connections: { type: 'string', default: '50' },
      rounds: { type: 'string', default: '5' },
      seconds: { type: 'string', default: '3' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const [connections, rounds, seconds] = [values.connections, values.rounds, values.seconds].map(Number);
  if (!(
    connections >= 1 &&
    connections <= 1000 &&
    rounds >= 1 &&
    rounds <= 50 &&
    seconds >= 1 &&
    seconds <= 60
  )) {
    process.stderr.write(USAGE);
    return 1;
  }
  return bounded(120 + rounds * seconds * 8, ({ folder, later }) =>
    measure(folder, later, { connections, rounds, seconds }),
  );
}

/**
 * @param {string} folder
 * @param {(close: () => unknown) => void} later
 * @param {{ connections: number, rounds: number, seconds: number }} settings
 */
async function measure(folder, later, { connections, rounds, seconds }) {
  const provider = await startProvider({ clientId: CLIENT_ID });
  later(() => provider.close());
  const redis = await startRedis(folder);
  later(redis.close);
  const upstream = await startScript('stream-upstream.js');
  later(() => stop(upstream.child));
  const cloakroom = await startCloakroom({
    ...{ folder, redis, behindTls: false, nodeOptions: [], issuer: provider.issuer },
    upstream: `http://127.0.0.1:${String(upstream.message.port)}`,
    route: {
      websocket: { perSession: connections },
      limits: { parallel: connections, eventStreams: connections },
    },
  });
  later(() => stop(cloakroom.child));
  const load = await startScript('stream-load.js');
  later(() => stop(load.child));
  const [cookie] = await logIn({
    ...{ origin: cloakroom.origin, provider, count: 1, headers: [] },
    progress: () => undefined,
  });
  const ways = { direct: Number(upstream.message.port), cloakroom: Number(new URL(cloakroom.origin).port) };

  console.log(
    `Node ${process.version}, ${String(cpus().length)} CPUs; ${String(connections)} connections; ${String(rounds)} rounds each, ` +
      `in turns, of ${String(seconds)} s; medians\n`,
  );
  for (const kind of /** @type {const} */ (['websocket', 'events'])) {
    /** @type {{ direct: Measured[], cloakroom: Measured[] }} */
    const results = { direct: [], cloakroom: [] };
    // The first of each is for warming up.
    for (let round = 0; round <= rounds; round += 1) {
      for (const way of /** @type {const} */ (['direct', 'cloakroom'])) {
        progress(`${kind}, round ${String(round)} of ${String(rounds)}, ${way}`);
        const before = cpuTime(cloakroom.pid);
        load.child.send({ kind, port: ways[way], cookie, seconds, connections });
        const result = await messageFrom(load.child, 'stream-load.js', (seconds + 20) * 1000);
        if (result.failed !== undefined) throw new Error(`${kind}, ${way}: ${String(result.failed)}`);
        const cpu = ((cpuTime(cloakroom.pid) - before) * 1000) / result.messages;
        if (round > 0) results[way].push({ ...result, cpu });
      }
    }
    progress('');
    report(kind === 'websocket' ? 'WebSocket, there and back' : 'server-sent events', results);
  }
}

/**
 * @param {string} title
 * @param {{ direct: Measured[], cloakroom: Measured[] }} results
 */
function report(title, results) {
  console.log(title);
  const median = (/** @type {Measured[]} */ all, /** @type {(one: Measured) => number} */ of) =>
    percentile(all.map(of), 0.5);
  for (const way of /** @type {const} */ (['direct', 'cloakroom'])) {
    const all = results[way];
    const cells = [
      `  ${way.padEnd(10)}`,
      `${median(all, (one) => one.messages / one.seconds)
        .toFixed(0)
        .padStart(7)} messages/s`,
      `p50 ${median(all, (one) => one.p50)
        .toFixed(2)
        .padStart(6)} ms`,
      `p99 ${median(all, (one) => one.p99)
        .toFixed(2)
        .padStart(6)} ms`,
      way === 'direct' ? '' : `${median(all, (one) => one.cpu).toFixed(1)} µs CPU of Cloakroom a message`,
    ];
    console.log(cells.join('   ').trimEnd());
  }
}
