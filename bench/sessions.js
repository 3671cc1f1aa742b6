// @ts-check
// `npm run bench -- sessions`: what it takes to list and to end very many sessions.
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { Redis } from 'ioredis';
import { bounded, progress } from './bench-run.js';
import { newSecrets, writeConfig } from './cloakroom.js';
import { messageFrom, startScript, stop } from './processes.js';
import { startRedis } from './redis.js';

const USAGE = `Usage: npm run bench -- sessions [options]

Writes sessions with the code that logins use, then lists and ends them, each act in a process of its own as an
operator's command is, and prints time, peak memory of that process, and what Redis needs for a session.

  --sessions N   (default 100000)
  --each N       sessions a person has (default 10)
  --help         this text
`;

/** Sessions a second that even a slow machine writes. */
const SLOWEST = 400;

/**
 * @param {string[]} args
 * @returns {Promise<number>} exit code
 */
export async function run(args) {
  const { values } = parseArgs({
    args,
    options: {
      sessions: { type: 'string', default: '100000' },
      each: { type: 'string', default: '10' },
      help: { type: 'boolean', short: 'h', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const [sessions, each] = [Number(values.sessions), Number(values.each)];
  if (!(sessions >= 100 && sessions <= 2_000_000 && each >= 1 && each <= sessions)) {
    process.stderr.write(USAGE);
    return 1;
  }
  return bounded(120 + (2 * sessions) / SLOWEST, ({ folder, later }) =>
    measure(folder, later, sessions, each),
  );
}

/**
 * @param {string} folder
 * @param {(close: () => unknown) => void} later
 * @param {number} sessions
 * @param {number} each
 */
async function measure(folder, later, sessions, each) {
  const redis = await startRedis(folder);
  later(redis.close);
  const issuer = 'http://127.0.0.1:1';
  // What is measured is work, not how a busy machine keeps it waiting.
  const settings = { revocation: true, commandTimeout: '5s' };
  const file = writeConfig({ folder, issuer, upstream: issuer, redis, port: 1, ...settings });
  Object.assign(process.env, { BENCH_REDIS: redis.url, ...newSecrets() });
  const client = new Redis(redis.url);
  later(() => client.disconnect());

  /**
   * @param {string} act
   * @param {unknown[]} args
   */
  const perform = async (act, ...args) => {
    const { child, message } = await startScript('administration.js', [file]);
    child.send({ act, args });
    const result = await messageFrom(child, `the process that is to ${act}`, sessions * 10 + 60_000);
    await stop(child);
    if (result.failed !== undefined) throw new Error(result.failed);
    return { ...result, before: message.memory };
  };

  progress('writing sessions');
  const empty = await memoryOf(client);
  const halves = Array.from({ length: 2 }, (_, i) => {
    const [from, to] = [Math.floor((sessions * i) / 2), Math.floor((sessions * (i + 1)) / 2)];
    return perform('seed', from, to, each);
  });
  await Promise.all(halves);
  const full = await memoryOf(client);

  console.log(
    `Node ${process.version}, ${String(cpus().length)} CPUs; ${String(sessions)} sessions, ${String(each)} each\n`,
  );
  const subject = 'person-000007';
  /** @type {[string, string, object, number][]} */
  const acts = [
    ["list one person's, by subject", 'list', { subject }, each],
    ["list one person's, by e-mail", 'list', { user: `${subject}@example.com` }, each],
    ["list everybody's", 'list', { all: true }, sessions],
    ["end one person's", 'end', { subject }, each],
    ["end everybody's", 'end', { all: true }, sessions - each],
  ];
  for (const [name, act, filter, expected] of acts) {
    progress(name);
    const { value, milliseconds, peak, before } = await perform(act, filter);
    progress('');
    if (value !== expected) throw new Error(`${name}: ${String(value)} instead of ${String(expected)}`);
    console.log(
      `${name.padEnd(32)} ${String(value).padStart(8)} sessions ${(milliseconds / 1000).toFixed(3).padStart(9)} s` +
        `   peak memory ${megabytes(peak)} (at rest ${megabytes(before)})`,
    );
  }
  const left = await client.eval(
    "local n = 0 for _, k in ipairs(redis.call('KEYS', ARGV[1])) do n = n + 1 end return n",
    0,
    `${redis.prefix}:*:session`,
  );
  if (left !== 0) throw new Error(`${String(left)} sessions are left`);
  console.log(
    `\nRedis: ${((full - empty) / sessions).toFixed(0)} bytes a session, index and envelope included ` +
      `(access token 1024, ID token 1000, refresh token 200 characters)`,
  );
}

/** @param {Redis} client */
async function memoryOf(client) {
  return Number(/used_memory:(\d+)/.exec(await client.info('memory'))?.[1]);
}

/** @param {number} bytes */
function megabytes(bytes) {
  return `${(bytes / 1024 / 1024).toFixed(0)} MiB`;
}
