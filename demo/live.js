// @ts-check
// What the example API says by itself: an event stream, and a WebSocket that listens as well.
import { acceptWebSocket } from './web-socket.js';

/** @typedef {import('node:http').IncomingMessage} IncomingMessage */
/** @typedef {import('node:http').ServerResponse} ServerResponse */

const COATS = [
  'a grey overcoat',
  'a red raincoat',
  'a denim jacket',
  'a camel coat',
  'a velvet cape',
  'an old parka',
];

/**
 * What happens at the counter, as server-sent events.
 *
 * @param {IncomingMessage} request
 * @param {ServerResponse} response
 */
export function events(request, response) {
  response.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-store',
  });
  if (request.method === 'HEAD') {
    response.end();
    return;
  }
  let id = 0;
  const send = () => {
    id += 1;
    const ticket = 1 + Math.floor(Math.random() * 400);
    const coat = COATS[Math.floor(Math.random() * COATS.length)];
    const text = `${coat} ${Math.random() < 0.5 ? 'handed in' : 'given back'}`;
    const data = JSON.stringify({ id, time: new Date().toISOString(), ticket, text });
    // A reader that cannot keep up misses events; it does not make this process hold them.
    if (!response.writableNeedDrain) response.write(`id: ${String(id)}\nevent: coat\ndata: ${data}\n\n`);
  };
  send();
  const timer = setInterval(send, 1000);
  response.on('close', () => clearInterval(timer));
}

/**
 * A WebSocket: it says each second that it is there, and repeats what it hears.
 *
 * @param {IncomingMessage} request
 * @param {import('node:stream').Duplex} socket
 * @param {Buffer} head what came behind the request
 * @param {string} sub who is there
 */
export function counter(request, socket, head, sub) {
  const say = (/** @type {string} */ kind, /** @type {string} */ text) => {
    // As above: who does not read misses something.
    if (!socket.writableNeedDrain) talk?.send(JSON.stringify({ kind, text, time: new Date().toISOString() }));
  };
  const talk = acceptWebSocket(request, socket, head, (text) => say('echo', text));
  if (talk === undefined) return;
  say('hello', `The counter is open, ${sub}.`);
  let count = 0;
  const timer = setInterval(() => {
    count += 1;
    say('tick', `tick ${String(count)}`);
  }, 1000);
  socket.on('close', () => clearInterval(timer));
}
