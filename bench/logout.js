// @ts-check
// `npm run bench -- logout`: from the moment an operator ends a session to the first refusal on every replica.
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { Redis } from 'ioredis';
import { Pool } from 'undici';
import { loadConfig } from '../dist/config/load.js';
import { Logger } from '../dist/observability/logger.js';
import { composeAdministration } from '../dist/services.js';
import { sessionHandle } from '../dist/store/session-records.js';
import { bounded, percentile, progress } from './bench-run.js';
import { CLIENT_ID, newSecrets, startCloakroom, writeConfig } from './cloakroom.js';
import { logIn } from './logins.js';
import { startScript, stop } from './processes.js';
import { startProvider } from './provider.js';
import { startRedis } from './redis.js';

const USAGE = `Usage: npm run bench -- logout [options]

Ends sessions one after the other as the command line and the admin listener do, while each replica is asked for one more
request again and again, and prints how long it took until every replica had refused, beside the round trip of a bare
PING to the same Redis in the same run.

  --ends N       sessions to end (default 1000)
  --replicas N   (default 4)
  --help         this text
`;

/**
 * @param {string[]} args
 * @returns {Promise<number>} exit code
 */
export async function run(args) {
  const { values } = parseArgs({
    args,
    options: {
      ends: { type: 'string', default: '1000' },
      replicas: { type: 'string', default: '4' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const ends = Number(values.ends);
  const replicas = Number(values.replicas);
  if (!(ends >= 1 && ends <= 50_000 && replicas >= 1 && replicas <= 16)) {
    process.stderr.write(USAGE);
    return 1;
  }
  return bounded(120 + ends / 5, ({ folder, later }) => measure(folder, later, ends, replicas));
}

/**
 * @param {string} folder
 * @param {(close: () => unknown) => void} later
 * @param {number} ends
 * @param {number} count
 */
async function measure(folder, later, ends, count) {
  const provider = await startProvider({ clientId: CLIENT_ID });
  later(() => provider.close());
  const redis = await startRedis(folder);
  later(redis.close);
  const upstream = await startScript('upstream.js', ['64']);
  later(() => stop(upstream.child));
  const secrets = newSecrets();
  const parts = {
    ...{ folder, redis, secrets, behindTls: false, nodeOptions: [] },
    issuer: provider.issuer,
    upstream: `http://127.0.0.1:${String(upstream.message.port)}`,
  };
  /** @type {string[]} */
  const origins = [];
  for (let i = 0; i < count; i += 1) {
    const replica = await startCloakroom(parts);
    later(() => stop(replica.child));
    origins.push(replica.origin);
  }
  const administration = await administer(writeConfig({ ...parts, port: 1 }), {
    BENCH_REDIS: redis.url,
    ...secrets,
  });
  later(() => administration.store.close());
  const cookies = await logIn({
    origin: origins[0] ?? '',
    provider,
    count: ends,
    headers: [],
    progress: (done) => progress(`${String(done)} of ${String(ends)} people logged in`),
  });
  const bare = new Redis(redis.url);
  later(() => bare.disconnect());
  const pools = origins.map((origin) => new Pool(origin, { connections: 1 }));
  later(() => Promise.all(pools.map((pool) => pool.destroy())));

  /** @type {{ refused: number[], answered: number[], ping: number[] }} */
  const times = { refused: [], answered: [], ping: [] };
  for (const [done, cookie] of cookies.entries()) {
    if (done % 50 === 0) progress(`${String(done)} of ${String(ends)} sessions ended`);
    // Both under the same load: each replica has a request to answer.
    const alive = pools.map((pool) => ask(pool, cookie));
    const pinged = performance.now();
    await bare.ping();
    times.ping.push(performance.now() - pinged);
    for (const status of await Promise.all(alive)) {
      if (status !== 200) throw new Error(`a session that lives was answered with ${String(status)}`);
    }
    const from = performance.now();
    const act = administration.endings
      .end(
        { handle: handleOf(cookie) },
        { cause: 'operator', reason: 'bench', actor: { kind: 'operator', name: 'bench' } },
      )
      .then(({ ended }) => {
        if (ended !== 1) throw new Error(`${String(ended)} sessions ended instead of one`);
        times.answered.push(performance.now() - from);
      });
    const refusals = pools.map(async (pool) => {
      while ((await ask(pool, cookie)) !== 401);
      return performance.now() - from;
    });
    const [, ...moments] = await Promise.all([act, ...refusals]);
    times.refused.push(Math.max(.../** @type {number[]} */ (moments)));
  }
  progress('');
  report(times, count);
}

/**
 * @param {string} file
 * @param {Record<string, string>} env
 */
async function administer(file, env) {
  const loaded = loadConfig({ file, env, cwd: process.cwd() });
  if ('faults' in loaded) throw new Error(JSON.stringify(loaded.faults));
  const administration = composeAdministration(
    loaded.config,
    new Logger('error', { write: () => undefined }),
  );
  for (let attempt = 0; ; attempt += 1) {
    try {
      await administration.store.ping();
      return administration;
    } catch (error) {
      if (attempt > 200) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

/**
 * @param {Pool} pool
 * @param {string} cookie
 */
async function ask(pool, cookie) {
  const answer = await pool.request({
    path: '/api/orders',
    method: 'GET',
    headers: { cookie, 'x-csrf': '1', 'sec-fetch-site': 'same-origin' },
  });
  await answer.body.dump();
  return answer.statusCode;
}

/** @param {string} cookie */
function handleOf(cookie) {
  const id = /session=s(?::|%3A)([A-Za-z0-9_-]{43})\./.exec(cookie)?.[1] ?? '';
  return sessionHandle(Buffer.from(id, 'base64url'));
}

/**
 * @param {{ refused: number[], answered: number[], ping: number[] }} times
 * @param {number} replicas
 */
function report({ refused, answered, ping }, replicas) {
  console.log(
    `Node ${process.version}, ${String(cpus().length)} CPUs; ${String(refused.length)} sessions ended, ` +
      `${String(replicas)} replicas asked without a pause\n`,
  );
  const row = (/** @type {string} */ name, /** @type {number[]} */ values) => {
    const [p50, p99] = [percentile(values, 0.5), percentile(values, 0.99)];
    console.log(
      `${name.padEnd(44)} p50 ${p50.toFixed(2).padStart(8)} ms   p99 ${p99.toFixed(2).padStart(8)} ms`,
    );
  };
  row('forced logout to refusal on every replica', refused);
  row('forced logout to its own answer', answered);
  row('bare Redis round trip (PING)', ping);
  const ratio = (/** @type {number} */ share) => percentile(refused, share) / percentile(ping, share);
  console.log(
    `\nrefusal everywhere / bare round trip: p50 ${ratio(0.5).toFixed(1)}, p99 ${ratio(0.99).toFixed(1)}`,
  );
}
