/** A request whose framing, or whose reading, is in doubt. */
export interface FramingCase {
  name: string;
  /** The bytes, given the header lines that make it a signed-in script's request. Latin-1. */
  bytes: (usual: string) => string;
  /** Statuses that are right; `served` means that exactly one well-formed request must reach the upstream. */
  expected: number | 'served' | 'either';
  /** The connection is closed although the request was served. */
  last?: true;
  /** Body that arrives when it is served. */
  body?: string;
}

/** Never to be seen by the upstream as a request of its own. */
export const SMUGGLED = 'GET /api/smuggled HTTP/1.1\r\nHost: app.example.test\r\nX-Evil: 1\r\n\r\n';

const post =
  (headers: string, body: string, line = 'POST /api/x HTTP/1.1') =>
  (usual: string): string =>
    `${line}\r\n${usual}${headers}\r\n${body}`;
const get =
  (headers: string, line = 'GET /api/x HTTP/1.1') =>
  (usual: string): string =>
    `${line}\r\n${usual}${headers}\r\n`;
const CHUNKED = '5\r\nhello\r\n0\r\n\r\n';
const chunked = (body: string): ((usual: string) => string) => post('Transfer-Encoding: chunked\r\n', body);

const lengths: FramingCase[] = [
  ['CL and TE', `Content-Length: 6\r\nTransfer-Encoding: chunked\r\n`, `0\r\n\r\nX`],
  ['TE and CL', `Transfer-Encoding: chunked\r\nContent-Length: 4\r\n`, `5c\r\n${SMUGGLED}`],
  ['CL twice, equal', 'Content-Length: 5\r\nContent-Length: 5\r\n', 'hello'],
  [
    'CL twice, different',
    `Content-Length: 5\r\nContent-Length: ${5 + SMUGGLED.length}\r\n`,
    `hello${SMUGGLED}`,
  ],
  ['CL as a list', 'Content-Length: 5, 5\r\n', 'hello'],
  ['CL with a plus', 'Content-Length: +5\r\n', 'hello'],
  ['CL negative', 'Content-Length: -5\r\n', 'hello'],
  ['CL hexadecimal', 'Content-Length: 0x5\r\n', 'hello'],
  ['CL empty', 'Content-Length:\r\n', SMUGGLED],
  ['CL huge', 'Content-Length: 99999999999999999999999\r\n', 'hello'],
  ['CL of two numbers', 'Content-Length: 5 5\r\n', 'hello'],
  ['CL as a float', 'Content-Length: 5.0\r\n', 'hello'],
  ['CL with a space before the colon', `Content-Length : ${SMUGGLED.length}\r\n`, SMUGGLED],
].map(([name = '', headers = '', body = '']) => ({ name, bytes: post(headers, body), expected: 400 }));

const codings: FramingCase[] = [
  ['a space before the colon', 'Transfer-Encoding : chunked\r\n'],
  ['a vertical tab before the value', 'Transfer-Encoding:\x0bchunked\r\n'],
  ['a vertical tab behind the value', 'Transfer-Encoding: chunked\x0b\r\n'],
  ['a folded line', 'Transfer-Encoding:\r\n chunked\r\n'],
  ['a fold behind it', 'Transfer-Encoding: chunked\r\n , identity\r\n'],
  ['quotes', 'Transfer-Encoding: "chunked"\r\n'],
  ['a wrong value', 'Transfer-Encoding: xchunked\r\n'],
  ['an empty value', 'Transfer-Encoding:\r\n'],
  ['two lines', 'Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n'],
  ['two lines, the second wrong', 'Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n'],
  ['chunked twice', 'Transfer-Encoding: chunked, chunked\r\n'],
  ['chunked, identity', 'Transfer-Encoding: chunked, identity\r\n'],
  ['identity, chunked', 'Transfer-Encoding: identity, chunked\r\n'],
  ['identity', 'Transfer-Encoding: identity\r\n'],
  ['gzip, chunked', 'Transfer-Encoding: gzip, chunked\r\n'],
  ['a parameter', 'Transfer-Encoding: chunked;q=1\r\n'],
  ['a NUL', 'Transfer-Encoding: chunk\0ed\r\n'],
].map(([name = '', headers = '']) => ({
  name: `TE with ${name}`,
  bytes: post(headers, CHUNKED),
  expected: 400,
}));

const chunks: FramingCase[] = [
  ['with 0x', `0x5\r\nhello\r\n0\r\n\r\n`],
  ['negative', `-5\r\nhello\r\n0\r\n\r\n`],
  ['too large', `fffffffffffffffff5\r\nhello\r\n0\r\n\r\n`],
  ['empty', `\r\nhello\r\n0\r\n\r\n`],
  ['behind a space', ` 5\r\nhello\r\n0\r\n\r\n`],
  ['ended by LF alone', `5\nhello\r\n0\r\n\r\n`],
  ['with LF in its extension', `5;a\nb\r\nhello\r\n0\r\n\r\n`],
  ['with CR in its extension', `5;a\rb\r\nhello\r\n0\r\n\r\n`],
  ['too small for its data', `3\r\nhello\r\n0\r\n\r\n`],
  ['whose data has no CRLF', `5\r\nhello0\r\n\r\n`],
  ['whose data ends by LF alone', `5\r\nhello\n0\r\n\r\n`],
].map(([name = '', body = '']) => ({ name: `a chunk size ${name}`, bytes: chunked(body), expected: 400 }));

const others: FramingCase[] = [
  {
    name: 'TE in capitals',
    bytes: post('Transfer-Encoding: CHUNKED\r\n', CHUNKED),
    expected: 'served',
    body: 'hello',
  },
  {
    name: 'TE behind a tab',
    bytes: post('Transfer-Encoding:\tchunked\r\n', CHUNKED),
    expected: 'served',
    body: 'hello',
  },
  {
    name: 'TE on HTTP/1.0',
    bytes: post('Transfer-Encoding: chunked\r\n', CHUNKED, 'POST /api/x HTTP/1.0'),
    expected: 400,
  },
  {
    name: 'a chunk extension',
    bytes: chunked('5;a=b;c="d"\r\nhello\r\n0\r\n\r\n'),
    expected: 'served',
    body: 'hello',
  },
  {
    name: 'a length in the trailers',
    bytes: chunked('5\r\nhello\r\n0\r\nContent-Length: 60\r\n\r\n'),
    expected: 'either',
    body: 'hello',
  },
  {
    name: 'trailers',
    bytes: chunked('5\r\nhello\r\n0\r\nX-Evil: 1\r\nCookie: a=b\r\n\r\n'),
    expected: 'served',
    body: 'hello',
  },
  {
    name: 'lines ended by LF alone',
    bytes: (usual) => `GET /api/x HTTP/1.1\n${usual.replaceAll('\r\n', '\n')}\n`,
    expected: 400,
  },
  { name: 'one line ended by LF alone', bytes: get('X-A: 1\nX-B: 2\r\n'), expected: 400 },
  { name: 'a CR in a value', bytes: get('X-A: a\rContent-Length: 60\r\n'), expected: 400 },
  { name: 'a NUL in a value', bytes: get('X-A: a\0b\r\n'), expected: 400 },
  { name: 'a NUL in a name', bytes: get('X-\0A: b\r\n'), expected: 400 },
  {
    name: 'a head ended by CR LF CR X',
    bytes: (usual) => `GET /api/x HTTP/1.1\r\n${usual}\rX${SMUGGLED}`,
    expected: 400,
  },
  { name: 'a line without a colon', bytes: get('Content-Length 60\r\n'), expected: 400 },
  { name: 'a folded header', bytes: get('X-A: a\r\n Content-Length: 60\r\n'), expected: 400 },
  { name: 'no Host', bytes: (usual) => get('')(usual.replace(/^Host:.*\r\n/, '')), expected: 400 },
  { name: 'two Hosts', bytes: get('Host: evil.example\r\n'), expected: 400 },
  {
    name: 'a foreign Host',
    bytes: (usual) => get('')(usual.replace(/^Host:.*\r\n/, 'Host: evil.example\r\n')),
    expected: 'served',
    body: '',
  },
  { name: 'absolute form', bytes: get('', 'GET http://evil.example/api/x HTTP/1.1'), expected: 400 },
  { name: 'authority form', bytes: get('', 'GET evil.example:80 HTTP/1.1'), expected: 400 },
  { name: 'CONNECT', bytes: get('', 'CONNECT evil.example:80 HTTP/1.1'), expected: 400 },
  { name: 'a method in lower case', bytes: get('', 'get /api/x HTTP/1.1'), expected: 400 },
  {
    name: 'a space too many in the request line',
    bytes: get('', 'GET  /api/x HTTP/1.1'),
    expected: 'either',
    body: '',
  },
  { name: 'a tab in the request line', bytes: get('', 'GET\t/api/x\tHTTP/1.1'), expected: 400 },
  { name: 'HTTP/0.9', bytes: () => 'GET /api/x\r\n\r\n', expected: 400 },
  { name: 'HTTP/1.2', bytes: get('', 'GET /api/x HTTP/1.2'), expected: 400 },
  { name: 'HTTP/2.0', bytes: get('', 'GET /api/x HTTP/2.0'), expected: 400 },
  { name: 'the preface of HTTP/2', bytes: () => 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', expected: 400 },
  {
    name: 'an upgrade to h2c',
    bytes: get(
      'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n',
    ),
    last: true,
    expected: 'served',
    body: '',
  },
  {
    name: 'an unknown expectation',
    bytes: post('Expect: 200-ok\r\nContent-Length: 5\r\n', 'hello'),
    expected: 417,
  },
  {
    name: 'an expectation twice',
    bytes: post('Expect: 100-continue\r\nExpect: 100-continue\r\nContent-Length: 5\r\n', 'hello'),
    expected: 417,
  },
  {
    name: 'Expect: 100-continue, body not held back',
    bytes: post('Expect: 100-continue\r\nContent-Length: 5\r\n', 'hello'),
    expected: 'served',
    body: 'hello',
  },
  {
    name: 'a body on GET',
    bytes: post(`Content-Length: ${SMUGGLED.length}\r\n`, SMUGGLED, 'GET /api/x HTTP/1.1'),
    expected: 'served',
    body: SMUGGLED,
  },
  {
    name: 'a chunked body on GET',
    bytes: post('Transfer-Encoding: chunked\r\n', CHUNKED, 'GET /api/x HTTP/1.1'),
    expected: 'served',
    body: 'hello',
  },
  {
    name: 'a body on HEAD',
    bytes: post('Content-Length: 5\r\n', 'hello', 'HEAD /api/x HTTP/1.1'),
    expected: 'served',
    body: 'hello',
  },
  {
    name: 'a body that is a request',
    bytes: post(`Content-Length: ${SMUGGLED.length}\r\n`, SMUGGLED),
    expected: 'served',
    body: SMUGGLED,
  },
  {
    name: 'CL hidden by Connection',
    bytes: post(`Connection: Content-Length\r\nContent-Length: ${SMUGGLED.length}\r\n`, SMUGGLED),
    expected: 'served',
    body: SMUGGLED,
  },
  {
    name: 'TE hidden by Connection',
    bytes: post('Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n', CHUNKED),
    expected: 'served',
    body: 'hello',
  },
  {
    name: 'TE under a name with an underscore',
    bytes: post('Transfer_Encoding: chunked\r\nContent-Length: 15\r\n', CHUNKED),
    expected: 'served',
    body: CHUNKED,
  },
  { name: 'a header of 20 KB', bytes: get(`X-A: ${'a'.repeat(20_000)}\r\n`), expected: 431 },
  { name: '2,100 headers', bytes: get(Array.from({ length: 2100 }, () => 'X:\r\n').join('')), expected: 431 },
  {
    name: 'an empty line before the request line',
    bytes: (usual) => `\r\n${get('')(usual)}`,
    expected: 'either',
    body: '',
  },
];

export const FRAMING_CASES: readonly FramingCase[] = [...lengths, ...codings, ...chunks, ...others];
