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
  // Thousands of connections may come to their end in one moment; there is nothing in these answers that differs.
  const answer = (code: UnparsedCode): string =>
    rawProblem(new CloakroomError(code), { secure, instance: 'unparsed' });
  const answers: Answers = {
    'headers-too-large': answer('headers-too-large'),
    'request-timeout': answer('request-timeout'),
    'bad-request': answer('bad-request'),
  };
  server.on('connect', (_request: IncomingMessage, socket: Socket) => {
    socket.on('error', () => socket.destroy());
    close(new Error('CONNECT'), socket, answers);
  });
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => {
    close(error, socket, answers);
  });
}

type UnparsedCode = 'headers-too-large' | 'request-timeout' | 'bad-request';
type Answers = Readonly<Record<UnparsedCode, string>>;

function close(error: NodeJS.ErrnoException, socket: Socket, answers: Answers): void {
  // As Node's own handler does: a half-written answer to the request before must not get an error in its middle.
  const current = (socket as { _httpMessage?: { headersSent: boolean } })._httpMessage;
  // What comes behind a request that said it is the last is nobody's; that one still gets its answer (RFC 9112 section 9.6).
  if (error.code === 'HPE_CLOSED_CONNECTION' && current != null && socket.writable) return;
  if (!socket.writable || current?.headersSent === true) {
    socket.destroy();
    return;
  }
  socket.end(answers[problemOf(error)], () => socket.destroy());
}

function problemOf({ code }: NodeJS.ErrnoException): UnparsedCode {
  if (code === 'HPE_HEADER_OVERFLOW') return 'headers-too-large';
  return code === 'ERR_HTTP_REQUEST_TIMEOUT' ? 'request-timeout' : 'bad-request';
}
