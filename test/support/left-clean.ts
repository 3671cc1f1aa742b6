import { expect } from '@jest/globals';
import type { Cloakroom } from './cloakroom.js';
import { describeFinding } from './tap.js';

/**
 * What must hold when the tests of a file are over: no secret in what browsers and logs saw, and no key in Redis without
 * an end.
 *
 * @param longest milliseconds; no key may live longer
 */
export async function expectLeftClean(room: Cloakroom, longest = 12 * 3600 * 1000): Promise<void> {
  const { findings } = await room.search();
  expect(findings.map(describeFinding)).toEqual([]);
  const { redis } = room;
  if (redis === undefined || !redis.running) return;
  const endless: string[] = [];
  for (const key of await redis.keys(`${room.prefix}:*`)) {
    const left = Number(await redis.command('PTTL', key));
    // -2: it ended between the two commands.
    if (left !== -2 && (left < 0 || left > longest)) endless.push(`${key} lives for ${String(left)} ms`);
  }
  expect(endless).toEqual([]);
}
