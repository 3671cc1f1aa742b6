import type { Socket } from 'node:net';

/**
 * Resets a connection. After an end of our own that is not possible: libuv refuses, Node forgets to close the handle, and the
 * process spins for ever at its exit.
 */
export function reset(socket: Socket): void {
  if (socket.writableEnded) socket.destroy();
  else socket.resetAndDestroy();
}
