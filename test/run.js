// `npm test`: finds what the tests need, builds, runs jest with the same Node, and cleans up.
import { spawn, spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const repository = join(dirname(fileURLToPath(import.meta.url)), '..');
const [major, minor] = process.versions.node.split('.').map(Number);

if (major < 20 || (major === 20 && minor < 19)) {
  fail(`the tests need Node 20.19 or newer; this is ${process.version}`);
}

function say(text) {
  process.stdout.write(`${text}\n`);
}

function fail(text) {
  process.stderr.write(`${text}\n`);
  process.exit(1);
}

function onPath(...names) {
  for (const name of names) {
    for (const folder of (process.env.PATH ?? '').split(delimiter)) {
      if (folder === '') continue;
      const file = join(folder, name);
      try {
        accessSync(file, constants.X_OK);
        return file;
      } catch {
        continue;
      }
    }
  }
  return undefined;
}

function run(command, args, options = {}) {
  return spawnSync(command, args, { encoding: 'utf8', timeout: 300_000, ...options });
}

let aptIsFresh = false;

function aptInstall(name) {
  if (process.getuid?.() !== 0 || onPath('apt-get') === undefined) return false;
  const options = {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  };
  say(`installing ${name} with apt-get`);
  if (!aptIsFresh) run('apt-get', ['update', '-q'], options);
  aptIsFresh = true;
  return run('apt-get', ['install', '-y', '-q', '--no-install-recommends', name], options).status === 0;
}

const cleanups = [];

function cleanUp() {
  for (const clean of cleanups.splice(0).reverse()) clean();
}

function dockerRedis() {
  const docker = onPath('docker');
  if (docker === undefined || run(docker, ['info'], { timeout: 10_000 }).status !== 0) return undefined;
  const started = run(docker, ['run', '-d', '--rm', '-p', '127.0.0.1::6379', 'redis:7-alpine']);
  if (started.status !== 0) return undefined;
  const id = started.stdout.trim();
  cleanups.push(() => run(docker, ['rm', '-f', id], { timeout: 30_000 }));
  const port = /:(\d+)\s*$/m.exec(run(docker, ['port', id, '6379/tcp']).stdout)?.[1];
  return port === undefined ? undefined : `redis://127.0.0.1:${port}`;
}

/** REDIS_URL, a binary, Docker, apt: the first that is there. Fault tests need a binary, whatever comes first. */
function findRedis(environment) {
  const url = process.env.REDIS_URL;
  let binary = process.env.CLOAKROOM_TEST_REDIS_SERVER ?? onPath('redis-server');
  if (url !== undefined && url !== '') {
    environment.CLOAKROOM_TEST_REDIS_URL = url;
    say(
      binary === undefined
        ? 'Redis: REDIS_URL; tests that kill or freeze Redis are skipped (no redis-server on PATH)'
        : `Redis: REDIS_URL, and ${binary} for tests that kill, freeze or configure it`,
    );
  } else if (binary !== undefined) {
    say(`Redis: ${binary} (private processes)`);
  } else {
    const container = dockerRedis();
    if (container !== undefined) {
      environment.CLOAKROOM_TEST_REDIS_URL = container;
      say(`Redis: Docker, ${container}; tests that kill or freeze Redis are skipped`);
    } else if (aptInstall('redis-server')) {
      binary = onPath('redis-server');
      say(`Redis: ${binary} (just installed)`);
    }
  }
  if (binary !== undefined) environment.CLOAKROOM_TEST_REDIS_SERVER = binary;
  if (binary === undefined && environment.CLOAKROOM_TEST_REDIS_URL === undefined) {
    fail(
      'no Redis: set REDIS_URL, put redis-server on PATH, start Docker, or run as root where apt-get can install it',
    );
  }
}

function findChromium(environment) {
  const names = ['chromium', 'chromium-browser', 'google-chrome'];
  let found = process.env.CHROMIUM_PATH ?? onPath(...names);
  if (found === undefined && aptInstall('chromium')) found = onPath(...names);
  if (found === undefined) {
    fail('no Chromium: set CHROMIUM_PATH, install chromium, or run as root where apt-get can install it');
  }
  say(`Chromium: ${found}`);
  environment.CLOAKROOM_TEST_CHROMIUM = found;
}

/** Gateways, on PATH or by apt. The tests behind one that is not there are skipped. */
function findGateway(environment, name, variable, packages) {
  // Where root finds it, and others often have no such folder on their PATH.
  const usual = `/usr/sbin/${name}`;
  const find = () => onPath(name) ?? (existsSync(usual) ? usual : undefined);
  const found = process.env[`${variable}_PATH`] ?? find() ?? (packages.some(aptInstall) ? find() : undefined);
  if (found === undefined) {
    say(
      `${name}: none; its tests are skipped (put ${name} on PATH, set ${variable}_PATH, or run as root where apt-get can install it)`,
    );
    return;
  }
  say(`${name}: ${found} (private processes)`);
  environment[`CLOAKROOM_TEST_${variable}`] = found;
}

function build() {
  say('Build: nest build');
  const nest = join(repository, 'node_modules', '@nestjs', 'cli', 'bin', 'nest.js');
  const built = run(process.execPath, [nest, 'build'], { cwd: repository, stdio: 'inherit' });
  if (built.status !== 0) {
    cleanUp();
    fail('the build failed');
  }
}

const folder = mkdtempSync(join(tmpdir(), 'cloakroom-test-'));
const given = process.env.SEED;
const seed = given === undefined || given === '' ? String(Math.floor(Math.random() * 0xffff_ffff)) : given;
const environment = { CLOAKROOM_TEST_RUN_DIR: folder, SEED: seed };

say(`Node ${process.version}`);
findRedis(environment);
findChromium(environment);
findGateway(environment, 'nginx', 'NGINX', ['nginx-light', 'nginx']);
findGateway(environment, 'caddy', 'CADDY', ['caddy']);
build();
say(`SEED=${seed}`);

const jest = spawn(
  process.execPath,
  [
    '--experimental-vm-modules',
    '--disable-warning=ExperimentalWarning',
    join(repository, 'node_modules', 'jest', 'bin', 'jest.js'),
    ...process.argv.slice(2),
  ],
  {
    cwd: repository,
    stdio: 'inherit',
    // Children of the tests find the same Node first, too.
    env: {
      ...process.env,
      ...environment,
      PATH: `${dirname(process.execPath)}${delimiter}${process.env.PATH ?? ''}`,
    },
  },
);

for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => jest.kill(signal));

jest.on('error', (error) => {
  cleanUp();
  fail(`jest did not start: ${error.message}`);
});
jest.on('close', (code, signal) => {
  cleanUp();
  if (code === 0) rmSync(folder, { recursive: true, force: true });
  else process.stderr.write(`logs, recordings and configurations of this run: ${folder}\n`);
  process.exit(code ?? (signal === 'SIGINT' ? 130 : 143));
});
