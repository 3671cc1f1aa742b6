import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { afterEach, expect, test } from '@jest/globals';
import { TabStream } from './tab-stream.js';

const MINUTE = 60_000;
const server = createServer();
const sockets: Socket[] = [];

afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  server.close();
});

/** A real answer, whose reader has stopped reading. */
async function answer(): Promise<ServerResponse> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
  sockets.push(socket.pause());
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  const [, response] = (await once(server, 'request')) as [unknown, ServerResponse];
  return response;
}

test('a reader that does not read is cut off instead of being remembered for', async () => {
  const response = await answer();
  const now = Date.now();
  const times = { idle: 30 * MINUTE, warnBefore: MINUTE, absoluteAt: now + 60 * MINUTE, touchedAt: now };
  const stream = new TabStream(response, times);
  stream.begin();
  stream.tick(now + MINUTE);
  expect([response.destroyed, response.writableLength < 1024]).toEqual([false, true]);
  // More than the network holds between the two.
  response.write(Buffer.alloc(32 * 1024 * 1024));
  stream.used(now + MINUTE);
  expect(response.destroyed).toBe(true);
  // Nobody is left to be told.
  stream.used(now + 2 * MINUTE);
  stream.tick(now + 2 * MINUTE);
  stream.ended('user');
  stream.leave();
});
