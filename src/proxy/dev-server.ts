import type { IncomingMessage } from 'node:http';
import { METHODS, type RouteConfig } from '../config/config.js';
import { CloakroomError } from '../errors.js';

const A_DAY = 24 * 3600 * 1000;

/** A development server as a route: nobody's session, no token, no cookie; and patient, while it compiles. */
export function devServerRoute(origin: string): RouteConfig {
  return {
    path: '/',
    upstreams: [origin],
    methods: METHODS,
    token: 'none',
    csrf: 'origin',
    limits: { parallel: Infinity, eventStreams: Infinity },
    // Hot reload may have nothing to say all day.
    websocket: { idle: A_DAY, perSession: Infinity, keepsSession: false },
    cache: 'upstream',
    headers: {
      // By these it decides itself whom it serves, and what an address is wanted for.
      requestAllow: ['Sec-Fetch-Dest', 'Sec-Fetch-Mode', 'Sec-Fetch-Site', 'Sec-Fetch-User'],
      responseAllow: [],
      security: { frameAncestors: 'none', referrerPolicy: 'no-referrer' },
    },
    cookies: [],
    timeouts: { connect: 2000, firstByte: 300_000, idle: A_DAY },
  };
}

/**
 * A development server compares `Host` with the names it knows, against sites that let their own name lead to this machine.
 * Behind us it always sees its own, so that this is for us to do.
 *
 * @throws {CloakroomError} `bad-request`
 */
export function checkOwnHost({ headers }: IncomingMessage, publicHost: string): void {
  if (headers.host?.toLowerCase() === publicHost) return;
  throw new CloakroomError('bad-request', {
    public: { reason: 'host', detail: `Open http://${publicHost} instead.` },
  });
}
