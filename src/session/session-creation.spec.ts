import { expect, test } from '@jest/globals';
import { makeSessions } from '../../test/support/made-sessions.js';

test('A-049 10,000 new sessions have 10,000 ids of 32 bytes, all bits of which vary', async () => {
  const seen = new Set<string>();
  const ones = new Uint32Array(256);
  const total = 10_000;
  await makeSessions(total, (secret) => {
    expect(secret).toHaveLength(32);
    seen.add(secret.toString('base64url'));
    for (let bit = 0; bit < 256; bit += 1) {
      ones[bit] = (ones[bit] ?? 0) + (((secret[bit >> 3] ?? 0) >> (bit & 7)) & 1);
    }
  });
  expect(seen.size).toBe(total);
  // 8 standard deviations: a fixed or biased bit is far outside, chance never.
  const spread = 8 * Math.sqrt(total / 4);
  for (const count of ones) expect(Math.abs(count - total / 2)).toBeLessThan(spread);
});
