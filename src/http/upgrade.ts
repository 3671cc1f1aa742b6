import { ServerResponse, type IncomingMessage, type OutgoingMessage, type Server } from 'node:http';
import type { Socket } from 'node:net';

/** Milliseconds for the last answer on a connection to be read. */
const LINGER = 2000;

/** Bytes behind a request for another protocol that are read while it waits. */
const MOST_BEHIND = 16 * 1024;

/**
 * Node hands a connection over as soon as it has read a request for another protocol, even while requests before it are being
 * answered. Nothing may be written into those answers, and until they are over they need what Node's server does for its
 * connections: a slow reader is waited for, a silent one is not, and a client that has said its last word ends them.
 *
 * @param head what came behind the request in one packet with it
 * @param then is given what came behind it until then; not called where the connection ended before
 */
export function afterAnswers(socket: Socket, head: Buffer, then: (head: Buffer) => void): void {
  if (currentAnswer(socket) == null) {
    // Set for the wait for a next request.
    socket.setTimeout(0);
    then(head);
    return;
  }
  const behind = [head];
  let length = head.length;
  // The end of a connection is not told before all that came ahead of it is read.
  const keep = (chunk: Buffer): void => {
    behind.push(chunk);
    length += chunk.length;
    if (length > MOST_BEHIND) socket.pause();
  };
  const leave = (): void => {
    socket.end();
  };
  const cut = (): void => {
    socket.destroy();
  };
  const next = (): void => {
    if (socket.destroyed) return;
    const current = currentAnswer(socket);
    if (current != null) {
      current.once('close', next);
      return;
    }
    socket.off('data', keep).off('end', leave).off('timeout', cut).off('drain', wakeAnswer);
    // As Node hands it over: nothing is read before somebody wants to.
    socket.pause();
    (socket as { readableFlowing: boolean | null }).readableFlowing = null;
    afterAnswers(socket, Buffer.concat(behind), then);
  };
  socket.on('data', keep).on('end', leave).on('timeout', cut).on('drain', wakeAnswer);
  next();
}

/** The answer that is being written on a connection. */
function currentAnswer(socket: Socket): OutgoingMessage | null | undefined {
  return (socket as { _httpMessage?: OutgoingMessage | null })._httpMessage;
}

function wakeAnswer(this: Socket): void {
  const current = currentAnswer(this);
  if (current?.writableNeedDrain === true) current.emit('drain');
}

/**
 * An answer in HTTP on a connection that Node has handed over, and the last one there: our side ends behind it, and the other
 * has a moment to read it.
 */
export function answerOn(socket: Socket, request: IncomingMessage): ServerResponse {
  const response = new ServerResponse(request);
  response.shouldKeepAlive = false;
  response.assignSocket(socket);
  socket.on('drain', wakeAnswer);
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
