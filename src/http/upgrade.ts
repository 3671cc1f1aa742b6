import type { IncomingMessage, OutgoingMessage, Server } from 'node:http';
import type { Socket } from 'node:net';

/**
 * Node hands a connection over as soon as it has read a request for another protocol, even while the request before is being
 * answered. Nothing may be written into that answer.
 */
export function afterAnswer(socket: Socket, then: () => void): void {
  const { _httpMessage: current } = socket as { _httpMessage?: OutgoingMessage | null };
  if (current == null) then();
  else current.once('close', then);
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
  socket.unshift(Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1'), head]));
  server.emit('connection', socket);
}
