import { randomInt } from 'node:crypto';
import { mkdirSync, mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer } from 'node:net';

let counter = 0;

/** The folder all processes of one test run share. */
export function runFolder(): string {
  process.env['CLOAKROOM_TEST_RUN_DIR'] ??= mkdtempSync(join(tmpdir(), 'cloakroom-test-'));
  return process.env['CLOAKROOM_TEST_RUN_DIR'];
}

/** A folder of the run: `taps`, `logs`, `secrets` and `endpoints` are read by the search for leaked tokens. */
export function runSubfolder(name: 'taps' | 'logs' | 'secrets' | 'endpoints' | 'work'): string {
  const folder = join(runFolder(), name);
  mkdirSync(folder, { recursive: true });
  return folder;
}

/** A name no other worker uses in this run. */
export function uniqueName(stem: string): string {
  counter += 1;
  return `${stem}-${String(process.pid)}-${process.hrtime.bigint().toString(36)}-${String(counter)}`;
}

export function scratchFolder(stem: string): string {
  const folder = join(runSubfolder('work'), uniqueName(stem));
  mkdirSync(folder, { recursive: true });
  return folder;
}

/**
 * A loopback port that was free a moment ago. Below those that the kernel gives to outgoing connections, or one of them could
 * take it before it is listened on.
 */
export async function freePort(host = '127.0.0.1'): Promise<number> {
  for (;;) {
    const port = randomInt(12_000, 32_000);
    if (await isFree(port, host)) return port;
  }
}

async function isFree(port: number, host: string): Promise<boolean> {
  const server = createServer();
  const listens = await new Promise<boolean>((resolve) => {
    server.once('error', () => {
      resolve(false);
    });
    server.listen(port, host, () => {
      resolve(true);
    });
  });
  if (listens) await new Promise((resolve) => server.close(resolve));
  return listens;
}
