import { describe, expect, test } from '@jest/globals';
import { cookiesWithPrefix, cookieValues, serializeCookie } from './cookies.js';

describe('the values of a name', () => {
  test.each<[string | undefined, string[]]>([
    [undefined, []],
    ['', []],
    ['sid=1', ['1']],
    ['a=0; sid=1; b=2', ['1']],
    ['sid=1;sid=2', ['1', '2']],
    ['  sid  =  1  ', ['1']],
    ['\tsid=1\t', ['1']],
    ['sid=', ['']],
    ['sid=a=b', ['a=b']],
    ['sid="1"', ['"1"']],
    ['sid=%31', ['%31']],
    ['sid', []],
    ['=sid=1', []],
    ['SID=1; Sid=2', []],
    ['xsid=1; sidx=2; sid.x=3', []],
    ['$sid=1; $Version=1', []],
    ['\u00a0sid=1', []],
    ['\u2000sid=1; \u3000sid=2; \ufeffsid=3', []],
    ['sid\u00a0=1', []],
    ['sid=1\u00a0', ['1\u00a0']],
    ['a="x; sid=1; y"', ['1']],
    ['a=1, sid=2', []],
    [';;;sid=1;;;', ['1']],
  ])('%j has %j', (header, values) => {
    expect(cookieValues(header, 'sid')).toEqual(values);
  });

  test('names that objects inherit are names like any other', () => {
    expect(cookieValues('__proto__=1; constructor=2', '__proto__')).toEqual(['1']);
  });
});

test('cookies are found by the beginning of their name, in order', () => {
  const header = 'x=0; login-b=2;login-a = 1 ; =login-c=3; Login-d=4; login-=5';
  expect(cookiesWithPrefix(header, 'login-')).toEqual([
    ['login-b', '2'],
    ['login-a', '1'],
    ['login-', '5'],
  ]);
  expect(cookiesWithPrefix(undefined, 'login-')).toEqual([]);
});

describe('a cookie of ours', () => {
  test.each<[Parameters<typeof serializeCookie>[2], string]>([
    [{ secure: true, sameSite: 'Strict' }, 'n=v; Path=/; HttpOnly; SameSite=Strict; Secure'],
    [{ secure: false, sameSite: 'Lax', maxAge: 60 }, 'n=v; Path=/; HttpOnly; SameSite=Lax; Max-Age=60'],
    [{ secure: true, sameSite: 'Lax', maxAge: 0 }, 'n=v; Path=/; HttpOnly; SameSite=Lax; Secure; Max-Age=0'],
  ])('%j', (flags, line) => {
    expect(serializeCookie('n', 'v', flags)).toBe(line);
  });
});
