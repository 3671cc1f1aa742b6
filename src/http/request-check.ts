import type { IncomingMessage } from 'node:http';
import { CloakroomError } from '../errors.js';
import { canonicalTarget, type Target } from './canonical-path.js';

/**
 * Refuses what Node's parser lets through but two servers could read differently.
 *
 * @param publicOrigin the only origin an absolute-form target may name (RFC 9112 section 3.2.2)
 * @throws {CloakroomError} `bad-request`, `uri-too-long`, `expectation-failed`; the connection must then be closed
 */
export function checkRequest(request: IncomingMessage, publicOrigin: string): Target {
  checkFraming(request);
  let target = request.url ?? '';
  if (!target.startsWith('/')) {
    if (!target.startsWith(`${publicOrigin}/`)) throw new CloakroomError('bad-request');
    target = target.slice(publicOrigin.length);
  }
  const result = canonicalTarget(target);
  if (result === 'too-long') throw new CloakroomError('uri-too-long');
  if (result === 'malformed') throw new CloakroomError('bad-request');
  return result;
}

/** Whether the client holds its body back until it is told to go on; one of HTTP/1.0 does not know of that (RFC 9110 section 10.1.1). */
export function awaitsContinue(request: IncomingMessage): boolean {
  return request.headers.expect !== undefined && request.httpVersion === '1.1';
}

function checkFraming(request: IncomingMessage): void {
  const { headers, rawHeaders } = request;
  if (request.httpVersion !== '1.1' && (request.httpVersion !== '1.0' || 'transfer-encoding' in headers)) {
    throw new CloakroomError('bad-request');
  }
  const coding = headers['transfer-encoding'];
  if (
    coding !== undefined &&
    (coding.toLowerCase() !== 'chunked' || headers['content-length'] !== undefined)
  ) {
    throw new CloakroomError('bad-request');
  }
  const length = headers['content-length'];
  // Beyond that a number is not what it says, and the length that goes on would be another.
  if (length !== undefined && !Number.isSafeInteger(Number(length))) throw new CloakroomError('bad-request');
  if (headers.expect !== undefined && headers.expect.toLowerCase() !== '100-continue') {
    throw new CloakroomError('expectation-failed');
  }
  checkSingle(rawHeaders, request.httpVersion);
}

const SINGLE = new Set(['host', 'content-length', 'transfer-encoding', 'content-type', 'expect']);
const HOST = /^[A-Za-z0-9\-._[\]:%]+$/;

/** Node joins or drops repeated header lines; a server behind us might pick the other one. */
function checkSingle(rawHeaders: string[], httpVersion: string): void {
  let hosts = 0;
  let seen = 0;
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const raw = rawHeaders[i] ?? '';
    // Only names of these lengths can be among the five; most headers end here.
    if (raw.length !== 4 && raw.length !== 6 && raw.length !== 12 && raw.length !== 14 && raw.length !== 17)
      continue;
    const name = raw.toLowerCase();
    if (!SINGLE.has(name)) continue;
    const bit = 1 << (name.length + (name === 'host' ? 1 : 0));
    if ((seen & bit) !== 0) throw new CloakroomError('bad-request');
    seen |= bit;
    if (name === 'host') {
      hosts += 1;
      if (!HOST.test(rawHeaders[i + 1] ?? '')) throw new CloakroomError('bad-request');
    }
  }
  if (hosts !== 1 && httpVersion === '1.1') throw new CloakroomError('bad-request');
}
