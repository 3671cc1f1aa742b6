import type { BrowserClient } from './browser-client.js';

export interface ScriptRequest {
  method?: string;
  target?: string;
  version?: string;
  /** Header lines before the usual ones, without line ends. */
  first?: string[];
  /** Header lines after the usual ones. */
  headers?: string[];
  body?: string;
  /** Leave out the usual lines whose names these are. */
  without?: string[];
}

/** The bytes of what a script of the signed-in application would send, to be bent by a test. Latin-1. */
export function scriptRequest(
  client: BrowserClient,
  { method = 'GET', target = '/api/x', version = 'HTTP/1.1', ...rest }: ScriptRequest = {},
): string {
  const { first = [], headers = [], body = '', without = [] } = rest;
  const usual = [
    `Host: ${client.publicUrl.host}`,
    `Cookie: ${sessionPair(client)}`,
    'X-CSRF: 1',
    `Origin: ${client.publicUrl.origin}`,
  ].filter((line) => !without.includes(line.slice(0, line.indexOf(':')).toLowerCase()));
  return `${method} ${target} ${version}\r\n${[...first, ...usual, ...headers].map((line) => `${line}\r\n`).join('')}\r\n${body}`;
}

/** Name and value of the client's session cookie, as in a `Cookie` header. */
export function sessionPair(client: BrowserClient): string {
  const cookie = client.sessionCookie;
  if (cookie === undefined) throw new Error('not signed in');
  return `${cookie.name}=${cookie.value}`;
}
