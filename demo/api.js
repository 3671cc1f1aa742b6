// @ts-check
// The example API behind Cloakroom. It knows nothing of cookies or sessions: it wants an access token and says what it got.
import { createHash } from 'node:crypto';
import { createServer } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createRemoteJWKSet, jwtVerify } from 'jose';
import { catalogue, coat, ordersCsv } from './files.js';
import { counter, events } from './live.js';

/** @typedef {import('node:http').IncomingMessage} IncomingMessage */
/** @typedef {import('node:http').ServerResponse} ServerResponse */
/** @typedef {{ claims: import('jose').JWTPayload, token: string }} Caller */

/** Headers whose values may be repeated. Of all others only the names are, so that nothing secret is echoed by accident. */
const SHOWN_HEADERS = new Set([
  'accept',
  'accept-encoding',
  'accept-language',
  'cache-control',
  'connection',
  'content-length',
  'content-type',
  'forwarded',
  'host',
  'origin',
  'pragma',
  'priority',
  'sec-ch-ua',
  'sec-ch-ua-mobile',
  'sec-ch-ua-platform',
  'sec-fetch-dest',
  'sec-fetch-mode',
  'sec-fetch-site',
  'traceparent',
  'user-agent',
  'via',
  'x-csrf',
  'x-forwarded-for',
  'x-forwarded-host',
  'x-forwarded-port',
  'x-forwarded-prefix',
  'x-forwarded-proto',
  'x-request-id',
]);

/** @type {Record<string, { number: string, item: string, placed: string, status: string, total: string }[]>} */
const ORDERS = {
  alice: [
    {
      number: 'A-1042',
      item: 'Wool overcoat, charcoal',
      placed: '2026-11-03',
      status: 'delivered',
      total: '€ 289.00',
    },
    {
      number: 'A-1057',
      item: 'Cedar hangers, set of six',
      placed: '2026-11-12',
      status: 'on its way',
      total: '€ 24.50',
    },
    {
      number: 'A-1063',
      item: 'Silk scarf, midnight',
      placed: '2026-11-19',
      status: 'being packed',
      total: '€ 61.00',
    },
  ],
  bob: [
    {
      number: 'B-2210',
      item: 'Waxed rain jacket, olive',
      placed: '2026-10-28',
      status: 'delivered',
      total: '€ 175.00',
    },
    {
      number: 'B-2231',
      item: 'Leather gloves, brown',
      placed: '2026-11-17',
      status: 'on its way',
      total: '€ 48.90',
    },
  ],
};

/**
 * @param {object} options
 * @param {number} options.port 0 takes a free one
 * @param {string} [options.host]
 * @param {string} options.issuer whose tokens it believes
 * @param {string} [options.audience] what a token must be for
 * @param {string} [options.jwksUri] where the issuer's keys are
 * @returns {Promise<{ server: import('node:http').Server, close: () => Promise<void> }>}
 */
export async function startApi({
  port,
  host = '127.0.0.1',
  issuer,
  audience = 'http://127.0.0.1:3002/',
  jwksUri = new URL('/jwks', issuer).href,
}) {
  const keys = createRemoteJWKSet(new URL(jwksUri), { timeoutDuration: 3000, cooldownDuration: 1000 });

  /**
   * @param {IncomingMessage} request
   * @returns {Promise<Caller>}
   */
  const authenticate = async (request) => {
    const token = /^Bearer ([\w.~+/-]+=*)$/i.exec(request.headers.authorization ?? '')?.[1];
    if (token === undefined) throw new Refusal('The request carries no bearer token.');
    try {
      const options = { issuer, audience, algorithms: ['RS256'], typ: 'at+jwt', clockTolerance: 5 };
      return { token, claims: (await jwtVerify(token, keys, options)).payload };
    } catch (error) {
      const code = /** @type {{ code?: unknown }} */ (error).code;
      if (typeof code !== 'string' || code === 'ERR_JWKS_TIMEOUT' || code === 'ERR_JOSE_GENERIC') throw error;
      throw new Refusal(
        code === 'ERR_JWT_EXPIRED' ? 'The token has expired.' : 'The token is not valid here.',
      );
    }
  };

  const server = createServer((request, response) => {
    serve(request, response, authenticate).catch((/** @type {unknown} */ error) => {
      if (response.headersSent || response.destroyed) {
        response.destroy();
      } else if (error instanceof Refusal) {
        const challenge = `Bearer realm="demo-api", error="invalid_token", error_description="${error.message}"`;
        json(
          response,
          401,
          { error: 'invalid_token', message: error.message },
          { 'www-authenticate': challenge },
        );
      } else {
        const message = 'The keys of the identity provider cannot be read.';
        json(response, 503, { error: 'temporarily_unavailable', message }, { 'retry-after': '2' });
      }
    });
  });
  /** @type {Set<import('node:stream').Duplex>} */
  const sockets = new Set();
  server.on('upgrade', (request, socket, head) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    // The page may leave without a word.
    socket.on('error', () => socket.destroy());
    upgrade(request, socket, head, authenticate).catch((/** @type {unknown} */ error) => {
      decline(socket, error instanceof Refusal ? '401 Unauthorized' : '503 Service Unavailable');
    });
  });
  // An upload may take as long as it takes.
  server.requestTimeout = 0;

  await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => resolve(undefined));
  });
  return {
    server,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
        for (const socket of sockets) socket.destroy();
      }),
  };
}

class Refusal extends Error {}

/**
 * @param {IncomingMessage} request
 * @param {ServerResponse} response
 * @param {(request: IncomingMessage) => Promise<Caller>} authenticate
 */
async function serve(request, response, authenticate) {
  const path = (request.url ?? '/').split('?', 1)[0] ?? '/';
  if (path === '/livez') {
    json(response, 200, { status: 'ok' });
    return;
  }
  const caller = await authenticate(request);

  if (path === '/api/hello') {
    request.resume();
    json(response, 200, hello(request, caller));
  } else if (path === '/api/orders' && isRead(request, response)) {
    json(response, 200, { orders: ORDERS[String(caller.claims.sub)] ?? [] });
  } else if (path === '/api/live/events' && isRead(request, response)) {
    events(request, response);
  } else if (path.startsWith('/api/files/') && isRead(request, response)) {
    await file(response, path.slice('/api/files/'.length), String(caller.claims.sub));
  } else if (path === '/api/upload') {
    if (request.method === 'POST') await upload(request, response);
    else json(response, 405, { error: 'method_not_allowed' }, { allow: 'POST' });
  } else if (!response.headersSent) {
    json(response, 404, { error: 'not_found', message: 'The API has nothing at this address.' });
  }
}

/**
 * @param {IncomingMessage} request
 * @param {import('node:stream').Duplex} socket
 * @param {Buffer} head
 * @param {(request: IncomingMessage) => Promise<Caller>} authenticate
 */
async function upgrade(request, socket, head, authenticate) {
  if (request.url?.split('?', 1)[0] !== '/api/live/counter') {
    decline(socket, '404 Not Found');
    return;
  }
  const { claims } = await authenticate(request);
  counter(request, socket, head, String(claims.sub));
}

/**
 * @param {import('node:stream').Duplex} socket
 * @param {string} status
 */
function decline(socket, status) {
  socket.end(`HTTP/1.1 ${status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
}

/**
 * @param {IncomingMessage} request
 * @param {ServerResponse} response
 */
function isRead(request, response) {
  if (request.method === 'GET' || request.method === 'HEAD') return true;
  json(response, 405, { error: 'method_not_allowed' }, { allow: 'GET, HEAD' });
  return false;
}

/**
 * @param {IncomingMessage} request
 * @param {Caller} caller
 */
function hello(request, { claims, token }) {
  /** @type {Record<string, string>} */
  const headers = {};
  for (const [name, value] of Object.entries(request.headers)) {
    const text = Array.isArray(value) ? value.join(', ') : String(value);
    if (name === 'authorization')
      headers[name] = `Bearer (a token of ${String(token.length)} characters, not repeated)`;
    else headers[name] = SHOWN_HEADERS.has(name) && !text.includes(token) ? text : '(present, not repeated)';
  }
  return {
    message: `Hello ${String(claims.sub)}, this is the API.`,
    time: new Date().toISOString(),
    request: { method: request.method, path: request.url, headers },
    received: {
      authorization: true,
      cookie: request.headers.cookie !== undefined,
      csrf: request.headers['x-csrf'] !== undefined,
    },
    token: {
      // Eight characters of a hash tell two tokens apart and are worth nothing.
      fingerprint: createHash('sha256').update(token).digest('hex').slice(0, 8),
      subject: claims.sub,
      issuer: claims.iss,
      audience: claims.aud,
      client: claims['client_id'],
      scope: claims['scope'],
      issuedAt: instant(claims.iat),
      expiresAt: instant(claims.exp),
    },
  };
}

/** @param {number | undefined} seconds */
function instant(seconds) {
  return seconds === undefined ? undefined : new Date(seconds * 1000).toISOString();
}

/**
 * @param {ServerResponse} response
 * @param {string} name
 * @param {string} sub whose
 */
async function file(response, name, sub) {
  const headers = {
    'x-content-type-options': 'nosniff',
    'content-disposition': `attachment; filename="${name}"`,
  };
  response.req.resume();
  if (name === 'coat.svg') {
    response.writeHead(200, { ...headers, 'content-type': 'image/svg+xml', 'content-disposition': 'inline' });
    response.end(coat(sub));
  } else if (name === 'orders.csv') {
    response.writeHead(200, { ...headers, 'content-type': 'text/csv; charset=utf-8' });
    response.end(ordersCsv(ORDERS[sub] ?? []));
  } else if (name === 'catalogue.csv') {
    response.writeHead(200, { ...headers, 'content-type': 'text/csv; charset=utf-8' });
    // No faster than it is read, and not to the end when nobody does.
    await pipeline(Readable.from(catalogue()), response);
  } else {
    json(response, 404, { error: 'not_found', message: 'There is no such file.' });
  }
}

/**
 * @param {IncomingMessage} request
 * @param {ServerResponse} response
 */
async function upload(request, response) {
  const hash = createHash('sha256');
  let size = 0;
  for await (const chunk of request) {
    const bytes = /** @type {Buffer} */ (chunk);
    size += bytes.length;
    hash.update(bytes);
  }
  json(response, 200, { size, sha256: hash.digest('hex'), type: request.headers['content-type'] ?? null });
}

/**
 * @param {ServerResponse} response
 * @param {number} status
 * @param {unknown} body
 * @param {Record<string, string>} [headers]
 */
function json(response, status, body, headers = {}) {
  // A body nobody will read is thrown away, or the connection could not be used again.
  response.req.resume();
  response.writeHead(status, {
    'content-type': 'application/json; charset=utf-8',
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...headers,
  });
  response.end(JSON.stringify(body));
}
