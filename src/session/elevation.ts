import type { RouteConfig } from '../config/config.js';
import { CloakroomError } from '../errors.js';
import type { ElevatedAccess, SessionContents } from '../store/session-contents.js';
import { LOGIN_URL } from './sessions.service.js';

/** A scope for a route alone, worked out at start. */
export interface Elevation {
  scope: string;
  /** Milliseconds. */
  for: number;
  /** What a session remembers of a login that asked for it in vain. */
  key: string;
  loginUrl: string;
}

/** Milliseconds before its end in which a token is not handed out any more; short-lived ones give a tenth of their life. */
const SAFETY = 5000;
const OFFLINE = 'offline_access';

export function toElevation(written: RouteConfig['elevate']): Elevation | undefined {
  if (written === undefined) return undefined;
  const key = elevationKey(written.scope);
  return { ...written, key, loginUrl: `${LOGIN_URL}?${key}` };
}

export function elevationKey(scope: string): string {
  return new URLSearchParams({ elevate: scope }).toString();
}

/** What a login for elevated access asks for. No offline access: nobody would refresh the token. */
export function elevatedScopes(scopes: readonly string[], scope: string): string[] {
  return [...scopes.filter((one) => one !== OFFLINE), scope];
}

/**
 * The elevated accesses of a session that hold now.
 *
 * @param epoch tokens fetched before it are not used any more
 * @param now milliseconds since the epoch of clocks
 */
export function heldElevations(
  { elevated = {} }: SessionContents,
  epoch: number,
  now: number,
): Record<string, ElevatedAccess> {
  return Object.fromEntries(
    Object.entries(elevated).filter(([, access]) => access.until > now && access.epoch >= epoch),
  );
}

/** @throws {CloakroomError} `step-up` where the session does not hold it */
export function elevatedToken(
  elevation: Elevation,
  contents: SessionContents,
  epoch: number,
  now: number,
): string {
  const access = contents.elevated?.[elevation.scope];
  if (access !== undefined && access.until > now && access.epoch >= epoch) return access.accessToken;
  throw elevationRequired(elevation, contents);
}

/** What the browser is told where the session holds no elevated access, or one that is no good any more. */
export function elevationRequired({ key, loginUrl }: Elevation, { asked }: SessionContents): CloakroomError {
  const inVain = asked?.includes(key) === true;
  return new CloakroomError('step-up', {
    public: inVain ? { reason: 'not-satisfied' } : { reason: 'elevation', loginUrl },
  });
}

/**
 * When elevated access ends.
 *
 * @param life milliseconds the access token lives
 * @param limit milliseconds the routes allow
 */
export function elevatedUntil(now: number, life: number, limit: number): number {
  return now + Math.min(limit, life - Math.min(SAFETY, life / 10));
}
