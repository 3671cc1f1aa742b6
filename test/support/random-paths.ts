import type { Random } from './random.js';

const PIECES = [
  ...[
    '.',
    '..',
    '/',
    '//',
    '%2e',
    '%2F',
    '%5c',
    '\\',
    ';',
    '%00',
    '%25',
    '2e',
    'x',
    'admin',
    '%',
    '~',
    '%C3%A9',
  ],
  ...['?', '#', '@', ':', '%7E', '%41', 'é', '%3b', '*', '+', 'api', '%0d%0a', '%u002e'],
];

/** What no path may hold that reaches an upstream: parsers differ on what it means. */
export const AMBIGUOUS = /\/\.{1,2}(;|\/|$)|\/\/|\\|%2[EeFf]|%5[Cc]|%0|%[89][0-9a-f]|#|%25[0-9A-Fa-f]{2}/;

/** A request target of one of the prefixes and up to 7 pieces that make parsers disagree. */
export function randomPath(draw: Random, prefixes: readonly string[]): string {
  return draw.pick(prefixes) + Array.from({ length: draw.int(1, 7) }, () => draw.pick(PIECES)).join('');
}
