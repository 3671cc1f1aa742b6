import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { connect, type AddressInfo, type Socket } from 'node:net';
import { afterEach, expect, test } from '@jest/globals';
import { afterAnswers } from './upgrade.js';

const sockets: Socket[] = [];
let server: Server;

afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  server.close();
});

/** Both requests in one packet. @returns the connection as its client has it, and as the server handed it over */
async function pipelined(
  answer: (response: ServerResponse) => void,
  then: () => void,
): Promise<[Socket, Socket]> {
  server = createServer((_request, response) => {
    answer(response);
  });
  server.timeout = 200;
  server.on('upgrade', (_request: IncomingMessage, socket: Socket, head: Buffer) => {
    socket.on('error', () => socket.destroy());
    afterAnswers(socket, head, then);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = connect((server.address() as AddressInfo).port, '127.0.0.1').pause();
  sockets.push(client);
  const handedOver = once(server, 'upgrade') as Promise<[IncomingMessage, Socket, Buffer]>;
  client.write(
    'GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: y\r\n\r\n',
  );
  const [, socket] = await handedOver;
  return [client, socket];
}

test('A-116 a client that reads nothing of the answer before is cut off when the server has waited long enough', async () => {
  let served = 0;
  const [, socket] = await pipelined(
    (response) => response.end(Buffer.alloc(32 * 1024 * 1024)),
    () => (served += 1),
  );
  await once(socket, 'close');
  expect(served).toBe(0);
});

test('a client that sends more and more behind it is not read any further', async () => {
  const [client, socket] = await pipelined(
    (response) => setInterval(() => response.write('x'), 50).unref(),
    () => undefined,
  );
  const sent = client.write(Buffer.alloc(64 * 1024 * 1024));
  expect(sent).toBe(false);
  let read = 0;
  socket.on('data', (chunk: Buffer) => (read += chunk.length));
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(socket.isPaused()).toBe(true);
  expect(read).toBeLessThan(1024 * 1024);
});
