import { expect, test } from '@jest/globals';
import { readArguments, shielded } from './arguments.js';

const HANDLE = `-v${'a'.repeat(41)}`;
const OPTIONS = { handle: { type: 'string' }, json: { type: 'boolean' } } as const;

test('a handle that begins like an option is a handle, wherever it stands', () => {
  const { values, positionals } = readArguments(shielded(['show', HANDLE, '--handle', HANDLE]), OPTIONS);
  expect([positionals, values.handle]).toEqual([['show', HANDLE], HANDLE]);
  expect(readArguments(shielded([`--handle=${HANDLE}`]), OPTIONS).values.handle).toBe(HANDLE);
  const twoDashes = `--${'b'.repeat(41)}`;
  expect(readArguments(shielded([twoDashes, '--json']), OPTIONS)).toMatchObject({
    positionals: [twoDashes],
    values: { json: true },
  });
});

test('what only looks like one is an option still', () => {
  expect(() => readArguments(shielded(['--handles']), OPTIONS)).toThrow("Unknown option '--handles'");
  expect(() => readArguments(shielded([`-v${'a'.repeat(40)}`]), OPTIONS)).toThrow();
});
