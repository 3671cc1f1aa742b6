// @ts-check
// What Cloakroom is measured against: the least a correct HTTP proxy in Node has to do. It streams both ways with
// back-pressure, drops hop-by-hop headers, and aborts one side when the other has gone. No session, no checks.
import { createServer } from 'node:http';
import { Agent } from 'undici';

const origin = process.argv[2] ?? '';
const agent = new Agent();

const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/** @typedef {import('node:http').IncomingMessage} IncomingMessage */
/** @typedef {import('node:http').ServerResponse} ServerResponse */

/**
 * The client library's own callbacks, without the layer that builds a header object nobody here reads.
 */
class Exchange {
  /** @type {ServerResponse} */
  #response;
  /** @type {((error?: Error) => void) | undefined} */
  #abort;
  #done = false;

  /** @param {ServerResponse} response */
  constructor(response) {
    this.#response = response;
    response.once('close', () => {
      if (!this.#done) this.#abort?.();
    });
  }

  /** @param {(error?: Error) => void} abort */
  onConnect(abort) {
    this.#abort = abort;
    if (this.#response.destroyed) abort();
  }

  /**
   * @param {number} status
   * @param {Buffer[]} raw
   * @param {() => void} resume
   */
  onHeaders(status, raw, resume) {
    /** @type {string[]} */
    const headers = [];
    for (let i = 0; i < raw.length; i += 2) {
      const name = /** @type {Buffer} */ (raw[i]).toString('latin1');
      if (!HOP_BY_HOP.has(name.toLowerCase())) {
        headers.push(name, /** @type {Buffer} */ (raw[i + 1]).toString('latin1'));
      }
    }
    this.#response.on('drain', resume);
    this.#response.writeHead(status, headers);
    return true;
  }

  /** @param {Buffer} chunk */
  onData(chunk) {
    return this.#response.write(chunk);
  }

  onComplete() {
    this.#done = true;
    this.#response.end();
  }

  onError() {
    this.#done = true;
    if (this.#response.headersSent) this.#response.destroy();
    else this.#response.writeHead(502).end();
  }
}

const server = createServer((request, response) => {
  /** @type {string[]} */
  const headers = [];
  const { rawHeaders } = request;
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = /** @type {string} */ (rawHeaders[i]);
    const lower = name.toLowerCase();
    if (lower !== 'host' && !HOP_BY_HOP.has(lower))
      headers.push(name, /** @type {string} */ (rawHeaders[i + 1]));
  }
  const hasBody =
    request.headers['content-length'] !== undefined || request.headers['transfer-encoding'] !== undefined;
  agent.dispatch(
    {
      origin,
      path: request.url ?? '/',
      method: /** @type {import('undici').Dispatcher.HttpMethod} */ (request.method),
      headers,
      body: hasBody ? request : null,
    },
    new Exchange(response),
  );
});
server.keepAliveTimeout = 75_000;
server.listen(0, '127.0.0.1', () => {
  const { port } = /** @type {import('node:net').AddressInfo} */ (server.address());
  process.send?.({ port });
});
process.on('disconnect', () => process.exit(0));
