import type { IncomingMessage } from 'node:http';
import type { Actor } from '../endings/audit-log.js';
import type { TrustedProxies } from '../http/client-address.js';
import type { OpenSession } from '../store/session-records.js';

/** Whoever is signed in, as the audit log names them. */
export function actingUser(
  request: IncomingMessage,
  { contents }: OpenSession,
  trusted: TrustedProxies,
): Actor {
  return { kind: 'user', name: contents.subject, from: trusted.clientAddress(request) };
}
