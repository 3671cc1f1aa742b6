// @ts-check
import { randomBytes } from 'node:crypto';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { freePort, startProgram, stop } from './processes.js';

const READY_WITHIN = 5000;

/**
 * The Redis of `REDIS_URL`, or a private one that keeps nothing on disk.
 *
 * @param {string} folder
 * @returns {Promise<{ url: string, prefix: string, pid: number | undefined, close: () => Promise<void> }>}
 */
export async function startRedis(folder) {
  const prefix = `bench-${randomBytes(6).toString('hex')}`;
  const given = process.env['REDIS_URL'];
  if (given) return { url: given, prefix, pid: undefined, close: () => removeKeys(given, prefix) };

  const binary = onPath('redis-server');
  if (binary === undefined) throw new Error('no Redis: set REDIS_URL, or install redis-server');
  const port = await freePort();
  const url = `redis://127.0.0.1:${String(port)}`;
  const child = startProgram(binary, [
    ...['--port', String(port), '--bind', '127.0.0.1', '--dir', folder],
    ...['--save', '', '--appendonly', 'no', '--loglevel', 'warning'],
  ]);
  child.stdout?.resume();
  await ready(url);
  return { url, prefix, pid: child.pid, close: () => stop(child) };
}

/** @param {string} url */
async function ready(url) {
  const redis = new Redis(url, { retryStrategy: () => 50 });
  redis.on('error', () => undefined);
  try {
    const late = sleep(READY_WITHIN, 'late', { ref: false });
    if ((await Promise.race([redis.ping(), late])) === 'late') throw new Error('redis-server did not start');
  } finally {
    redis.disconnect();
  }
}

/**
 * @param {string} url
 * @param {string} prefix
 */
async function removeKeys(url, prefix) {
  const redis = new Redis(url);
  try {
    for await (const keys of redis.scanStream({ match: `${prefix}:*`, count: 1000 })) {
      if (keys.length > 0) await redis.unlink(keys);
    }
  } finally {
    redis.disconnect();
  }
}

/** @param {string} name */
function onPath(name) {
  for (const folder of (process.env['PATH'] ?? '').split(delimiter)) {
    if (folder === '') continue;
    const file = join(folder, name);
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      continue;
    }
  }
  return undefined;
}
