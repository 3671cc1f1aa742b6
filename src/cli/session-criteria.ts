import { parseAddressRange } from '../config/addresses.js';
import { parseDuration } from '../config/duration.js';
import type { Config } from '../config/config.js';
import type { SessionFilter } from '../endings/filter.js';
import { UsageError } from './arguments.js';

/** Which sessions a command is about, from its options. */

export const CRITERIA_OPTIONS = {
  all: { type: 'boolean' },
  user: { type: 'string' },
  subject: { type: 'string' },
  handle: { type: 'string' },
  sid: { type: 'string' },
  issuer: { type: 'string' },
  'created-before': { type: 'string' },
  before: { type: 'string' },
  idle: { type: 'string' },
  address: { type: 'string' },
  except: { type: 'string' },
} as const;

export const CRITERIA_USAGE = `which sessions (every one that is given must hold)
  --user NAME              the subject (sub) or the e-mail address, at any provider
  --subject SUB            the subject alone
  --handle HANDLE          one session, as lists and the log name it
  --sid SID                the provider's own session
  --issuer URL             the issuer, or the name of a provider
  --created-before TIME    begun before then, also --before: 2026-01-05T09:00Z, 2026-01-05, or a duration ago: 2h
  --idle DURATION          unused for at least this long: 30m
  --address ADDRESS        from this address or CIDR range; where only networks are kept (session.address), an address
                           means its whole network
  --except HANDLE          but not this one
  --all                    everybody's
`;

export type CriteriaValues = {
  readonly [name in keyof typeof CRITERIA_OPTIONS]?: string | boolean | undefined;
};

/** @throws {UsageError} */
export function readCriteria(values: CriteriaValues, now = Date.now()): SessionFilter {
  const text = (name: keyof CriteriaValues) => {
    const value = values[name];
    return typeof value === 'string' ? value : undefined;
  };
  if (values.before !== undefined && values['created-before'] !== undefined) {
    throw new UsageError("'--before' and '--created-before' are the same: give one");
  }
  const created = text('created-before') ?? text('before');
  const idle = text('idle');
  const filter = {
    all: values.all === true ? true : undefined,
    user: text('user'),
    subject: text('subject'),
    handle: handle('handle', text('handle')),
    sid: text('sid'),
    issuer: text('issuer'),
    createdBefore: created === undefined ? undefined : moment(created, now),
    idleFor: idle === undefined ? undefined : duration('idle', idle),
    address: address(text('address')),
    except: handle('except', text('except')),
  };
  const given = Object.entries(filter).filter(([, value]) => value !== undefined);
  if (filter.all === true) {
    const other = given.find(([name]) => !['all', 'createdBefore', 'except'].includes(name));
    if (other !== undefined)
      throw new UsageError(`'--all' means everybody: leave it out, or '--${option(other[0])}'`);
  }
  return Object.fromEntries(given);
}

/** The issuer of a provider that was given by its name. */
export function knownIssuer(filter: SessionFilter, { providers }: Config): SessionFilter {
  const named = providers.find(({ name }) => name === filter.issuer);
  return named === undefined ? filter : { ...filter, issuer: named.issuer };
}

function option(name: string): string {
  return name === 'idleFor' ? 'idle' : name;
}

function handle(name: string, text: string | undefined): string | undefined {
  if (text === undefined || /^[A-Za-z0-9_-]{43}$/.test(text)) return text;
  throw new UsageError(`'--${name}' is not a handle: 43 letters, digits, - and _, as lists show it`);
}

function duration(name: string, text: string): number {
  const milliseconds = parseDuration(text);
  if (milliseconds === undefined) throw new UsageError(`'--${name}' is not a duration such as 30m, 2h or 7d`);
  return milliseconds;
}

/** A time without a zone is somebody's local time, and not everybody's the same. */
const WITH_ZONE = /^\d{4}-\d{2}-\d{2}(?:T\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:Z|[+-]\d{2}:\d{2}))?$/;

function moment(text: string, now: number): number {
  const ago = parseDuration(text);
  if (ago !== undefined) return now - ago;
  const time = WITH_ZONE.test(text) ? Date.parse(text) : NaN;
  if (Number.isNaN(time)) {
    throw new UsageError(
      "'--created-before' is not a time: 2026-01-05T09:00Z, 2026-01-05T10:00+01:00, 2026-01-05 (in UTC), or a " +
        'duration ago such as 2h',
    );
  }
  return time;
}

function address(text: string | undefined): string | undefined {
  if (text === undefined || parseAddressRange(text) !== undefined) return text;
  throw new UsageError("'--address' is not an IP address or CIDR range");
}
