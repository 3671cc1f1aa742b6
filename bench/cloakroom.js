// @ts-check
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { freePort, startProgram } from './processes.js';

const READY_WITHIN = 15_000;
/** Lines of its log, so that one bad moment does not bury the result. */
const TOLD_AT_MOST = 5;
const CLIENT_ID = 'bench';

export { CLIENT_ID };

/**
 * Cloakroom as it runs in real life: the command, a configuration file, secrets from the environment.
 *
 * @param {object} parts
 * @param {string} parts.folder
 * @param {string} parts.issuer
 * @param {string} parts.upstream
 * @param {{ url: string, prefix: string }} parts.redis
 * @param {boolean} parts.behindTls
 * @param {string[]} parts.nodeOptions
 * @param {Record<string, unknown>} [parts.route] further settings of the route
 * @param {Record<string, string>} [parts.secrets] the same for replicas of one installation
 */
export async function startCloakroom(parts) {
  const { folder, redis, nodeOptions, secrets = newSecrets() } = parts;
  const port = await freePort();
  const origin = `http://127.0.0.1:${String(port)}`;
  const file = writeConfig({ ...parts, port });
  const child = startProgram(
    process.execPath,
    [
      ...nodeOptions,
      fileURLToPath(new URL('../bin/cloakroom.js', import.meta.url)),
      'start',
      '--config',
      file,
    ],
    { cwd: folder, env: { BENCH_REDIS: redis.url, ...secrets } },
  );
  await listening(child);
  await ready(origin);
  return { child, pid: child.pid ?? 0, origin };
}

/** What the configuration takes from the environment, beside the place of Redis. */
export function newSecrets() {
  const names = ['BENCH_COOKIE', 'BENCH_SEAL', 'BENCH_REVOCATION', 'BENCH_CLIENT_SECRET'];
  return Object.fromEntries(names.map((name) => [name, randomBytes(32).toString('base64url')]));
}

/**
 * @param {object} parts
 * @param {string} parts.folder
 * @param {string} parts.issuer
 * @param {string} parts.upstream
 * @param {{ prefix: string }} parts.redis
 * @param {number} parts.port
 * @param {boolean} [parts.behindTls]
 * @param {string} [parts.commandTimeout]
 * @param {Record<string, unknown>} [parts.route] further settings of the route
 * @param {boolean} [parts.revocation] refresh tokens are put away for their revocation
 * @returns {string} path of the file
 */
export function writeConfig({
  folder,
  issuer,
  upstream,
  redis,
  port,
  behindTls = false,
  revocation = false,
  route = {},
  commandTimeout = '250ms',
}) {
  const origin = `http://127.0.0.1:${String(port)}`;
  const config = {
    publicUrl: behindTls ? 'https://app.example.com' : origin,
    listen: { host: '127.0.0.1', port, trustedProxies: behindTls ? ['127.0.0.1', '10.0.0.0/8'] : [] },
    // All the load comes from one address.
    rateLimits: { login: 'off', callback: 'off' },
    store: { redis: { url: { env: 'BENCH_REDIS' }, prefix: redis.prefix, commandTimeout } },
    secrets: {
      cookie: [{ env: 'BENCH_COOKIE' }],
      seal: [{ env: 'BENCH_SEAL' }],
      ...(revocation ? { revocation: [{ env: 'BENCH_REVOCATION' }] } : {}),
    },
    providers: {
      main: {
        issuer,
        clientId: CLIENT_ID,
        clientSecret: { env: 'BENCH_CLIENT_SECRET' },
        scopes: ['openid', 'profile', 'email', 'offline_access'],
      },
    },
    routes: [{ path: '/api/', upstream, ...route }],
    log: { level: 'info' },
    shutdown: { delay: '0s', drain: '1s' },
  };
  const file = join(folder, `cloakroom-${String(port)}.yaml`);
  // JSON is YAML.
  writeFileSync(file, JSON.stringify(config, null, 2));
  return file;
}

/**
 * It listens before it has reached Redis and the provider.
 *
 * @param {string} origin
 */
async function ready(origin) {
  const deadline = performance.now() + READY_WITHIN;
  while (performance.now() < deadline) {
    const response = await fetch(`${origin}/readyz`);
    const { status } = /** @type {{ status?: string }} */ (await response.json());
    if (response.ok && status === 'ok') return;
    await sleep(50);
  }
  throw new Error('Cloakroom did not get ready in time');
}

/** @param {import('node:child_process').ChildProcess} child */
function listening(child) {
  let told = 0;
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('Cloakroom did not start in time')), READY_WITHIN);
    child.once('exit', (code) => {
      clearTimeout(timer);
      reject(new Error(`Cloakroom ended early (exit code ${String(code)})`));
    });
    // Read to the end: a pipe that nobody reads would stop the process in the middle of the measurement.
    createInterface({ input: /** @type {import('node:stream').Readable} */ (child.stdout) }).on(
      'line',
      (line) => {
        if (line.includes('"event":"listening"')) {
          clearTimeout(timer);
          resolve(undefined);
        } else if (told < TOLD_AT_MOST && /"level":"(?:warn|error)"/.test(line)) {
          told += 1;
          console.error(`Cloakroom: ${line.slice(0, 500)}`);
        }
      },
    );
  });
}
