import { describe, expect, test } from '@jest/globals';
import { canonicalTarget } from './canonical-path.js';

const pathOf = (target: string): unknown => {
  const result = canonicalTarget(target);
  return typeof result === 'string' ? result : `${result.path}${result.query}`;
};

describe('a target is forwarded as it is', () => {
  test.each([
    '/',
    '/api/',
    '/api/x',
    '/api/x/',
    "/api/a-b_c~d!e$f&g'h(i)j*k+l,m=n:o@p",
    '/api/.well-known/x',
    '/api/...',
    '/api/x..',
    '/api/..x',
    '/api/x;v=1/y;w',
    '/api/%20',
    '/api/100%25',
    '/api/%E2%82%AC',
    '/api/%3Cx%3E',
    '/api/x?a=%2e%2e/../%2F//&b=<>"{}|\\^`',
    '/api/x?',
    '/api/x??',
  ])('%s', (target) => {
    expect(pathOf(target)).toBe(target);
  });
});

describe('spellings of one path become one', () => {
  test.each([
    ['/%61pi/x', '/api/x'],
    ['/api/%7e', '/api/~'],
    ['/api/%2Ehidden', '/api/.hidden'],
    ['/api/%e2%82%ac', '/api/%E2%82%AC'],
    ['/api/a%2Db', '/api/a-b'],
    ['/api/%3bx', '/api/%3Bx'],
  ])('%s is %s', (target, canonical) => {
    expect(pathOf(target)).toBe(canonical);
  });
});

describe('what two servers could read differently is refused', () => {
  test.each([
    ...['', 'api/x', '*', 'x:80', '//', '//x', '/api//x', '/api/x//', '/%2F/x', '/api/a%2Fb', '/api/a%2fb'],
    ...['/.', '/..', '/./', '/../', '/api/.', '/api/..', '/api/./x', '/api/../x', '/api/x/../../y'],
    ...[
      '/api/%2e',
      '/api/%2E%2e/x',
      '/api/.%2e/x',
      '/api/%2e./x',
      '/api/..;/x',
      '/api/..;a=b/x',
      '/api/.;/x',
    ],
    ...['/api/..%3B/x', '/api/%2e%2e%3b/x', '/api/..%5Cx', '/api/..%5cx', '/api\\x', '/api/\\..\\x'],
    ...['/api/%00', '/api/x%00.js', '/api/%0a', '/api/%0D%0A', '/api/%1f', '/api/%7F', '/api/%09'],
    ...['/api/%', '/api/%2', '/api/%zz', '/api/%%30%30', '/api/%u002e', '/api/%2%65', '/api/%-1'],
    ...['/api/%252e', '/api/%252e%252e/x', '/api/%25%32%65', '/api/%252F', '/api/%255c', '/api/%25zz%252e'],
    ...[
      '/api/%c0%af',
      '/api/%c0%ae',
      '/api/%e0%80%af',
      '/api/%80',
      '/api/%ff',
      '/api/%ed%a0%80',
      '/api/%e2%82',
    ],
    ...['/api/\u00e9', '/api/\u20ac', '/api/ x', '/api/\tx', '/api/<x>', '/api/"x"', '/api/{x}', '/api/a|b'],
    ...[
      '/api/a^b',
      '/api/`',
      '/api/x#y',
      '/api/x?y#z',
      '/api/x?\u00e9',
      '/api/x?a b',
      '/api/x?\u0000',
      '/api/[x]',
    ],
  ])('%j', (target) => {
    expect(canonicalTarget(target)).toBe('malformed');
  });
});

test('a target of 8 KiB is served, one byte more is too long', () => {
  expect(pathOf(`/${'x'.repeat(8191)}`)).toHaveLength(8192);
  expect(pathOf(`/${'x'.repeat(8192)}`)).toBe('too-long');
  expect(pathOf(`/x?${'y'.repeat(8190)}`)).toBe('too-long');
});

test('a canonical path is its own canonical form, whatever it came from', () => {
  const pieces = [
    '/',
    'a',
    '.',
    '%2e',
    '%2F',
    '%25',
    '2e',
    ';',
    '%3b',
    '%C3%A9',
    '%41',
    '\\',
    '%',
    '~',
    '%7E',
  ];
  // Every sequence of four: small enough to try them all.
  for (const a of pieces)
    for (const b of pieces)
      for (const c of pieces)
        for (const d of pieces) {
          const result = canonicalTarget(`/${a}${b}${c}${d}`);
          if (typeof result === 'string') continue;
          expect(canonicalTarget(result.path)).toEqual(result);
          const segments = decodeURIComponent(result.path).split('/');
          expect(segments.some((segment) => /^\.\.?(;|$)/.test(segment))).toBe(false);
        }
});
