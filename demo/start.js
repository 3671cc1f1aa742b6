// @ts-check
// `npm run demo`: the provider and the API in this process, Cloakroom in one of its own, as it runs in real life.
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { startApi } from './api.js';
import { demoClient } from './client.js';
import { startProvider } from './provider.js';

const READY_WITHIN = 20_000;
const STOP_WITHIN = 6_000;
/** As many as cloakroom.yaml has; all lead to the one API. */
const ROUTES = 3;

const root = fileURLToPath(new URL('..', import.meta.url));
const port = portFrom('DEMO_PORT', 3000);
const providerPort = portFrom('DEMO_PROVIDER_PORT', 3001);
const apiPort = portFrom('DEMO_API_PORT', 3002);
const publicUrl = `http://localhost:${String(port)}`;
const issuer = `http://127.0.0.1:${String(providerPort)}`;
const upstream = `http://127.0.0.1:${String(apiPort)}`;

/** @type {import('node:child_process').ChildProcess | undefined} */
let cloakroom;
/** @type {(() => Promise<void>)[]} */
const closers = [];
let stopping = false;

for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM', 'SIGHUP'])) {
  process.on(signal, () => void stop(0));
}
process.on('uncaughtException', (error) => void fail(error.message));
// Whatever ends this process, Cloakroom is not left behind.
process.on('exit', () => cloakroom?.kill('SIGKILL'));

await main();

async function main() {
  await requireFree(port, ['127.0.0.1', '::1'], 'Cloakroom', 'DEMO_PORT');
  await requireFree(providerPort, ['127.0.0.1'], 'the identity provider', 'DEMO_PROVIDER_PORT');
  await requireFree(apiPort, ['127.0.0.1'], 'the API', 'DEMO_API_PORT');

  const clientId = 'cloakroom-demo';
  const clientSecret = randomBytes(32).toString('base64url');
  const audience = `${upstream}/`;
  const clients = [demoClient({ clientId, clientSecret, publicUrl })];
  const log = (/** @type {string} */ line) => console.error(line);
  closers.push((await startProvider({ port: providerPort, issuer, clients, audience, log })).close);
  closers.push((await startApi({ port: apiPort, issuer, audience })).close);

  cloakroom = spawn(process.execPath, ['bin/cloakroom.js', 'start', '--config', 'demo/cloakroom.yaml'], {
    cwd: root,
    env: environment(clientSecret),
    stdio: ['ignore', 'inherit', 'inherit'],
    // In a process group of its own, so that Ctrl-C reaches only this process, which then stops things in order.
    detached: true,
  });
  cloakroom.on('error', (error) => void fail(`Cloakroom could not be started: ${error.message}`));
  cloakroom.on('exit', (code, signal) => {
    const how = signal === null ? `exit code ${String(code)}` : signal;
    cloakroom = undefined;
    if (!stopping) void fail(`Cloakroom stopped by itself (${how}).`);
  });

  if (await ready()) {
    const where = process.env['REDIS_URL'] ? 'sessions in Redis' : 'sessions in memory';
    console.log(
      `Cloakroom demo: open ${publicUrl} and sign in as alice (password alice) or bob (password bob); ${where}, Ctrl-C stops it.`,
    );
  }
}

/** @param {string} clientSecret */
function environment(clientSecret) {
  // Settings meant for another Cloakroom would change this one, or be refused by it.
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('CLOAKROOM_'));
  /** @type {Record<string, string | undefined>} */
  const env = {
    ...Object.fromEntries(inherited),
    CLOAKROOM_DEMO_COOKIE: randomBytes(32).toString('base64url'),
    CLOAKROOM_DEMO_SEAL: randomBytes(32).toString('base64url'),
    CLOAKROOM_DEMO_REVOCATION: randomBytes(32).toString('base64url'),
    CLOAKROOM_DEMO_CLIENT_SECRET: clientSecret,
    CLOAKROOM_LOG__LEVEL: process.env['CLOAKROOM_LOG__LEVEL'] ?? 'warn',
    CLOAKROOM_PUBLIC_URL: publicUrl,
    CLOAKROOM_LISTEN__PORT: String(port),
    CLOAKROOM_PROVIDERS__MAIN__ISSUER: issuer,
  };
  for (let i = 0; i < ROUTES; i += 1) env[`CLOAKROOM_ROUTES__${String(i)}__UPSTREAM`] = upstream;
  const redis = process.env['REDIS_URL'];
  if (redis) {
    env['CLOAKROOM_STORE__REDIS__URL'] = redis;
    env['CLOAKROOM_STORE__REDIS__PREFIX'] = 'cloakroom-demo';
  }
  return env;
}

async function ready() {
  const deadline = Date.now() + READY_WITHIN;
  let last = 'no answer';
  while (Date.now() < deadline && !stopping) {
    try {
      const response = await fetch(`http://127.0.0.1:${String(port)}/readyz`, {
        signal: AbortSignal.timeout(2000),
      });
      const { status } = /** @type {{ status?: string }} */ (await response.json());
      if (response.ok) return !stopping;
      last = status ?? String(response.status);
    } catch {
      // Not listening yet.
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const hint = process.env['REDIS_URL'] ? ' Can the Redis of REDIS_URL be reached?' : '';
  await fail(`Cloakroom did not get ready in ${String(READY_WITHIN / 1000)} s (${last}).${hint}`);
  return false;
}

/** @param {number} code */
async function stop(code) {
  if (stopping) return;
  stopping = true;
  process.exitCode = code;
  const child = cloakroom;
  if (child !== undefined) {
    // Cloakroom first: it may still have a refresh token to revoke at the provider.
    const gone = new Promise((resolve) => child.once('exit', resolve));
    const patience = setTimeout(() => child.kill('SIGKILL'), STOP_WITHIN);
    child.kill('SIGTERM');
    await gone;
    clearTimeout(patience);
  }
  await Promise.all(closers.map((close) => close()));
  process.exit(code);
}

/** @param {string} message */
async function fail(message) {
  if (stopping) return;
  console.error(message);
  await stop(1);
}

/**
 * @param {string} name
 * @param {number} fallback
 */
function portFrom(name, fallback) {
  const text = process.env[name];
  if (text === undefined || text === '') return fallback;
  const number = Number(text);
  if (Number.isInteger(number) && number > 0 && number < 65_536) return number;
  console.error(`${name} must be a port number, it is "${text}".`);
  process.exit(1);
}

/**
 * @param {number} wanted
 * @param {string[]} hosts
 * @param {string} what
 * @param {string} variable
 */
async function requireFree(wanted, hosts, what, variable) {
  for (const host of hosts) {
    const code = await tryPort(wanted, host);
    // A machine without IPv6 has no ::1 that anybody else could have taken.
    if (code === undefined || (host === '::1' && code !== 'EADDRINUSE')) continue;
    const reason = code === 'EADDRINUSE' ? 'is already in use' : `cannot be used (${code})`;
    console.error(
      `Port ${String(wanted)} on ${host} ${reason}, and the demo needs it for ${what}. Stop the program that has it, or choose another port: ${variable}=${String(wanted + 1000)} npm run demo`,
    );
    process.exit(1);
  }
}

/**
 * @param {number} wanted
 * @param {string} host
 * @returns {Promise<string | undefined>} the error code, or undefined when the port is free
 */
function tryPort(wanted, host) {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', (/** @type {NodeJS.ErrnoException} */ error) => resolve(error.code ?? 'unknown'));
    probe.listen({ port: wanted, host, exclusive: true }, () => probe.close(() => resolve(undefined)));
  });
}
