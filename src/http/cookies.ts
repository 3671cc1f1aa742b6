/**
 * Every value a `Cookie` header gives for a name, in order. Pairs without a name are nobody's, quotes are part of the
 * value, nothing is decoded: what is not exactly what we set is not ours.
 *
 * @see RFC 6265bis, "The Cookie Header Field"
 */
export function cookieValues(header: string | undefined, name: string): string[] {
  const values: string[] = [];
  if (header === undefined) return values;
  for (const pair of header.split(';')) {
    const equals = pair.indexOf('=');
    if (equals > 0 && trimSpaces(pair.slice(0, equals)) === name)
      values.push(trimSpaces(pair.slice(equals + 1)));
  }
  return values;
}

/** Name and value of every cookie whose name begins with a prefix. */
export function cookiesWithPrefix(header: string | undefined, prefix: string): [string, string][] {
  const found: [string, string][] = [];
  if (header === undefined) return found;
  for (const pair of header.split(';')) {
    const equals = pair.indexOf('=');
    const name = equals > 0 ? trimSpaces(pair.slice(0, equals)) : '';
    if (name.startsWith(prefix)) found.push([name, trimSpaces(pair.slice(equals + 1))]);
  }
  return found;
}

/** Only the space and the tab that separate pairs: `String.trim` would also take U+00A0 and its kin for nothing. */
function trimSpaces(text: string): string {
  let start = 0;
  let end = text.length;
  while (isSpace(text.charCodeAt(start))) start += 1;
  while (end > start && isSpace(text.charCodeAt(end - 1))) end -= 1;
  return text.slice(start, end);
}

function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x09;
}

export interface CookieFlags {
  secure: boolean;
  sameSite: 'Strict' | 'Lax' | 'None';
  /** Seconds; 0 takes the cookie away; absent: until the browser closes. */
  maxAge?: number;
}

/** A `Set-Cookie` value with the attributes all our cookies share. */
export function serializeCookie(name: string, value: string, flags: CookieFlags): string {
  const age = flags.maxAge === undefined ? '' : `; Max-Age=${String(flags.maxAge)}`;
  const secure = flags.secure ? '; Secure' : '';
  return `${name}=${value}; Path=/; HttpOnly; SameSite=${flags.sameSite}${secure}${age}`;
}
