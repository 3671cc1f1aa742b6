import type { IncomingMessage } from 'node:http';
import { passesToBrowser, text } from './headers.js';
import type { Route } from './route-table.js';

/** Fields that must be known before the content, or by everybody on the way; behind it they mean nothing, or harm. */
const FORBIDDEN = new Set([
  'age',
  'authorization',
  'cache-control',
  'content-encoding',
  'content-length',
  'content-range',
  'content-security-policy',
  'content-type',
  'date',
  'expires',
  'host',
  'location',
  'retry-after',
  'set-cookie',
  'vary',
  'www-authenticate',
]);

/**
 * Whether the sender reads trailer fields. They are passed on to nobody else: whoever does not expect them may take them for
 * headers, or lose them.
 *
 * @see RFC 9110 section 10.1.4
 */
export function wantsTrailers({ headers }: IncomingMessage): boolean {
  const te = headers['te'];
  return typeof te === 'string' && te.split(',').some((coding) => coding.trim().toLowerCase() === 'trailers');
}

/**
 * The trailer fields of an answer for the browser: those that might stand in its head as well, and are not about the message
 * itself.
 *
 * @see RFC 9110 section 6.5.1
 */
export function browserTrailers(rawTrailers: readonly (string | Buffer)[], route: Route): [string, string][] {
  const { responseAllow: allow, cookies, cache } = route;
  const trailers: [string, string][] = [];
  for (let i = 0; i < rawTrailers.length; i += 2) {
    const original = text(rawTrailers[i]);
    const value = text(rawTrailers[i + 1]);
    const name = original.toLowerCase();
    if (!FORBIDDEN.has(name) && passesToBrowser(name, value, { allow, cookies, cache })) {
      trailers.push([original, value]);
    }
  }
  return trailers;
}
