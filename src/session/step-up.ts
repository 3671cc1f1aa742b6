import { CloakroomError } from '../errors.js';
import type { SessionContents } from '../store/session-contents.js';
import { LOGIN_URL } from './sessions.service.js';

/** Values of `acr_values` and `max_age` as they are sent on: OpenID Connect Core 1.0 section 3.1.2.1. */
export const ACR_VALUES = /^[\x21-\x7e]+(?: [\x21-\x7e]+)*$/;
export const MAX_AGE = /^\d{1,9}$/;

/** How a person should have signed in. */
export interface Ask {
  /** Any of these will do; undefined: any at all. */
  acr: readonly string[] | undefined;
  /** Seconds since the sign-in at the provider; undefined: any. */
  maxAge: number | undefined;
  /** The same ask has the same key: what a session remembers of a login that was asked for it. */
  key: string;
  loginUrl: string;
}

/**
 * Milliseconds after a sign-in in which nobody is asked for a newer one, whatever an upstream says: otherwise one that
 * wants less than the way back from the provider takes would send people round for ever.
 */
const NEW_FOR = 30_000;

export function askFor(acrValues: string | undefined, maxAge: number | undefined): Ask {
  const key = askKey(acrValues, maxAge);
  const loginUrl = `${LOGIN_URL}?${key}&stepUp=1`;
  return { acr: acrValues?.split(' '), maxAge, key, loginUrl };
}

export function askKey(acrValues: string | undefined, maxAge: number | undefined): string {
  return new URLSearchParams({
    ...(acrValues === undefined ? {} : { acr_values: acrValues }),
    ...(maxAge === undefined ? {} : { max_age: String(maxAge) }),
  }).toString();
}

/** @param at milliseconds since the epoch */
export function isMet(ask: Ask, contents: SessionContents, at: number): boolean {
  return hasAcr(ask, contents) && age(contents, at) <= (ask.maxAge ?? Infinity) * 1000;
}

/**
 * The answer that leads to a login which asks for more (RFC 9470 section 3). A login that was asked for the same and did
 * not bring it is not asked again, or page and provider would bounce: then there is no way on in this answer.
 */
export function stepUpRequired(ask: Ask, contents: SessionContents, now: number): CloakroomError {
  const offer = contents.asked?.includes(ask.key) !== true || hasLapsed(ask, contents, now);
  return new CloakroomError('step-up', {
    public: offer ? { reason: 'sign-in', loginUrl: ask.loginUrl } : { reason: 'not-satisfied' },
  });
}

/** The login brought what was asked; only time has passed since. */
function hasLapsed(ask: Ask, contents: SessionContents, now: number): boolean {
  if (ask.maxAge === undefined || contents.signedInAt === undefined) return false;
  const since = age(contents, now);
  return isMet(ask, contents, contents.signedInAt) && since > Math.max(ask.maxAge * 1000, NEW_FOR);
}

function hasAcr({ acr }: Ask, contents: SessionContents): boolean {
  return acr === undefined || (contents.acr !== undefined && acr.includes(contents.acr));
}

/** Milliseconds; a provider that does not say when somebody signed in has them sign in endlessly long ago. */
function age({ authenticatedAt }: SessionContents, at: number): number {
  return authenticatedAt === undefined ? Infinity : at - authenticatedAt;
}
