import { canonicalTarget } from '../http/canonical-path.js';

const MAX_LENGTH = 2048;
// eslint-disable-next-line no-control-regex
const FORBIDDEN = /[\x00-\x20\\\x7f]/;

/**
 * Where to go after login or logout: a path of our own origin, or `/` for everything else. The value is read as a browser
 * would (WHATWG URL), and what is returned is that reading, not the input.
 *
 * @param value from the query string, decoded once
 * @param publicOrigin our own origin
 */
export function safeReturnTo(value: string | undefined, publicOrigin: string): string {
  if (value === undefined || value.length > MAX_LENGTH || FORBIDDEN.test(value)) return '/';
  if (!value.startsWith('/') || value.startsWith('//')) return '/';
  if (!URL.canParse(value, publicOrigin)) return '/';
  const url = new URL(value, publicOrigin);
  // `/.//evil.example` becomes `//evil.example`: the path alone would name another host.
  if (url.origin !== publicOrigin || url.pathname.startsWith('//')) return '/';
  // Back to one of our own endpoints, however it is spelled, would be a loop or a logout.
  const target = canonicalTarget(url.pathname + url.search);
  if (typeof target === 'string' || target.path === '/auth' || target.path.startsWith('/auth/')) return '/';
  return url.pathname + url.search + url.hash;
}
