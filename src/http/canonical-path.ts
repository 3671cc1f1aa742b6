/** A request target taken apart. The path is both what routes are matched on and what is forwarded. */
export interface Target {
  path: string;
  /** With its question mark, byte for byte; empty when there is none. */
  query: string;
}

const MAX_LENGTH = 8192;

/** Paths that are their own canonical form: no escapes, no dot segments, no empty segments, no parameters. */
const PLAIN = /^(?:\/[A-Za-z0-9\-_~!$&'()*+,=:@](?:[A-Za-z0-9\-._~!$&'()*+,=:@])*)*\/?$/;
const PATH_CHARACTERS = /^[A-Za-z0-9\-._~!$&'()*+,;=:@/%]*$/;
const QUERY_CHARACTERS = /^[\x21\x22\x24-\x7e]*$/;
const UNRESERVED = /^[A-Za-z0-9\-._~]$/;
/** Control characters, slash and backslash; and `%25` where an upstream that decodes twice would find an escape. */
const AMBIGUOUS_ESCAPE = /%(?:[01][0-9A-F]|7F|2F|5C|25[0-9A-Fa-f]{2})/;

/**
 * The one reading of a request target, or the reason why it has none. Whatever two servers could read differently is
 * refused rather than repaired: dot segments (browsers never send them), empty segments, backslashes, escaped
 * separators, double escapes, raw bytes outside ASCII.
 *
 * @param target as it stood in the request line
 * @returns the canonical form (RFC 3986 section 6.2.2: unreserved characters decoded, escapes in upper case)
 */
export function canonicalTarget(target: string): Target | 'malformed' | 'too-long' {
  if (target.length > MAX_LENGTH) return 'too-long';
  const mark = target.indexOf('?');
  const rawPath = mark === -1 ? target : target.slice(0, mark);
  const query = mark === -1 ? '' : target.slice(mark);
  if (query !== '' && !QUERY_CHARACTERS.test(query)) return 'malformed';
  if (PLAIN.test(rawPath) && rawPath !== '') return { path: rawPath, query };
  const path = canonicalPath(rawPath);
  return path === undefined ? 'malformed' : { path, query };
}

function canonicalPath(raw: string): string | undefined {
  if (!raw.startsWith('/') || !PATH_CHARACTERS.test(raw)) return undefined;
  const decoded = decodeUnreserved(raw);
  if (decoded === undefined || decoded.includes('//')) return undefined;
  return decoded.split('/').some(isDotSegment) || !isUtf8(decoded) ? undefined : decoded;
}

/** Overlong and broken sequences, such as `%C0%AF`, are a slash to some decoders and an error to others. */
function isUtf8(path: string): boolean {
  try {
    decodeURIComponent(path);
    return true;
  } catch {
    return false;
  }
}

const ESCAPE = /%([0-9A-Fa-f]{2})/g;

function decodeUnreserved(raw: string): string | undefined {
  if (raw.replace(ESCAPE, '').includes('%')) return undefined;
  const decoded = raw.replace(ESCAPE, (_, hex: string) => {
    const character = String.fromCharCode(parseInt(hex, 16));
    return UNRESERVED.test(character) ? character : `%${hex.toUpperCase()}`;
  });
  return AMBIGUOUS_ESCAPE.test(decoded) ? undefined : decoded;
}

/** `.` and `..`, also with a path parameter behind them: some servers strip `;x` before they resolve dots. */
function isDotSegment(segment: string): boolean {
  return /^\.{1,2}(?:(?:;|%3B).*)?$/.test(segment);
}
