import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

const closing = new WeakSet<Socket>();

/** Makes this the last answer on its connection. */
export function closeAfter(request: IncomingMessage, response: ServerResponse): void {
  response.setHeader('connection', 'close');
  closing.add(request.socket);
}

/**
 * True behind an answer that closes the connection. The parser goes on with what has arrived, but a request behind a
 * malformed one is anybody's guess, and no answer to it would arrive.
 *
 * @see RFC 9112 section 9.6
 */
export function comesTooLate(request: IncomingMessage): boolean {
  return closing.has(request.socket);
}
