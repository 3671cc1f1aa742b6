/** Request targets that are served, and the path by which each arrives at the upstream of `/api/`. */
export const ARRIVING: readonly (readonly [target: string, arrives: string])[] = [
  ['/api/', '/api/'],
  ['/api/x', '/api/x'],
  ['/api/x/', '/api/x/'],
  ['/api/x?', '/api/x?'],
  ['/api/?', '/api/?'],
  ['/api/x?next=/../admin/%2e%2e&u=//evil', '/api/x?next=/../admin/%2e%2e&u=//evil'],
  ['/api/x?a=%2e%2e%2f%5c%00%zz%', '/api/x?a=%2e%2e%2f%5c%00%zz%'],
  ['/api/x?a\\b"c<d>{e}|f^g`', '/api/x?a\\b"c<d>{e}|f^g`'],
  ['/api/x?a?b?c', '/api/x?a?b?c'],
  ['/api/x??', '/api/x??'],
  ['/api/x?http://evil.example/', '/api/x?http://evil.example/'],
  // Escapes of what needs none (RFC 3986 section 6.2.2.2).
  ['/api/%61%62', '/api/ab'],
  ['/%61pi/x', '/api/x'],
  ['/%61%70%69/x', '/api/x'],
  ['/api/%41%5A%7a%30%39', '/api/AZz09'],
  ['/api/%2D%5F%7E', '/api/-_~'],
  ['/api/a%2eb', '/api/a.b'],
  ['/api/%2ehidden', '/api/.hidden'],
  ['/api/x%2Ejson', '/api/x.json'],
  ['/api/%2e%2e%2e', '/api/...'],
  // Escapes that stay, in capitals (section 6.2.2.1).
  ['/api/a%20b', '/api/a%20b'],
  ['/api/%20', '/api/%20'],
  ['/api/%e2%82%ac', '/api/%E2%82%AC'],
  ['/api/%c3%a9', '/api/%C3%A9'],
  ['/api/%f0%9f%98%80', '/api/%F0%9F%98%80'],
  ['/api/%ef%bc%8e%ef%bc%8e/x', '/api/%EF%BC%8E%EF%BC%8E/x'],
  ['/api/%21%24%26%27%28%29', '/api/%21%24%26%27%28%29'],
  ['/api/%2a%2b%2c%3d', '/api/%2A%2B%2C%3D'],
  ['/api/%3a%40', '/api/%3A%40'],
  ['/api/%3f%23', '/api/%3F%23'],
  ['/api/x%3b', '/api/x%3B'],
  ['/api/%22%3c%3e', '/api/%22%3C%3E'],
  ['/api/%5b%5d%5e%60%7b%7c%7d', '/api/%5B%5D%5E%60%7B%7C%7D'],
  ['/api/100%25', '/api/100%25'],
  ['/api/100%25/x', '/api/100%25/x'],
  ['/api/%25zz', '/api/%25zz'],
  ['/api/%25%25', '/api/%25%25'],
  // What only looks like something else.
  ['/api/...', '/api/...'],
  ['/api/..../x', '/api/..../x'],
  ['/api/.hidden/..x', '/api/.hidden/..x'],
  ['/api/x..', '/api/x..'],
  ['/api/x./y', '/api/x./y'],
  ['/api/x..;y', '/api/x..;y'],
  ['/api/x;v=1;w/y', '/api/x;v=1;w/y'],
  ['/api/;', '/api/;'],
  ['/api/;x=..', '/api/;x=..'],
  ['/api/;/x', '/api/;/x'],
  ['/api/@evil/', '/api/@evil/'],
  ['/api/a@b:80', '/api/a@b:80'],
  ['/api/http:x', '/api/http:x'],
  ['/api/:', '/api/:'],
  ['/api/*', '/api/*'],
  ["/api/!$&'()*+,=", "/api/!$&'()*+,="],
  ['/api/~root', '/api/~root'],
  ['/api/x/index.php', '/api/x/index.php'],
  ['/api/auth/me', '/api/auth/me'],
  ['/api/admi', '/api/admi'],
  ['/api/ADMIN/x', '/api/ADMIN/x'],
  // A prefix that is replaced.
  ['/svc/x?y', '/inner/x?y'],
  ['/svc/', '/inner/'],
  ['/svc/%61?', '/inner/a?'],
  ['/%73vc/svc/x', '/inner/svc/x'],
  ['/svc/...', '/inner/...'],
];

const DOTS = [
  ...['..', '.', '%2e%2e', '%2E%2E', '.%2e', '%2e.', '.%2E', '%2e', '%2E'],
  ...['..;', '.;x', '..;a=b', '%2e%2e;', '..%3b', '..%3B', '%2e;', '.%3bx', '%2e%2e%3bx', '..;;', '..;%2e'],
];
const ENDS = ['', '/', '/admin', '/x/y?z', '//', '/..', '?x'];
const CHARACTERS = [
  ...['%2f', '%2F', '%5c', '%5C', '%00', '%0a', '%0D', '%0d%0a', '%09', '%7f', '%1b', '%01', '%1F'],
  ...['\\', '\\..\\', '%2f%2f', '%5c%5c', '%2f..%2f', '%5c..%5c', '%5c%2e%2e%5c', '.%00.', '..%00'],
];
const DOUBLED = [
  ...['%252e', '%252e%252e', '%252f', '%255c', '%2500', '%25%32%65', '%25252e', '%%32%65', '%252E%252E'],
  ...['%2525', '%25252f', '%252525', '%5c%25', '%25%35%63', '%2%65', '%25%32%66', '%%35c', '%250a', '%253b'],
];
const BROKEN = [
  ...['%', '%2', '%zz', '%%', '%%0000', '%u002e', '%x41', '%g1', '%1g', '%-1'],
  // Overlong forms of the dot, the slash and the backslash, and bytes that are no UTF-8.
  ...['%c0%af', '%c0%ae', '%c0%2e', '%e0%80%af', '%e0%80%ae', '%f0%80%80%af', '%c1%9c', '%c1%1c', '%c0%80'],
  ...['%fe', '%ff', '%80', '%bf', '%c3', '%e2%82', '%ed%a0%80', '%f4%90%80%80', '%f8%88%80%80%80', '%c3%28'],
];
const RAW = [
  ...[
    '\u00e9',
    '\u00c0\u00af',
    '\u00a0',
    '\u0085',
    '\u00ff',
    '<script>',
    '"',
    '{x}',
    '}',
    'a|b',
    '^',
    '`',
    '<',
    '>',
  ],
  ...['[x]', '[', ']', '\x7f'],
];

/** Request targets that two servers could read differently: none of them may reach an upstream in any form. Latin-1. */
export const REFUSED: readonly string[] = [
  ...new Set([
    ...DOTS.flatMap((dot) => ENDS.map((end) => `/api/${dot}${end}`)),
    ...DOTS.flatMap((dot) => [`/api/x/${dot}/y`, `/svc/${dot}/admin`, `/api/${dot}/${dot}/auth/me`]),
    ...CHARACTERS.flatMap((one) => [
      `/api/${one}x`,
      `/api/..${one}x`,
      `/api/x${one}`,
      `/api/x/${one}/..`,
      `/api${one}/x`,
    ]),
    ...DOUBLED.flatMap((one) => [`/api/${one}/x`, `/api/x${one}y`, `/svc/${one}`]),
    ...BROKEN.flatMap((one) => [`/api/${one}`, `/api/x${one}/y`]),
    ...RAW.flatMap((one) => [`/api/${one}`, `/api/x/${one}/y`]),
    ...['/api/x#y', '/api/#/../admin', '/api/x?a#b', '/api/x#', '/#/api/x', '/api/x?#'],
    ...['/%2e%2e/api/x', '/x/../api/y', '/./api/x', '/../api/x', '/..;/api/x', '/.;/api/x', '/x;/../api/y'],
    ...['/api/x;/../y', '/api/x;a=b/..', '/api/x;..//y', '/api/x;%2f..', '/api/;/..', '/api/..;/..;/auth/me'],
    ...['//api/x', '/api//x', '/api/x//', '/api/x//y', '///api/x', '/api///', '/svc//x', '/api/x//?y'],
    ...['/api/x?\u00e9', '/api/x?a\u00a0b', '/api/x?\x7f'],
  ]),
];
