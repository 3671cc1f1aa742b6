// @ts-check
// `npm run soak`: the promises of the product at their full size, one scenario a file. `npm run soak -- A-079 B-02` runs
// those scenarios, `npm run soak -- websockets` those of that name; `npm run soak -- --list` names them.
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Minutes for everything together; each scenario has a limit of its own. */
const LONGEST = 120;

const folder = dirname(fileURLToPath(import.meta.url));
const repository = join(folder, '..');
const scenarios = readdirSync(folder)
  .filter((name) => name.endsWith('.soak.ts'))
  .sort();

/** @param {string} text */
function fail(text) {
  process.stderr.write(`soak: ${text}\n`);
  process.exit(1);
}

/**
 * `b-02-redis-killed.soak.ts` stands for B-02.
 *
 * @param {string} file
 */
const rowsOf = (file) => (file.match(/[ab]-\d+/g) ?? []).map((row) => row.toUpperCase());

const wanted = process.argv.slice(2);
if (wanted.includes('--list')) {
  for (const file of scenarios) process.stdout.write(`${rowsOf(file).join(' ')}  soak/${file}\n`);
  process.exit(0);
}
/**
 * @param {string} file
 * @param {string} word a row, or a part of the name
 */
const isMeant = (file, word) =>
  rowsOf(file).includes(word.toUpperCase()) || file.includes(word.toLowerCase());
const unknown = wanted.filter((word) => !scenarios.some((file) => isMeant(file, word)));
if (unknown.length > 0)
  fail(`no scenario for ${unknown.join(', ')}; there are ${scenarios.flatMap(rowsOf).join(', ')}`);
const chosen = scenarios.filter((file) => wanted.length === 0 || wanted.some((word) => isMeant(file, word)));

if (process.env.CLOAKROOM_TEST_REDIS_SERVER === undefined) {
  if (spawnSync('redis-server', ['--version']).status !== 0) fail('redis-server must be on PATH');
}
const nest = join(repository, 'node_modules', '@nestjs', 'cli', 'bin', 'nest.js');
if (spawnSync(process.execPath, [nest, 'build'], { cwd: repository, stdio: 'inherit' }).status !== 0) {
  fail('the build failed');
}

const given = process.env.SEED;
const seed = given === undefined || given === '' ? String(Math.floor(Math.random() * 0xffff_ffff)) : given;
const run = mkdtempSync(join(tmpdir(), 'cloakroom-soak-'));
process.stdout.write(`Node ${process.version}\nSEED=${seed}\n`);

const jest = spawn(
  process.execPath,
  [
    ...['--experimental-vm-modules', '--disable-warning=ExperimentalWarning', '--max-old-space-size=6144'],
    join(repository, 'node_modules', 'jest', 'bin', 'jest.js'),
    ...['--config', join(folder, 'jest.config.js'), '--runInBand', '--forceExit', '--runTestsByPath'],
    ...chosen.map((file) => join(folder, file)),
  ],
  {
    cwd: repository,
    stdio: 'inherit',
    env: { ...process.env, CLOAKROOM_TEST_RUN_DIR: run, SEED: seed },
  },
);
// What the scenarios started ends with this process: see guard() in test/support/lifetime.ts.
const tooLong = setTimeout(() => {
  process.stderr.write(`soak: not done after ${String(LONGEST)} minutes; giving up\n`);
  jest.kill('SIGKILL');
}, LONGEST * 60_000);
for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM'])) {
  process.on(signal, () => jest.kill(signal));
}
jest.on('error', (error) => fail(`jest did not start: ${error.message}`));
jest.on('close', (code) => {
  clearTimeout(tooLong);
  if (code === 0) rmSync(run, { recursive: true, force: true });
  else process.stderr.write(`logs and configurations of this run: ${run}\n`);
  process.exit(code === 0 ? 0 : 1);
});
