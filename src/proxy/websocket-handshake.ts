import { createHash } from 'node:crypto';
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
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
 * Reads the opening handshake of a client (RFC 6455 section 4.2.1).
 * @returns undefined for what is none
 */
export function readHandshake(request: IncomingMessage): Handshake | undefined {
  const { headers, method, httpVersion, rawHeaders } = request;
  if (method !== 'GET' || httpVersion !== '1.1' || !asksForWebSocket(request)) return undefined;
  if (!names(headers.connection, 'upgrade') || headers['sec-websocket-version'] !== '13') return undefined;
  // A body would be taken for frames.
  if (headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0')
    return undefined;
  const key = headers['sec-websocket-key'] ?? '';
  if (!KEY.test(key) || isRepeated(rawHeaders, 'sec-websocket-key') || isRepeated(rawHeaders, 'upgrade')) {
    return undefined;
  }
  const protocols = headers['sec-websocket-protocol'];
  if (protocols !== undefined && !TOKENS.test(protocols)) return undefined;
  return { key, protocols, extensions: headers['sec-websocket-extensions'] };
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

function isRepeated(rawHeaders: readonly string[], name: string): boolean {
  let count = 0;
  for (let i = 0; i < rawHeaders.length; i += 2) if (rawHeaders[i]?.toLowerCase() === name) count += 1;
  return count > 1;
}
