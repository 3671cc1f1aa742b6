import type { Config } from '../config/config.js';
import { matchesAll } from './claim-match.js';

/**
 * How long a session may last, by what the provider says about the person: the shortest of all that applies.
 *
 * @returns milliseconds; `idle` only where it is shorter than that of all sessions
 */
export function lifetimesOf(
  session: Config['session'],
  claims: Readonly<Record<string, unknown>>,
): { idle: number | undefined; absolute: number } {
  let { idle, absolute } = session;
  for (const lifetime of session.lifetimes) {
    if (!matchesAll(claims, lifetime.claims)) continue;
    idle = Math.min(idle, lifetime.idle ?? Infinity);
    absolute = Math.min(absolute, lifetime.absolute ?? Infinity);
  }
  return { idle: idle < session.idle ? idle : undefined, absolute };
}

/** The shortest idle time that any session can have, in milliseconds. */
export function shortestIdle({ idle, lifetimes }: Config['session']): number {
  return Math.min(idle, ...lifetimes.map((lifetime) => lifetime.idle ?? Infinity));
}
