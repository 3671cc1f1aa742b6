// @ts-check
// As much of RFC 6455 as the example API needs to talk to a page: text, ping and close, without extensions.
import { createHash } from 'node:crypto';

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const TEXT = 1;
const CLOSE = 8;
const PING = 9;
const PONG = 10;
/** Bytes. Nobody types more. */
const LONGEST = 4096;

/** Close codes, RFC 6455 section 7.4.1. */
const PROTOCOL_ERROR = 1002;
const UNSUPPORTED = 1003;
const INVALID_TEXT = 1007;
const TOO_BIG = 1009;

/**
 * Completes the opening handshake (section 4.2.2).
 *
 * @param {import('node:http').IncomingMessage} request
 * @param {import('node:stream').Duplex} socket
 * @param {Buffer} head what came behind the request
 * @param {(text: string) => void} heard called for each message
 * @returns {{ send: (text: string) => void } | undefined} undefined for what is no handshake, which is answered
 */
export function acceptWebSocket(request, socket, head, heard) {
  const key = request.headers['sec-websocket-key'];
  const version = request.headers['sec-websocket-version'];
  if (request.headers.upgrade?.toLowerCase() !== 'websocket' || key === undefined || version !== '13') {
    socket.end(
      'HTTP/1.1 426 Upgrade Required\r\nsec-websocket-version: 13\r\nconnection: close\r\ncontent-length: 0\r\n\r\n',
    );
    return undefined;
  }
  const accept = createHash('sha1')
    .update(key + GUID)
    .digest('base64');
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: ${accept}\r\n\r\n`,
  );

  let rest = Buffer.alloc(0);
  let isClosed = false;
  const close = (/** @type {Buffer} */ payload) => {
    if (isClosed) return;
    isClosed = true;
    socket.end(frame(CLOSE, payload));
  };
  const take = (/** @type {Buffer} */ chunk) => {
    if (isClosed) return;
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (!isClosed) {
      const found = read(rest);
      if (found === undefined) return;
      if ('wrong' in found) {
        close(code(found.wrong));
        return;
      }
      rest = rest.subarray(found.length);
      if (found.opcode === CLOSE) close(found.payload.subarray(0, 2));
      else if (found.opcode === PING) socket.write(frame(PONG, found.payload));
      else if (found.opcode === TEXT) {
        try {
          heard(new TextDecoder('utf-8', { fatal: true }).decode(found.payload));
        } catch {
          close(code(INVALID_TEXT));
        }
      }
    }
  };
  socket.on('data', take);
  socket.on('end', () => socket.end());
  // Read like the rest, once the caller knows how to answer.
  if (head.length > 0) socket.unshift(head);
  return {
    send: (text) => {
      if (!isClosed && socket.writable) socket.write(frame(TEXT, Buffer.from(text)));
    },
  };
}

/**
 * The first frame of these bytes (section 5.2).
 *
 * @param {Buffer} bytes
 * @returns {{ opcode: number, payload: Buffer, length: number } | { wrong: number } | undefined} undefined: not all there yet
 */
function read(bytes) {
  if (bytes.length < 2) return undefined;
  const first = bytes.readUInt8(0);
  const second = bytes.readUInt8(1);
  const opcode = first & 0x0f;
  // A client masks; nothing was agreed that would use a reserved bit.
  if ((second & 0x80) === 0 || (first & 0x70) !== 0) return { wrong: PROTOCOL_ERROR };
  if ((first & 0x80) === 0 || ![TEXT, CLOSE, PING, PONG].includes(opcode)) return { wrong: UNSUPPORTED };
  let size = second & 0x7f;
  let at = 2;
  if (size === 127) return { wrong: TOO_BIG };
  if (size === 126) {
    if (bytes.length < 4) return undefined;
    size = bytes.readUInt16BE(2);
    at = 4;
  }
  if (size > LONGEST) return { wrong: TOO_BIG };
  if (bytes.length < at + 4 + size) return undefined;
  const mask = bytes.subarray(at, at + 4);
  const payload = Buffer.from(bytes.subarray(at + 4, at + 4 + size));
  for (let i = 0; i < size; i += 1) payload[i] = (payload[i] ?? 0) ^ (mask[i % 4] ?? 0);
  return { opcode, payload, length: at + 4 + size };
}

/**
 * @param {number} opcode
 * @param {Buffer} payload at most 65,535 bytes
 */
function frame(opcode, payload) {
  const head = [0x80 | opcode];
  if (payload.length < 126) head.push(payload.length);
  else head.push(126, payload.length >> 8, payload.length & 0xff);
  return Buffer.concat([Buffer.from(head), payload]);
}

/** @param {number} value */
function code(value) {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}
