import { describe, expect, test } from '@jest/globals';
import { safeReturnTo } from './return-to.js';

const ORIGIN = 'https://app.example.com';

describe('safeReturnTo', () => {
  test.each([
    ['/', '/'],
    ['/orders', '/orders'],
    ['/orders/', '/orders/'],
    ['/orders?page=2&sort=a%20b', '/orders?page=2&sort=a%20b'],
    ['/orders#line-3', '/orders#line-3'],
    ['/a/./b/../c', '/a/c'],
    ['/search?q=https://evil.example/', '/search?q=https://evil.example/'],
    ['/search?next=//evil.example', '/search?next=//evil.example'],
    ['/@evil.example', '/@evil.example'],
    ['/grüße', '/gr%C3%BC%C3%9Fe'],
    ['/authors', '/authors'],
    ['/api/auth/', '/api/auth/'],
  ])('A-002 keeps %s of our own origin as %s', (value, expected) => {
    expect(safeReturnTo(value, ORIGIN)).toBe(expected);
  });

  test.each([
    undefined,
    '',
    ' ',
    'orders',
    '?a=b',
    '#a',
    '.',
    '..',
    './orders',
    '@evil.example',
    '//evil.example',
    '///evil.example',
    '/\\evil.example',
    '\\/evil.example',
    '\\\\evil.example',
    '/\t/evil.example',
    '/\n/evil.example',
    '/\r/evil.example',
    '\t//evil.example',
    ' //evil.example',
    '/ /evil.example',
    '/\u0000/evil.example',
    '/\u007f',
    '/a//b',
    '/%2F/evil.example',
    '/%5Cevil.example',
    '/%61uth/logout',
    '/.//evil.example',
    '/..//evil.example',
    '/a/..//evil.example',
    '/a/b/../..//evil.example',
    '/%2e//evil.example',
    '/%2e%2e//evil.example',
    '/a/%2E%2E//evil.example',
    'https://evil.example/',
    'https:evil.example',
    'https:/evil.example',
    'http://app.example.com/',
    'https://app.example.com/orders',
    'https://app.example.com.evil.example/',
    'https://app.example.com@evil.example/',
    'javascript:alert(1)',
    'data:text/html,x',
    'blob:https://app.example.com/x',
    `/${'x'.repeat(2048)}`,
  ])('A-002 makes %j "/"', (value) => {
    expect(safeReturnTo(value, ORIGIN)).toBe('/');
  });

  test.each([
    '/auth',
    '/auth/',
    '/auth/logout',
    '/auth/login?x',
    '/auth/../auth/me',
    '/x/../auth/callback',
    '/auth?x',
    '/auth#x',
  ])('A-002 does not lead back to our own endpoint %s', (value) => {
    expect(safeReturnTo(value, ORIGIN)).toBe('/');
  });

  test('A-002 whatever it is given, a browser that follows the answer stays on our origin', () => {
    const pieces = [
      '/',
      '\\',
      '.',
      '..',
      '%2e',
      '%2f',
      '%5c',
      ':',
      '@',
      '?',
      '#',
      ';',
      '\t',
      ' ',
      'https',
      'evil.example',
      'é',
      '。',
      '／',
      'auth',
    ];
    const combine = (depth: number): string[] =>
      depth === 0 ? [''] : combine(depth - 1).flatMap((rest) => pieces.map((piece) => piece + rest));
    for (const value of [...combine(1), ...combine(2), ...combine(3), ...combine(4)]) {
      const answer = safeReturnTo(value, ORIGIN);
      const followed = new URL(answer, `${ORIGIN}/auth/callback`);
      if (followed.origin !== ORIGIN || !answer.startsWith('/') || answer.startsWith('//')) {
        throw new Error(`${JSON.stringify(value)} became ${JSON.stringify(answer)}`);
      }
    }
  });

  test('A-002 what it answers it would answer again', () => {
    for (const value of ['/a/../b?c#d', '/grüße', '/a b', '//x', '/%2e/a', '/a/;b']) {
      const once = safeReturnTo(value, ORIGIN);
      expect(safeReturnTo(once, ORIGIN)).toBe(once);
    }
  });
});
