import type { IncomingMessage } from 'node:http';
import type { Actor } from '../endings/audit-log.js';
import { CloakroomError } from '../errors.js';
import type { Operator } from './operators.js';

/** Who is calling, once that has been established; what acts are written down under. */
export interface Caller extends Operator {
  address: string;
}

const callers = new WeakMap<IncomingMessage, Caller>();

export function setCaller(request: IncomingMessage, caller: Caller): void {
  callers.set(request, caller);
}

/** @throws {CloakroomError} `unauthorized`, should a request ever get past the gate without one */
export function callerOf(request: IncomingMessage): Caller {
  const caller = callers.get(request);
  if (caller === undefined) throw new CloakroomError('unauthorized');
  return caller;
}

export function actorOf(request: IncomingMessage): Actor {
  const { name, address } = callerOf(request);
  return { kind: 'operator', name, from: address };
}
