import { CloakroomError } from '../errors.js';
import { addressInRange } from '../http/address-range.js';
import type { SessionAbout } from '../store/session-about.js';

/** Which sessions are meant. Every criterion that is given must hold; times are milliseconds. */
export interface SessionFilter {
  /** Everybody's: must be said, an empty filter is refused. */
  all?: true;
  handle?: string;
  /** The subject, or the e-mail claim, at any configured issuer. */
  user?: string;
  subject?: string;
  issuer?: string;
  /** The provider's own session. */
  sid?: string;
  /** A handle that is left out. */
  except?: string;
  createdBefore?: number;
  /** Unused for at least this long. */
  idleFor?: number;
  /** The stored address itself, or a CIDR range around it. */
  address?: string;
}

/** A session as lists show it: no token, no cookie. Times are milliseconds since the epoch. */
export interface ListedSession {
  handle: string;
  provider: string;
  issuer: string;
  subject: string;
  email?: string;
  sid?: string;
  acr?: string;
  createdAt: number;
  usedAt: number;
  absoluteExpiresAt: number;
  /** Milliseconds without use, where these are fewer than for other sessions. */
  idle?: number;
  browser?: string;
  platform?: string;
  address?: string;
  /** What ties it to the browser. */
  bound: 'cookie';
}

/** What is known of a session without its cookie; of a damaged record only the times. */
export interface FoundSession {
  handle: string;
  createdAt: number;
  usedAt: number;
  absoluteAt: number;
  about: SessionAbout | undefined;
  /** Nobody can use it any more since the policy epoch was raised, but its record is still there. */
  over: boolean;
}

const CRITERIA = [
  'handle',
  'user',
  'subject',
  'issuer',
  'sid',
  'createdBefore',
  'idleFor',
  'address',
] as const;

/** @throws {CloakroomError} `bad-request` for a filter that names nothing: it would mean everybody */
export function requireSelection(filter: SessionFilter): void {
  if (filter.all === true || CRITERIA.some((name) => filter[name] !== undefined)) return;
  throw new CloakroomError('bad-request', {
    public: { reason: 'no-selection', detail: 'Name whose sessions are meant, or say all.' },
  });
}

/** True when a filter reaches beyond a session, a person or a session at the provider: it needs a second step, and an alarm. */
export function isBroad({ handle, user, subject, sid }: SessionFilter): boolean {
  return [handle, user, subject, sid].every((criterion) => criterion === undefined);
}

/** True when a filter means everybody, whatever the time. */
export function isEverybody(filter: SessionFilter): boolean {
  return CRITERIA.every((name) => name === 'createdBefore' || filter[name] === undefined);
}

/** The subject that a filter names; what looks like an e-mail address may be one, or a subject. */
export function subjectIn({ subject, user }: SessionFilter): string | undefined {
  return subject ?? (user?.includes('@') === true ? undefined : user);
}

export function matches(filter: SessionFilter, found: FoundSession, now: number): boolean {
  const { handle, createdAt, usedAt, about } = found;
  if (handle === filter.except) return false;
  if (filter.handle !== undefined && handle !== filter.handle) return false;
  if (filter.createdBefore !== undefined && createdAt >= filter.createdBefore) return false;
  if (filter.idleFor !== undefined && now - usedAt < filter.idleFor) return false;
  const { user, subject, issuer, sid, address } = filter;
  if (user !== undefined && !isUser(user, about)) return false;
  if (subject !== undefined && about?.subject !== subject) return false;
  if (issuer !== undefined && about?.issuer !== issuer) return false;
  if (sid !== undefined && about?.sid !== sid) return false;
  return address === undefined || (about?.address !== undefined && isFrom(about.address, address));
}

export function listed({ handle, usedAt, about }: FoundSession): ListedSession | undefined {
  if (about === undefined) return undefined;
  const { provider, issuer, subject, email, sid, acr, createdAt, absoluteAt, idle } = about;
  const { browser, platform, address } = about;
  return {
    handle,
    provider,
    issuer,
    subject,
    ...(email === undefined ? {} : { email }),
    ...(sid === undefined ? {} : { sid }),
    ...(acr === undefined ? {} : { acr }),
    createdAt,
    usedAt,
    absoluteExpiresAt: absoluteAt,
    ...(idle === undefined ? {} : { idle }),
    ...(browser === undefined ? {} : { browser }),
    ...(platform === undefined ? {} : { platform }),
    ...(address === undefined ? {} : { address }),
    bound: 'cookie',
  };
}

function isUser(user: string, about: SessionAbout | undefined): boolean {
  if (about === undefined) return false;
  return about.subject === user || about.email?.toLowerCase() === user.toLowerCase();
}

/** Both may be ranges: what is stored may be coarse, and what is asked for may be coarser still. */
function isFrom(stored: string, wanted: string): boolean {
  return stored === wanted || addressInRange(stored, wanted);
}
