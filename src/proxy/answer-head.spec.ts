import { createServer, get, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { writeHead } from './answer-head.js';

const COOKIES = ['set-cookie', 'a=1', 'Set-Cookie', 'b=2', 'etag', '"x"', 'set-cookie', 'c=3'];

let before: (response: ServerResponse) => void;
const server = createServer((_request, response) => {
  before(response);
  writeHead(response, 200, 'Fine', COOKIES);
  response.end();
});

beforeAll(() => new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve)));
afterAll(() => {
  server.close();
});

async function answer(): Promise<IncomingMessage> {
  const { port } = server.address() as AddressInfo;
  return new Promise((resolve, reject) => {
    get({ port, host: '127.0.0.1', agent: false }, (response) => {
      response.resume();
      resolve(response);
    }).on('error', reject);
  });
}

test.each<[string, (response: ServerResponse) => void]>([
  ['nothing was set before', () => undefined],
  ['another header was set before', (response) => response.setHeader('connection', 'close')],
  ['the same was set before', (response) => response.setHeader('set-cookie', ['old=1', 'old=2'])],
])('each line of a name arrives where %s', async (_name, set) => {
  before = set;
  const { headers, statusMessage } = await answer();
  expect(headers['set-cookie']).toEqual(['a=1', 'b=2', 'c=3']);
  expect([statusMessage, headers.etag]).toEqual(['Fine', '"x"']);
});
