import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from '@jest/globals';
import { doneWithin } from './patience.js';

test('work that is done in time is waited for', async () => {
  let done = false;
  const work = sleep(5).then(() => (done = true));
  expect(await doneWithin(10_000, work, fail)).toBe(true);
  expect(done).toBe(true);
});

test('work that takes longer goes on, and its late failure is told', async () => {
  const told = new Promise((resolve) => {
    const work = sleep(20).then(() => Promise.reject(new Error('late')));
    void doneWithin(1, work, resolve).then((done) => {
      expect(done).toBe(false);
    });
  });
  expect(await told).toEqual(new Error('late'));
});

test('a failure in time is thrown, and not told twice', async () => {
  await expect(doneWithin(10_000, Promise.reject(new Error('early')), fail)).rejects.toThrow('early');
});

function fail(): never {
  throw new Error('nothing was late');
}
