import type { IncomingHttpHeaders, ServerResponse } from 'node:http';

/**
 * Whether a body comes in another coding than chunks. Only those are taken apart on the way; the browser would not learn of
 * anything else.
 *
 * @see RFC 9112 section 6.1
 */
export function hasForeignCoding(headers: IncomingHttpHeaders): boolean {
  // Two lines of it make a list.
  const coding: string | readonly string[] | undefined = headers['transfer-encoding'];
  return coding !== undefined && (typeof coding !== 'string' || coding.toLowerCase() !== 'chunked');
}

/**
 * Begins an answer. Its headers take the place of those that were set before; of a name that comes several times each line is
 * kept, of which Node by itself would keep only the last as soon as any header was set before.
 *
 * @param headers name and value in turns
 */
export function writeHead(
  response: ServerResponse,
  status: number,
  reason: string,
  headers: readonly string[],
): void {
  if (response.getHeaderNames().length === 0) {
    response.writeHead(status, reason, headers as string[]);
    return;
  }
  const begun = new Set<string>();
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] ?? '';
    const value = headers[i + 1] ?? '';
    const known = name.toLowerCase();
    if (begun.has(known)) response.appendHeader(name, value);
    else response.setHeader(name, value);
    begun.add(known);
  }
  response.writeHead(status, reason);
}
