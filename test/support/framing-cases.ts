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
  /** Header lines of it that pass. */
  passed?: string[];
  /** How many answers come, the pipelined request's among them; otherwise two. */
  answers?: number;
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
  ['CL with a tab before the colon', `Content-Length\t: ${SMUGGLED.length}\r\n`, SMUGGLED],
  ['CL with a vertical tab', `Content-Length:\x0b${SMUGGLED.length}\r\n`, SMUGGLED],
  ['CL with a form feed behind it', `Content-Length: ${SMUGGLED.length}\x0c\r\n`, SMUGGLED],
  ['CL on a folded line', `Content-Length:\r\n ${SMUGGLED.length}\r\n`, SMUGGLED],
  ['CL with a fold behind it', `Content-Length: 5\r\n 5\r\n`, 'hello'],
  ['CL in quotes', 'Content-Length: "5"\r\n', 'hello'],
  ['CL with a wrong value', 'Content-Length: five\r\n', 'hello'],
  ['CL with an exponent', 'Content-Length: 5e0\r\n', 'hello'],
  ['CL with an underscore in it', 'Content-Length: 1_0\r\n', 'hellohello'],
  ['CL with a comma behind it', 'Content-Length: 5,\r\n', 'hello'],
  ['CL as a list of different ones', `Content-Length: 5, ${5 + SMUGGLED.length}\r\n`, `hello${SMUGGLED}`],
  ['CL beyond 2^53', 'Content-Length: 9007199254740993\r\n', 'hello'],
  ['CL of 2^64 and five', 'Content-Length: 18446744073709551621\r\n', 'hello'],
  ['CL with a NUL', 'Content-Length: 5\0\r\n', 'hello'],
  ['CL with a NUL in its name', `Content-Length\0: ${SMUGGLED.length}\r\n`, SMUGGLED],
  ['CL with digits of Unicode', 'Content-Length: \u00b2\r\n', 'he'],
  [
    'CL twice in two cases',
    `Content-Length: 5\r\ncontent-length: ${5 + SMUGGLED.length}\r\n`,
    `hello${SMUGGLED}`,
  ],
  ['CL behind a bare CR', `X-A: a\rContent-Length: ${SMUGGLED.length}\r\n`, SMUGGLED],
  ['CL behind a bare LF', `X-A: a\nContent-Length: ${SMUGGLED.length}\r\n`, SMUGGLED],
  ['CL and TE: identity', 'Content-Length: 5\r\nTransfer-Encoding: identity\r\n', 'hello'],
  ['CL and an empty TE', 'Content-Length: 5\r\nTransfer-Encoding:\r\n', 'hello'],
  ['CL and TE, in one case each', 'content-length: 5\r\nTRANSFER-ENCODING: chunked\r\n', CHUNKED],
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
  ['a tab before the colon', 'Transfer-Encoding\t: chunked\r\n'],
  ['a NUL in its name', 'Transfer\0-Encoding: chunked\r\n'],
  ['a comma behind it', 'Transfer-Encoding: chunked,\r\n'],
  ['a comma before it', 'Transfer-Encoding: ,chunked\r\n'],
  ['chunked and a word behind a tab', 'Transfer-Encoding: chunked\tx\r\n'],
  ['gzip alone', 'Transfer-Encoding: gzip\r\n'],
  ['chunked, gzip', 'Transfer-Encoding: chunked, gzip\r\n'],
  ['trailers', 'Transfer-Encoding: trailers\r\n'],
  ['two lines, the second identity', 'Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n'],
  ['two lines in two cases', 'Transfer-Encoding: chunked\r\ntransfer-encoding: chunked\r\n'],
  ['single quotes', "Transfer-Encoding: 'chunked'\r\n"],
  ['a backspace', 'Transfer-Encoding: chunked\x08\r\n'],
  ['a no-break space', 'Transfer-Encoding:\xa0chunked\r\n'],
  ['a bare CR behind it', 'Transfer-Encoding: chunked\rX: y\r\n'],
  ['a bare LF before it', 'X-A: a\nTransfer-Encoding: chunked\r\n'],
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
  ['with a plus', `+5\r\nhello\r\n0\r\n\r\n`],
  ['with a tab behind it', `5\t\r\nhello\r\n0\r\n\r\n`],
  ['with an underscore', `0_5\r\nhello\r\n0\r\n\r\n`],
  ['with a NUL', `5\0\r\nhello\r\n0\r\n\r\n`],
  ['ended by CR alone', `5\rhello\r\n0\r\n\r\n`],
  ['in quotes', `"5"\r\nhello\r\n0\r\n\r\n`],
  ['of 2^64 and five', `10000000000000005\r\nhello\r\n0\r\n\r\n`],
  ['that is an extension only', `;a=b\r\nhello\r\n0\r\n\r\n`],
  ['with a bare CR in a quoted extension', `5;a="\rb"\r\nhello\r\n0\r\n\r\n`],
  ['with an LF in a quoted extension', `5;a="\nb"\r\nhello\r\n0\r\n\r\n`],
  ['with a quote that is not closed', `5;a="b\r\nhello\r\n0\r\n\r\n`],
  ['whose data ends by CR alone', `5\r\nhello\r0\r\n\r\n`],
  ['of the last chunk ended by LF alone', `5\r\nhello\r\n0\n\n`],
  ['followed by a trailer without a colon', `5\r\nhello\r\n0\r\nnonsense\r\n\r\n`],
  ['followed by a trailer with a space in its name', `5\r\nhello\r\n0\r\nX A: b\r\n\r\n`],
  ['followed by a trailer with a NUL', `5\r\nhello\r\n0\r\nX-A: \0\r\n\r\n`],
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
    name: 'CL with leading zeros',
    bytes: post('Content-Length: 005\r\n', 'hello'),
    expected: 'served',
    body: 'hello',
  },
  {
    name: 'CL under a name with an underscore',
    bytes: post(`Content_Length: ${5 + SMUGGLED.length}\r\nContent-Length: 5\r\n`, 'hello'),
    expected: 'served',
    body: 'hello',
  },
  {
    name: 'a length of nothing, and a request behind it',
    bytes: post('Content-Length: 0\r\n', SMUGGLED),
    expected: 'served',
    body: '',
    answers: 3,
  },
  {
    name: 'no length, and a request behind it',
    bytes: post('', SMUGGLED),
    expected: 'served',
    body: '',
    answers: 3,
  },
  {
    name: 'CL on HTTP/1.0',
    bytes: post('Content-Length: 5\r\n', 'hello', 'POST /api/x HTTP/1.0'),
    expected: 'served',
    body: 'hello',
    last: true,
  },
  {
    name: 'Connection: close, and a request behind it',
    bytes: post('Connection: close\r\nContent-Length: 5\r\n', `hello${SMUGGLED}`),
    expected: 'served',
    body: 'hello',
    last: true,
  },
  {
    name: 'HTTP/1.0 that keeps its connection',
    bytes: post('Connection: keep-alive\r\nContent-Length: 5\r\n', 'hello', 'POST /api/x HTTP/1.0'),
    expected: 'served',
    body: 'hello',
  },
  {
    name: 'a chunk size with leading zeros',
    bytes: chunked('0000005\r\nhello\r\n000\r\n\r\n'),
    expected: 'served',
    body: 'hello',
  },
  {
    name: 'a chunk size in capitals',
    bytes: chunked('A\r\nhellohello\r\n0\r\n\r\n'),
    expected: 'served',
    body: 'hellohello',
  },
  {
    name: 'many chunks of one byte',
    bytes: chunked(`${'1\r\na\r\n'.repeat(200)}0\r\n\r\n`),
    expected: 'served',
    body: 'a'.repeat(200),
  },
  {
    name: 'an empty chunked body',
    bytes: chunked('0\r\n\r\n'),
    expected: 'served',
    body: '',
  },
  {
    name: 'a chunked body that is a request',
    bytes: chunked(`${SMUGGLED.length.toString(16)}\r\n${SMUGGLED}\r\n0\r\n\r\n`),
    expected: 'served',
    body: SMUGGLED,
  },
  {
    name: 'trailers that would be framing',
    bytes: chunked('5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\nHost: evil.example\r\n\r\n'),
    expected: 'either',
    body: 'hello',
  },
  {
    name: 'announced trailers',
    bytes: post(
      'Trailer: Authorization\r\nTransfer-Encoding: chunked\r\n',
      '5\r\nhello\r\n0\r\nAuthorization: Bearer evil\r\n\r\n',
    ),
    expected: 'served',
    body: 'hello',
  },
  {
    name: 'a body on DELETE',
    bytes: post('Content-Length: 5\r\n', 'hello', 'DELETE /api/x HTTP/1.1'),
    expected: 'served',
    body: 'hello',
  },
  {
    name: 'a body on OPTIONS',
    bytes: post('Content-Length: 5\r\n', 'hello', 'OPTIONS /api/x HTTP/1.1'),
    expected: 'served',
    body: 'hello',
  },
  {
    name: 'an upgrade to h2c with a body',
    bytes: post(
      'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nContent-Length: 5\r\n',
      'hello',
    ),
    last: true,
    expected: 'served',
    body: 'hello',
  },
  {
    name: 'an upgrade to another protocol',
    bytes: get('Connection: Upgrade\r\nUpgrade: TLS/1.3, IRC/6.9\r\n'),
    last: true,
    expected: 'served',
    body: '',
  },
  {
    name: 'Expect: 100-continue without a body',
    bytes: get('Expect: 100-continue\r\n'),
    expected: 'served',
    body: '',
  },
  {
    name: 'Expect: 100-continue and a body of nothing',
    bytes: post('Expect: 100-continue\r\nContent-Length: 0\r\n', ''),
    expected: 'served',
    body: '',
  },
  {
    name: 'Expect: 100-continue, in chunks, not held back',
    bytes: post('Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n', CHUNKED),
    expected: 'served',
    body: 'hello',
  },
  {
    name: 'Expect: 100-continue in capitals on GET with a body',
    bytes: post(
      `Expect: 100-CONTINUE\r\nContent-Length: ${SMUGGLED.length}\r\n`,
      SMUGGLED,
      'GET /api/x HTTP/1.1',
    ),
    expected: 'served',
    body: SMUGGLED,
  },
  {
    name: 'an expectation and something else',
    bytes: post('Expect: 100-continue, x\r\nContent-Length: 5\r\n', 'hello'),
    expected: 417,
  },
  {
    name: 'an expectation behind a word',
    bytes: post(`Expect: y 100-continue\r\nContent-Length: ${SMUGGLED.length}\r\n`, SMUGGLED),
    expected: 417,
  },
  {
    name: 'an empty expectation',
    bytes: post(`Expect:\r\nContent-Length: ${SMUGGLED.length}\r\n`, SMUGGLED),
    expected: 417,
  },
  { name: 'a version in lower case', bytes: get('', 'GET /api/x http/1.1'), expected: 400 },
  { name: 'HTTP/1.10', bytes: get('', 'GET /api/x HTTP/1.10'), expected: 400 },
  { name: 'HTTP/01.1', bytes: get('', 'GET /api/x HTTP/01.1'), expected: 400 },
  { name: 'HTTP/3.0', bytes: get('', 'GET /api/x HTTP/3.0'), expected: 400 },
  { name: 'ICY', bytes: get('', 'GET /api/x ICY/1.1'), expected: 400 },
  { name: 'a word behind the version', bytes: get('', 'GET /api/x HTTP/1.1 x'), expected: 400 },
  { name: 'a space in the target', bytes: get('', 'GET /api/x y HTTP/1.1'), expected: 400 },
  { name: 'a NUL in the target', bytes: get('', 'GET /api/x\0 HTTP/1.1'), expected: 400 },
  { name: 'a vertical tab in the request line', bytes: get('', 'GET\x0b/api/x HTTP/1.1'), expected: 400 },
  { name: 'no target', bytes: get('', 'GET HTTP/1.1'), expected: 400 },
  { name: 'a method that is none', bytes: get('', 'G@T /api/x HTTP/1.1'), expected: 400 },
  { name: 'a method nobody knows', bytes: get('', 'FROBNICATE /api/x HTTP/1.1'), expected: 400 },
  { name: 'a method behind a space', bytes: get('', ' GET /api/x HTTP/1.1'), expected: 400 },
  {
    name: 'a request line ended by CR alone',
    bytes: (usual) => `GET /api/x HTTP/1.1\r${usual}\r\n`,
    expected: 400,
  },
  {
    name: 'a first header line behind a space',
    bytes: (usual) => `GET /api/x HTTP/1.1\r\n ${usual}\r\n`,
    expected: 400,
  },
  { name: 'a header line with an empty name', bytes: get(': x\r\n'), expected: 400 },
  { name: 'a header name with a bracket', bytes: get('X[A: b\r\n'), expected: 400 },
  { name: 'a header name beyond ASCII', bytes: get('X-\xe4: b\r\n'), expected: 400 },
  { name: 'a line of CR only', bytes: get('X-A: 1\r\n\rX-B: 2\r\n'), expected: 400 },
  {
    name: 'a Host as a list',
    bytes: (usual) => get('')(usual.replace(/^Host:.*\r\n/, 'Host: app.example.test, evil.example\r\n')),
    expected: 400,
  },
  {
    name: 'a Host with userinfo',
    bytes: (usual) => get('')(usual.replace(/^Host:.*\r\n/, 'Host: a@evil.example\r\n')),
    expected: 400,
  },
  {
    name: '201 header lines',
    bytes: get(Array.from({ length: 201 }, () => 'X:\r\n').join('')),
    expected: 431,
  },
  {
    name: 'a target of 9 KB',
    bytes: get('', `GET /api/${'x'.repeat(9000)} HTTP/1.1`),
    expected: 414,
  },
  {
    name: 'an empty line before the request line',
    bytes: (usual) => `\r\n${get('')(usual)}`,
    expected: 'either',
    body: '',
  },
];

export const FRAMING_CASES: readonly FramingCase[] = [...lengths, ...codings, ...chunks, ...others];
