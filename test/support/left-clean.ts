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
  // Jest runs the closing of everything before a file's own `afterAll`: what Redis held was noted then.
  const lifetimes =
    room.keysAtClose ?? (await room.redis?.lifetimes(`${room.prefix}:*`)) ?? new Map<string, number>();
  const endless = [...lifetimes].filter(([, left]) => left < 0 || left > longest);
  expect(endless).toEqual([]);
}
