import type { IncomingMessage, Server } from 'node:http';
import type { Socket } from 'node:net';
import { CloakroomError } from '../errors.js';
import { rawProblem } from './problem.js';

/**
 * Has a server answer what its parser gives up on, and CONNECT, which Node would close without a word: there is no request to
 * answer, only a connection to close with a reason.
 *
 * @param secure whether browsers come over https
 */
export function answerUnparsed(server: Pick<Server, 'on'>, secure: boolean): void {
  server.on('connect', (_request: IncomingMessage, socket: Socket) => {
    socket.on('error', () => socket.destroy());
    close(new Error('CONNECT'), socket, secure);
  });
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => {
    close(error, socket, secure);
  });
}

function close(error: NodeJS.ErrnoException, socket: Socket, secure: boolean): void {
  // As Node's own handler does: a half-written answer to the request before must not get an error in its middle.
  const current = (socket as { _httpMessage?: { headersSent: boolean } })._httpMessage;
  // What comes behind a request that said it is the last is nobody's; that one still gets its answer (RFC 9112 section 9.6).
  if (error.code === 'HPE_CLOSED_CONNECTION' && current != null && socket.writable) return;
  if (!socket.writable || current?.headersSent === true) {
    socket.destroy();
    return;
  }
  const code =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? 'headers-too-large'
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? 'request-timeout'
        : 'bad-request';
  socket.end(rawProblem(new CloakroomError(code), { secure, instance: 'unparsed' }), () => socket.destroy());
}
