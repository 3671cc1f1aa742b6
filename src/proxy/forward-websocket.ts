import { request as httpRequest, ServerResponse, type IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { Duplex } from 'node:stream';
import type { OpenSession } from '../store/session-records.js';
import { browserResponseHeaders } from './headers.js';
import { reasonPhrase } from './reason-phrase.js';
import type { Route, WebSocketRules } from './route-table.js';
import { isAccepted, type Handshake } from './websocket-handshake.js';
import type { WebSockets } from './websockets.js';

export interface Tunneling {
  request: IncomingMessage;
  /** Answers on the socket of the browser as long as that speaks HTTP. */
  response: ServerResponse;
  socket: Duplex;
  /** What came behind the request in one packet with it. */
  head: Buffer;
  handshake: Handshake;
  route: Route;
  websocket: WebSocketRules;
  /** Path and query as the upstream gets them. */
  path: string;
  /** Name and value in turns. */
  headers: string[];
  requestId: string;
  security: readonly (readonly [string, string])[];
  session: OpenSession | undefined;
  sockets: WebSockets;
  /** The upstream failed before a byte of its answer went on. */
  failed: (error: unknown) => void;
  /** Called once, when the tunnel or the answer is over. */
  over: () => void;
}

/**
 * Opens a WebSocket to the upstream and joins both ends. Frames pass untouched, compressed or not; only the borders between
 * them are followed, so that the connection can be closed as its protocol wants it.
 *
 * @see RFC 6455 section 4
 */
export function forwardWebSocket(tunneling: Tunneling): void {
  const { request, response, socket, handshake, route, path, headers, failed, over } = tunneling;
  const { origin: said } = request.headers;
  const origin = new URL(route.origin);
  const send = origin.protocol === 'https:' ? httpsRequest : httpRequest;
  const upstream = send({
    host: origin.hostname.replace(/^\[|\]$/g, ''),
    port: origin.port,
    path,
    method: 'GET',
    agent: false,
    // The origin has been checked; many an upstream wants to see it.
    headers: ['host', origin.host, ...headers, 'origin', said ?? '', ...handshakeHeaders(handshake)],
  });
  let isOver = false;
  const finish = (): void => {
    if (isOver) return;
    isOver = true;
    clearTimeout(timer);
    socket.removeListener('close', left);
    over();
  };
  const fail = (error: unknown): void => {
    if (isOver) return;
    finish();
    upstream.destroy();
    if (response.headersSent) socket.destroy();
    else failed(error);
  };
  const left = (): void => {
    finish();
    upstream.destroy();
  };
  const timer = setTimeout(() => {
    fail(Object.assign(new Error('no answer to the handshake'), { code: 'UND_ERR_HEADERS_TIMEOUT' }));
  }, route.answerWithin);
  socket.once('close', left);
  upstream.once('error', fail);
  upstream.once('upgrade', (answer, upstreamSocket, upstreamHead) => {
    clearTimeout(timer);
    if (isOver || !isAccepted(handshake, answer.headers)) {
      upstreamSocket.destroy();
      fail(Object.assign(new Error('not the answer to this handshake'), { code: 'UND_ERR_RES_UPGRADE' }));
      return;
    }
    socket.removeListener('close', left);
    response.detachSocket(socket as never);
    socket.write(switchingHead(tunneling, answer));
    tunneling.sockets.join({
      browser: socket,
      upstream: upstreamSocket,
      browserHead: tunneling.head,
      upstreamHead,
      session: tunneling.session,
      idle: tunneling.websocket.idle,
      over: finish,
    });
  });
  upstream.once('response', (answer) => {
    clearTimeout(timer);
    passAnswer(tunneling, answer, finish);
  });
  upstream.end();
}

function handshakeHeaders({ key, protocols, extensions }: Handshake): string[] {
  const headers = ['connection', 'Upgrade', 'upgrade', 'websocket'];
  headers.push('sec-websocket-version', '13', 'sec-websocket-key', key);
  if (protocols !== undefined) headers.push('sec-websocket-protocol', protocols);
  if (extensions !== undefined) headers.push('sec-websocket-extensions', extensions);
  return headers;
}

/** The 101 for the browser: the handshake's own lines, and what any answer of an upstream may bring. */
function switchingHead(tunneling: Tunneling, answer: IncomingMessage): Buffer {
  const { handshake, requestId, route } = tunneling;
  const lines = ['HTTP/1.1 101 Switching Protocols', 'connection: Upgrade', 'upgrade: websocket'];
  const accept = answer.headers['sec-websocket-accept'] ?? '';
  const protocol = answer.headers['sec-websocket-protocol'];
  const extensions = answer.headers['sec-websocket-extensions'];
  lines.push(`sec-websocket-accept: ${accept}`, `x-request-id: ${requestId}`);
  if (protocol !== undefined) lines.push(`sec-websocket-protocol: ${protocol}`);
  if (extensions !== undefined && handshake.extensions !== undefined) {
    lines.push(`sec-websocket-extensions: ${extensions}`);
  }
  const others = browserResponseHeaders({
    rawHeaders: answer.rawHeaders,
    allow: new Set(),
    cookies: route.cookies,
    cache: 'upstream',
    vary: [],
    requestId,
    security: [],
  });
  for (let i = 0; i < others.length; i += 2) {
    if (others[i]?.toLowerCase() === 'set-cookie') lines.push(`set-cookie: ${others[i + 1] ?? ''}`);
  }
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1');
}

/** The upstream did not want to: its answer is an HTTP answer like any other. */
function passAnswer(tunneling: Tunneling, answer: IncomingMessage, finish: () => void): void {
  const { response, route, requestId, security, socket } = tunneling;
  const headers = browserResponseHeaders({
    rawHeaders: answer.rawHeaders,
    allow: route.responseAllow,
    cookies: route.cookies,
    cache: route.cache,
    vary: route.vary,
    requestId,
    security,
  });
  response.setHeader('connection', 'close');
  const status = answer.statusCode ?? 502;
  response.writeHead(status, reasonPhrase(status, answer.statusMessage), headers);
  answer.pipe(response);
  answer.once('error', () => socket.destroy());
  answer.once('aborted', () => socket.destroy());
  response.once('close', finish);
}
