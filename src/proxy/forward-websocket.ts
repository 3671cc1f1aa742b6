import { request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { Socket } from 'node:net';
import { CloakroomError } from '../errors.js';
import type { OpenSession } from '../store/session-records.js';
import { MOST_INTERIM_ANSWERS } from './early-hints.js';
import { browserResponseHeaders } from './headers.js';
import { reasonPhrase } from './reason-phrase.js';
import { UPSTREAM_ANSWER, type RefusedTokens } from './refused-token.js';
import type { Route, WebSocketRules } from './route-table.js';
import { upstreamStepUp } from './upstream-step-up.js';
import { handshakeHeaders, isAccepted, type Handshake } from './websocket-handshake.js';
import type { WebSockets } from './websockets.js';

export interface Tunneling {
  request: IncomingMessage;
  /** Answers on the socket of the browser as long as that speaks HTTP. */
  response: ServerResponse;
  socket: Socket;
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
  accessToken: string | undefined;
  refused: RefusedTokens;
  sockets: WebSockets;
  /** Called whenever the browser sends data; undefined: that is no use of the session. */
  used: (() => void) | undefined;
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
  const { request, response, socket, head, handshake, route, sockets, session, used, over } = tunneling;
  const origin = new URL(route.origin);
  const said = request.headers.origin;
  const send = origin.protocol === 'https:' ? httpsRequest : httpRequest;
  const upstream = send({
    host: origin.hostname.replace(/^\[|\]$/g, ''),
    port: origin.port,
    path: tunneling.path,
    method: 'GET',
    // A connection of its own: it will not come back to a pool.
    agent: false,
    headers: [
      ...['host', origin.host, ...tunneling.headers, ...handshakeHeaders(handshake)],
      // It has been checked, and many an upstream wants to see it.
      ...(said === undefined || route.requestAllow.has('origin') ? [] : ['origin', said]),
    ],
  });
  let isOver = false;
  const finish = (): void => {
    isOver = true;
    clearTimeout(timer);
    socket.removeListener('end', left);
    socket.removeListener('close', left);
  };
  const end = (): void => {
    if (isOver) return;
    finish();
    over();
    upstream.destroy();
  };
  const fail = (error: unknown): void => {
    if (isOver) return;
    end();
    if (response.headersSent) socket.destroy();
    else tunneling.failed(error);
  };
  const left = (): void => {
    end();
    socket.destroy();
  };
  const timer = setTimeout(() => {
    fail(new CloakroomError('upstream-timeout'));
  }, route.answerWithin);
  socket.once('end', left);
  socket.once('close', left);
  let interim = 0;
  upstream.on('information', () => {
    interim += 1;
    if (interim > MOST_INTERIM_ANSWERS) fail(new CloakroomError('upstream-invalid'));
  });
  upstream.on('error', fail);
  upstream.once('upgrade', (answer, upstreamSocket, upstreamHead) => {
    upstreamSocket.on('error', () => upstreamSocket.destroy());
    if (isOver || !isAccepted(handshake, answer.headers)) {
      upstreamSocket.destroy();
      fail(new CloakroomError('upstream-invalid'));
      return;
    }
    finish();
    response.detachSocket(socket);
    socket.write(switchingHead(tunneling, answer));
    sockets.join({
      ...{ browser: socket, upstream: upstreamSocket, browserHead: head, upstreamHead },
      ...{ session, used, over, idle: tunneling.websocket.idle },
    });
  });
  upstream.once('response', (answer) => {
    clearTimeout(timer);
    const { statusCode: status = 502, rawHeaders } = answer;
    // Switches without saying to what.
    if (status === 101) {
      fail(new CloakroomError('upstream-invalid'));
      return;
    }
    const stepUp = upstreamStepUp(status, rawHeaders, session?.contents);
    if (stepUp !== undefined) {
      answer.resume();
      fail(stepUp);
      return;
    }
    upstream.setTimeout(route.idle, () => {
      fail(new CloakroomError('upstream-timeout'));
    });
    answer.once('error', fail);
    response.once('close', end);
    try {
      const headers = ['connection', 'close', ...answerHeaders(tunneling, answer)];
      if (status === 401) {
        headers.push(...UPSTREAM_ANSWER);
        // For the next handshake; this one is answered.
        void tunneling.refused.renewal({ ...tunneling, isRepeatable: false }, rawHeaders);
      }
      response.writeHead(status, reasonPhrase(status, answer.statusMessage), headers);
      answer.pipe(response);
    } catch (error) {
      // What one parser takes need not be what may be sent.
      fail(error);
    }
  });
  upstream.end();
}

/** A handshake is answered under the rules for any answer, whether it opens the tunnel or not. */
function answerHeaders({ route, requestId, security }: Tunneling, { rawHeaders }: IncomingMessage): string[] {
  return browserResponseHeaders({
    rawHeaders,
    allow: route.responseAllow,
    cookies: route.cookies,
    cache: route.cache,
    vary: route.vary,
    requestId,
    security,
  });
}

function switchingHead(tunneling: Tunneling, answer: IncomingMessage): Buffer {
  const lines = ['HTTP/1.1 101 Switching Protocols', 'connection: Upgrade', 'upgrade: websocket'];
  const headers = answerHeaders(tunneling, answer);
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] ?? '';
    // There is no body (RFC 9110 section 8.6).
    if (name.toLowerCase() !== 'content-length') lines.push(`${name}: ${headers[i + 1] ?? ''}`);
  }
  return Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1');
}
