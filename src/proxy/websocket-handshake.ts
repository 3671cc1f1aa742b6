import { createHash } from 'node:crypto';
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { CloakroomError } from '../errors.js';

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const VERSION = '13';
/** 16 bytes in Base64. */
const KEY = /^[A-Za-z0-9+/]{21}[AQgw]==$/;
const TOKENS = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:[ \t]*,[ \t]*[!#$%&'*+\-.^_`|~0-9A-Za-z]+)*$/;

/** What of a handshake goes on to the upstream besides what every request may bring. */
export interface Handshake {
  key: string;
  /** As the browser listed them. */
  protocols: string | undefined;
  extensions: string | undefined;
}

export function asksForWebSocket({ headers }: IncomingMessage): boolean {
  return headers.upgrade?.toLowerCase() === 'websocket';
}

/**
 * Reads the opening handshake of a client (RFC 6455 section 4.2.1). Lines that may stand there once and are repeated have
 * been joined by Node, and are then none of the values that are looked for.
 *
 * @throws {CloakroomError} `bad-request`, saying what is wrong
 */
export function readHandshake(request: IncomingMessage): Handshake {
  const { headers, method, httpVersion } = request;
  if (method !== 'GET' || httpVersion !== '1.1') throw refused('It is a GET of HTTP/1.1.');
  if (!names(headers.connection, 'upgrade')) throw refused('"Connection" must name "Upgrade".');
  if (headers['sec-websocket-version'] !== VERSION) {
    throw refused(`"Sec-WebSocket-Version" must be ${VERSION}.`);
  }
  // It would be taken for frames.
  if (headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0') {
    throw refused('It has no body.');
  }
  const key = headers['sec-websocket-key'] ?? '';
  if (!KEY.test(key)) throw refused('"Sec-WebSocket-Key" must be 16 bytes in Base64.');
  const protocols = headers['sec-websocket-protocol'];
  if (protocols !== undefined && !TOKENS.test(protocols)) {
    throw refused('"Sec-WebSocket-Protocol" must be a list of names.');
  }
  return { key, protocols, extensions: headers['sec-websocket-extensions'] };
}

/** The header lines by which the upstream is asked for the same, as name and value in turns. */
export function handshakeHeaders({ key, protocols, extensions }: Handshake): string[] {
  const headers = ['connection', 'Upgrade', 'upgrade', 'websocket'];
  headers.push('sec-websocket-version', VERSION, 'sec-websocket-key', key);
  if (protocols !== undefined) headers.push('sec-websocket-protocol', protocols);
  if (extensions !== undefined) headers.push('sec-websocket-extensions', extensions);
  return headers;
}

/** Whether an upstream's 101 is the answer to this handshake (RFC 6455 section 4.1). */
export function isAccepted(handshake: Handshake, headers: IncomingHttpHeaders): boolean {
  if (headers.upgrade?.toLowerCase() !== 'websocket' || !names(headers.connection, 'upgrade')) return false;
  if (headers['sec-websocket-accept'] !== acceptOf(handshake.key)) return false;
  const chosen = headers['sec-websocket-protocol'];
  if (chosen !== undefined && !names(handshake.protocols, chosen, false)) return false;
  // Nobody may switch on what was not offered.
  return headers['sec-websocket-extensions'] === undefined || handshake.extensions !== undefined;
}

function acceptOf(key: string): string {
  return createHash('sha1')
    .update(key + GUID)
    .digest('base64');
}

function names(list: string | undefined, wanted: string, foldCase = true): boolean {
  const fold = (text: string): string => (foldCase ? text.toLowerCase() : text);
  return list?.split(',').some((name) => fold(name.trim()) === fold(wanted)) === true;
}

function refused(detail: string): CloakroomError {
  return new CloakroomError('bad-request', {
    public: { reason: 'handshake', detail: `This is no opening handshake of a WebSocket. ${detail}` },
  });
}
