// @ts-check
// An upstream for streams: WebSockets whose messages come back, and events that are sent at a fixed pace.
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { EVENT_EVERY, FRAME_FROM_BROWSER, FRAME_TO_BROWSER } from './stream-messages.js';

const server = createServer((_request, response) => {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  const timer = setInterval(() => {
    response.write(`data: ${String(process.hrtime.bigint())}\n\n`);
  }, EVENT_EVERY);
  response.once('close', () => clearInterval(timer));
});
server.on('upgrade', (request, socket) => {
  const accept = createHash('sha1')
    .update(`${String(request.headers['sec-websocket-key'])}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`)
    .digest('base64');
  let received = 0;
  socket.on('error', () => socket.destroy());
  socket.on('end', () => socket.end());
  socket.on('data', (chunk) => {
    received += chunk.length;
    for (; received >= FRAME_FROM_BROWSER.length; received -= FRAME_FROM_BROWSER.length) {
      socket.write(FRAME_TO_BROWSER);
    }
  });
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
  );
});
server.listen(0, '127.0.0.1', () => {
  process.send?.({ port: /** @type {import('node:net').AddressInfo} */ (server.address()).port });
});
process.on('disconnect', () => process.exit(0));
