import {
  request as httpRequest,
  type ClientRequest,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { CloakroomError } from '../errors.js';
import type { OpenSession } from '../store/session-records.js';
import { hasForeignCoding } from './answer-head.js';
import { MOST_INTERIM_ANSWERS } from './early-hints.js';
import { isStreamHead } from './event-streams.js';
import { browserResponseHeaders } from './headers.js';
import { reasonPhrase } from './reason-phrase.js';
import { UPSTREAM_ANSWER, type RefusedTokens } from './refused-token.js';
import type { Route, WebSocketRules } from './route-table.js';
import { upstreamStepUp } from './upstream-step-up.js';
import type { Upstream } from './upstream.js';
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
  const said = request.headers.origin;
  let upstream: ClientRequest | undefined;
  let timer: NodeJS.Timeout | undefined;
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
    upstream?.destroy();
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
  /** @param isLast whether this was the second attempt; nothing is sent before there is a connection, so there may be one */
  const attempt = (to: Upstream, isLast: boolean): void => {
    to.connect((error, connection) => {
      const next = error === null || isLast || isOver ? undefined : route.upstreams.pickOther(to);
      if (isOver) connection?.destroy();
      else if (connection !== null) send(to, connection);
      else if (next === undefined) fail(error);
      else attempt(next, true);
    });
  };
  const send = (to: Upstream, connection: Duplex): void => {
    timer = setTimeout(() => {
      fail(new CloakroomError('upstream-timeout'));
    }, route.firstByte);
    const asked = httpRequest({
      createConnection: () => connection,
      path: tunneling.path,
      method: 'GET',
      headers: [
        ...['host', to.url.host, ...tunneling.headers, ...handshakeHeaders(handshake)],
        // It has been checked, and many an upstream wants to see it.
        ...(said === undefined || route.requestAllow.has('origin') ? [] : ['origin', said]),
      ],
    });
    upstream = asked;
    let interim = 0;
    asked.on('information', () => {
      interim += 1;
      if (interim > MOST_INTERIM_ANSWERS) fail(new CloakroomError('upstream-invalid'));
    });
    asked.on('error', fail);
    asked.once('upgrade', (answer, upstreamSocket, upstreamHead) => {
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
        spend: session && route.bandwidth?.of(session.handle),
      });
    });
    asked.once('response', (answer) => {
      clearTimeout(timer);
      asked.setTimeout(route.idle, () => {
        fail(new CloakroomError('upstream-timeout'));
      });
      answer.once('error', fail);
      response.once('close', end);
      try {
        passAnswer(tunneling, answer);
      } catch (error) {
        // What one parser takes need not be what may be sent.
        fail(error);
      }
    });
    asked.end();
  };
  socket.once('end', left);
  socket.once('close', left);
  attempt(route.upstreams.pick(), false);
}

/** @throws {CloakroomError} what the browser is told instead */
function passAnswer(tunneling: Tunneling, answer: IncomingMessage): void {
  const { response, session, refused } = tunneling;
  const { statusCode: status = 502, rawHeaders } = answer;
  // Switches without saying to what.
  if (status === 101) throw new CloakroomError('upstream-invalid');
  const stepUp = upstreamStepUp(status, rawHeaders, session?.contents);
  if (stepUp !== undefined) throw stepUp;
  const headers = ['connection', 'close', ...answerHeaders(tunneling, answer)];
  // Nobody reads one who asked for a socket, and nobody would end it with its session.
  if (isStreamHead(headers) || hasForeignCoding(answer.headers)) throw new CloakroomError('upstream-invalid');
  if (status === 401) {
    headers.push(...UPSTREAM_ANSWER);
    // For the next handshake; this one is answered.
    void refused.renewal({ ...tunneling, isRepeatable: false }, rawHeaders);
  }
  response.writeHead(status, reasonPhrase(status, answer.statusMessage), headers);
  answer.pipe(response);
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
