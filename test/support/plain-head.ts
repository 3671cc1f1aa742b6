import type { RawRequest } from './upstream.js';

/** What differs from one request to the next, put out of sight; the form of each is checked on the way. */
const CHANGING: readonly (readonly [RegExp, string])[] = [
  [/^x-request-id: [A-Za-z0-9_-]{12,}-[0-9a-z]+$/m, 'x-request-id: ID'],
  [/^traceparent: 00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-01$/m, 'traceparent: BEGUN'],
  [/^authorization: Bearer [A-Za-z0-9._~+/-]{16,}=*$/m, 'authorization: Bearer TOKEN'],
];

/** The lines of a head as they stood on the wire, in order, but for what is new each time. */
export function plainHead(request: RawRequest): string[] {
  let head = request.head;
  for (const [changing, plain] of CHANGING) head = head.replaceAll(/\r/g, '').replace(changing, plain);
  return head.split('\n');
}

/**
 * The head that a signed-in script's request has at the upstream, whatever it brought that does not pass.
 *
 * @param origin of the upstream
 * @param passed lines of the request that pass
 * @param framing the line that says how long the body is
 */
export function expectedHead(
  origin: string,
  {
    line = 'GET /api/x HTTP/1.1',
    te = false,
    passed = [],
    framing,
  }: { line?: string; te?: boolean; passed?: readonly string[]; framing?: string | undefined } = {},
): string[] {
  return [
    line,
    `host: ${new URL(origin).host}`,
    // A HEAD whose upstream answers with a body must not spoil what follows.
    `connection: ${line.startsWith('HEAD') ? 'close' : 'keep-alive'}`,
    'x-request-id: ID',
    'x-forwarded-for: 127.0.0.1',
    'x-forwarded-proto: https',
    'x-forwarded-host: app.example.test',
    'forwarded: for=127.0.0.1;proto=https;host="app.example.test"',
    'traceparent: BEGUN',
    ...(te ? ['te: trailers'] : []),
    'authorization: Bearer TOKEN',
    ...passed,
    ...(framing === undefined ? [] : [framing]),
  ];
}

/** The content of a chunked body, read by the letter (RFC 9112 section 7.1), without extensions and trailers. */
export function unchunked(body: Buffer): string {
  const text = body.toString('latin1');
  let content = '';
  for (let at = 0; ;) {
    const [line = '', size = ''] = /^([1-9a-f][0-9a-f]*)\r\n/.exec(text.slice(at, at + 12)) ?? [];
    if (line === '') {
      if (text.slice(at) !== '0\r\n\r\n')
        throw new Error(`not a chunk: ${JSON.stringify(text.slice(at, at + 40))}`);
      return content;
    }
    const end = at + line.length + Number.parseInt(size, 16);
    if (text.slice(end, end + 2) !== '\r\n') throw new Error('a chunk without an end');
    content += text.slice(at + line.length, end);
    at = end + 2;
  }
}
