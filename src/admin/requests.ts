import { z } from 'zod';
import { parseAddressRange } from '../config/addresses.js';
import { DURATION_PATTERN, parseDuration } from '../config/duration.js';
import type { SessionFilter } from '../endings/filter.js';
import { CloakroomError } from '../errors.js';

/** What callers may send, checked; the OpenAPI document is made from the same schemas. */

const name = (description: string) => z.string().min(1).max(512).meta({ description });

const time = z.iso
  .datetime({ offset: true })
  .transform((text) => Date.parse(text))
  .meta({ description: 'Only sessions that began before this time.', format: 'date-time' });

const idle = z
  .string()
  .regex(DURATION_PATTERN)
  .transform((text) => parseDuration(text) ?? 0)
  .meta({ description: 'Only sessions unused for at least this long, such as `30m` or `2d`.' });

const address = z
  .string()
  .max(64)
  .refine((text) => parseAddressRange(text) !== undefined, 'not an IP address or CIDR range')
  .meta({ description: 'Only sessions from this address or CIDR range, as far as addresses are kept.' });

const handle = z
  .string()
  .regex(/^[A-Za-z0-9_-]{43}$/)
  .meta({ description: 'The handle of one session, as lists show it.' });

const criteria = {
  user: name('The subject (`sub`) or the e-mail address, at any configured issuer.').optional(),
  subject: name('The subject (`sub`) alone.').optional(),
  issuer: name('The issuer, as configured.').optional(),
  sid: name("The provider's own session (`sid`).").optional(),
  handle: handle.optional(),
  createdBefore: time.optional(),
  idleFor: idle.optional(),
  address: address.optional(),
};

export const listQuery = z.strictObject({
  ...criteria,
  cursor: z.string().max(200).optional().meta({ description: '`next` of the page before.' }),
  limit: z.coerce.number().int().min(1).max(500).prefault(50).meta({ description: 'Sessions on one page.' }),
});

const reason = z
  .string()
  .trim()
  .min(3)
  .max(500)
  .meta({ description: 'Why, for the audit log. It must not hold secrets or personal data.' });

export const endOneQuery = z.strictObject({ reason: reason.optional() });

const filter = z
  .strictObject({
    ...criteria,
    except: handle.optional().meta({ description: 'The handle of a session to leave out.' }),
    all: z.literal(true).optional().meta({ description: 'Everybody: must be said, and confirmed.' }),
  })
  .meta({ description: 'Whose sessions. Every criterion that is given must hold.' });

const dryRun = z.boolean().optional().meta({
  description: 'Ends nothing; tells how many sessions are meant and, where one is needed, the confirmation.',
});

const confirm = z.string().max(64).optional().meta({
  description: 'The confirmation that the dry run gave, for what reaches beyond one person.',
});

export const endingBody = z.strictObject({ filter, reason, dryRun, confirm });

export const epochBody = z.strictObject({
  kind: z.enum(['end', 'refresh']).meta({
    description:
      '`end`: every session begun before now is over. `refresh`: every session fetches new tokens at its next use.',
  }),
  reason,
  dryRun,
  confirm,
});

export const idempotencyKey = z
  .string()
  .regex(/^[\x21-\x7e]{1,128}$/)
  .optional();

/** @throws {CloakroomError} `bad-request` that names what is wrong, and repeats no value */
export function checked<S extends z.ZodType>(schema: S, value: unknown): z.output<S> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const place = issue?.path.map(String).join('.') ?? '';
  // Names of unknown members come from the caller, but so does the whole request.
  const detail = `${place === '' ? '' : `${place}: `}${issue?.message ?? 'not understood'}`.slice(0, 200);
  throw new CloakroomError('bad-request', { public: { detail } });
}

/** The filter without the members that are not there, which `exactOptionalPropertyTypes` tells from undefined ones. */
export function toFilter(written: Partial<z.output<typeof filter>>): SessionFilter {
  return Object.fromEntries(Object.entries(written).filter(([, value]) => value !== undefined));
}
