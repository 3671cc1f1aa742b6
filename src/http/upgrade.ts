import { ServerResponse, type IncomingMessage, type OutgoingMessage, type Server } from 'node:http';
import type { Socket } from 'node:net';

/** Milliseconds for the last answer on a connection to be read. */
const LINGER = 2000;

/**
 * Node hands a connection over as soon as it has read a request for another protocol, even while requests before it are being
 * answered. Nothing may be written into those answers.
 */
export function afterAnswers(socket: Socket, then: () => void): void {
  const { _httpMessage: current } = socket as { _httpMessage?: OutgoingMessage | null };
  if (current != null) {
    current.once('close', () => {
      afterAnswers(socket, then);
    });
    return;
  }
  // Set for the wait for a next request.
  socket.setTimeout(0);
  then();
}

/**
 * An answer in HTTP on a connection that Node has handed over, and the last one there: our side ends behind it, and the other
 * has a moment to read it.
 */
export function answerOn(socket: Socket, request: IncomingMessage): ServerResponse {
  const response = new ServerResponse(request);
  response.shouldKeepAlive = false;
  response.assignSocket(socket);
  response.once('finish', () => {
    socket.end();
    // What still comes is read by nobody, and must not turn the end into a reset.
    socket.resume();
    const timer = setTimeout(() => socket.destroy(), LINGER);
    socket.once('close', () => {
      clearTimeout(timer);
    });
  });
  return response;
}

/**
 * Serves a request that asks for a protocol which is not spoken here as if it had not asked (RFC 9110 section 7.8). Node's
 * parser has left the connection by then, so it reads the request once more, without the asking.
 *
 * @param head what came behind the request in one packet with it
 */
export function serveWithoutUpgrade(
  server: Server,
  request: IncomingMessage,
  socket: Socket,
  head: Buffer,
): void {
  const { method, url, httpVersion, rawHeaders } = request;
  const lines = [`${String(method)} ${String(url)} HTTP/${httpVersion}`];
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] ?? '';
    if (name.toLowerCase() !== 'upgrade') lines.push(`${name}: ${rawHeaders[i + 1] ?? ''}`);
  }
  // Those of the first reading would pile up on a connection that asks again and again.
  for (const event of ['error', 'timeout']) socket.removeAllListeners(event);
  socket.unshift(Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), head]));
  server.emit('connection', socket);
}
