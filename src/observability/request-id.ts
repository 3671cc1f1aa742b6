import { randomBytes } from 'node:crypto';
import type { IncomingMessage } from 'node:http';

const ID = Symbol('request id');

type Identified = { [ID]: string | undefined } & IncomingMessage;

/**
 * The reference of a request: what the browser is told, the log says and the upstream receives. Always ours; a caller's
 * own `X-Request-Id` could forge a log entry.
 */
export function requestId(request: IncomingMessage): string {
  return ((request as Identified)[ID] ??= nextId());
}

// A random prefix a process and a counter: unique across replicas, and far cheaper than fresh randomness a request.
const prefix = randomBytes(9).toString('base64url');
let counter = 0;

function nextId(): string {
  counter = (counter + 1) % Number.MAX_SAFE_INTEGER;
  return `${prefix}-${counter.toString(36)}`;
}
