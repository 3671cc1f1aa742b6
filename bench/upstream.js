// @ts-check
// The API behind both proxies: the same small JSON document for everybody, after reading whatever was sent.
import { createServer } from 'node:http';

const size = Number(process.argv[2] ?? 1024);
const body = Buffer.from(JSON.stringify({ items: 'orders', filling: 'x'.repeat(Math.max(0, size - 33)) }));

const server = createServer((request, response) => {
  request.resume();
  response.writeHead(200, {
    'content-type': 'application/json; charset=utf-8',
    'content-length': body.length,
    etag: '"5f2c-18e7"',
    vary: 'Accept-Encoding',
  });
  response.end(body);
});
server.keepAliveTimeout = 120_000;
server.listen(0, '127.0.0.1', () => {
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  process.send?.({ port, length: body.length });
});
process.on('disconnect', () => process.exit(0));
