import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';

/** Milliseconds. */
const LINGER = 2000;

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

/**
 * Node tells the end of a connection only to the answer that is being written. One that waits behind it, for a request that came
 * in the same pipeline, would never hear of it, and what it has begun would never end.
 */
export function endsWithConnection(request: IncomingMessage, response: ServerResponse): void {
  if (response.socket !== null) return;
  const { socket } = request;
  const gone = (): void => {
    if (response.socket !== null || response.closed) return;
    response.destroy();
    response.emit('close');
  };
  // As many as there are requests in the pipeline.
  socket.setMaxListeners(0);
  socket.once('close', gone);
  response.once('close', () => {
    socket.removeListener('close', gone);
  });
}

/**
 * As {@link closeAfter}, where the client may still be sending a body that nobody will read. Closed at once, its bytes on the
 * way would be answered by a reset, which can take the answer away before it is read: so only our side ends first.
 *
 * @see RFC 9112 section 9.6
 */
export function closeInStages(request: IncomingMessage, response: ServerResponse): void {
  closeAfter(request, response);
  const { socket } = request;
  // What Node calls once the last answer is written; by itself it would close both sides.
  socket.destroySoon = () => {
    socket.end();
    request.resume();
    const timer = setTimeout(() => socket.destroy(), LINGER);
    socket.once('close', () => {
      clearTimeout(timer);
    });
  };
}
