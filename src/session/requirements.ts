import type { RequireConfig, RouteConfig } from '../config/config.js';
import { CloakroomError } from '../errors.js';
import type { SessionContents } from '../store/session-contents.js';
import { claimAt, hasOneOf } from './claim-match.js';
import { LOGIN_URL } from './sessions.service.js';
import { askFor, isMet, stepUpRequired, type Ask } from './step-up.js';

/** What a route requires of a session, worked out at start. */
export interface Requirement {
  scopes: readonly string[];
  claims: readonly (readonly [path: string, values: readonly unknown[]])[];
  ask: Ask | undefined;
}

export function toRequirement(written: RequireConfig | undefined): Requirement | undefined {
  if (written === undefined) return undefined;
  const { scopes = [], claims = {}, acr, maxAuthAge } = written;
  const maxAge = maxAuthAge === undefined ? undefined : Math.floor(maxAuthAge / 1000);
  return {
    scopes,
    claims: Object.entries(claims),
    ask: acr === undefined && maxAge === undefined ? undefined : askFor(acr?.join(' '), maxAge),
  };
}

/** The claims that routes require, by name or path: what a session must remember of its login. */
export function requiredClaims(routes: readonly RouteConfig[]): string[] {
  return [...new Set(routes.flatMap((route) => Object.keys(route.require?.claims ?? {})))];
}

/** What a session remembers of these claims. Null for one that there was not: it was looked for. */
export function keptClaims(
  claims: Readonly<Record<string, unknown>>,
  paths: readonly string[],
): Record<string, unknown> {
  return Object.fromEntries(paths.map((path) => [path, claimAt(claims, path) ?? null]));
}

/**
 * What no sign-in would change comes first, so that nobody signs in again only to be refused for good.
 *
 * @param now milliseconds since the epoch
 * @throws {CloakroomError} `insufficient-scope`, `insufficient-claims`, `step-up`
 */
export function checkRequirement(requirement: Requirement, contents: SessionContents, now: number): void {
  const { scopes, claims, ask } = requirement;
  const granted = contents.tokens.scope?.split(' ');
  const kept = contents.required ?? {};
  const isUnknown = claims.some(([path]) => !Object.hasOwn(kept, path));
  if (isUnknown || (granted === undefined && scopes.length > 0)) throw beganEarlier();
  const missing = scopes.filter((scope) => granted?.includes(scope) !== true);
  if (missing.length > 0) throw new CloakroomError('insufficient-scope', { public: { missing } });
  const unmet = claims.filter(([path, values]) => !hasOneOf(kept[path], values)).map(([path]) => path);
  if (unmet.length > 0) throw new CloakroomError('insufficient-claims', { public: { missing: unmet } });
  if (ask !== undefined && !isMet(ask, contents, now)) throw stepUpRequired(ask, contents, now);
}

/** The session began before a route asked for this. Any new login finds out, so there is no loop. */
function beganEarlier(): CloakroomError {
  return new CloakroomError('step-up', { public: { reason: 'began-earlier', loginUrl: LOGIN_URL } });
}
