import { describe, expect, test } from '@jest/globals';
import { challenges } from './challenge.js';

const read = (value: string): unknown[] =>
  challenges(value).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]);

describe('A-069 challenges are read as RFC 9110 section 11.6.1 writes them', () => {
  test.each<[string, unknown[]]>([
    ['Bearer', [['bearer', {}]]],
    ['Bearer realm="a"', [['bearer', { realm: 'a' }]]],
    ['BEARER Realm=a, ERROR="b c"', [['bearer', { realm: 'a', error: 'b c' }]]],
    ['Bearer realm = "a" ,error\t=\tb', [['bearer', { realm: 'a', error: 'b' }]]],
    ['Bearer realm="a\\"b\\\\c", x=""', [['bearer', { realm: 'a"b\\c', x: '' }]]],
    ['Bearer realm="a, Bearer error=\\"x\\""', [['bearer', { realm: 'a, Bearer error="x"' }]]],
    [
      'Basic realm="a", Bearer error="b", max_age=5',
      [
        ['basic', { realm: 'a' }],
        ['bearer', { error: 'b', max_age: '5' }],
      ],
    ],
    [
      'Negotiate abc==, Bearer error=b',
      [
        ['negotiate', {}],
        ['bearer', { error: 'b' }],
      ],
    ],
    [
      'Negotiate, Bearer error=b',
      [
        ['negotiate', {}],
        ['bearer', { error: 'b' }],
      ],
    ],
    [', ,Bearer a=1,, b=2,', [['bearer', { a: '1', b: '2' }]]],
    [
      'Bearer a=1, , Digest b=2',
      [
        ['bearer', { a: '1' }],
        ['digest', { b: '2' }],
      ],
    ],
  ])('%s', (value, expected) => {
    expect(read(value)).toEqual(expected);
  });

  test.each([
    'Bearer error="b", error="c"',
    'Bearer error="b", ERROR=c',
    'Bearer error="b',
    'Bearer error="b\\',
    'Bearer realm=a, error=',
    'Bearer error=b c=d;',
    'Bearer error="b"x',
    'Bearer error="b\u0001"',
    '"Bearer" error=b',
    '=',
  ])('nothing is read from %s', (value) => {
    expect(read(value)).toEqual([]);
  });

  test('nothing is read from an endless value', () => {
    expect(read(`Bearer error="${'b'.repeat(5000)}"`)).toEqual([]);
  });
});
