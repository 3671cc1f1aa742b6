import { z } from 'zod';
import type { ListedSession } from '../endings/filter.js';
import { ERRORS } from '../errors.js';

/** What callers get; the OpenAPI document is made from the same schemas. */

const time = z.iso.datetime().meta({ format: 'date-time' });

const session = z
  .strictObject({
    handle: z.string().meta({ description: 'Names the session here. It is no cookie and opens nothing.' }),
    provider: z.string(),
    issuer: z.string(),
    subject: z.string(),
    email: z.string().optional(),
    sid: z.string().optional(),
    acr: z.string().optional(),
    createdAt: time,
    usedAt: time.meta({ description: 'To the minute.' }),
    absoluteExpiresAt: time,
    idle: z
      .int()
      .optional()
      .meta({ description: 'Milliseconds without use, where these are fewer than for other sessions.' }),
    browser: z.string().optional(),
    platform: z.string().optional(),
    address: z.string().optional(),
    bound: z.enum(['cookie']).meta({ description: 'What ties it to the browser.' }),
  })
  .meta({ id: 'Session' });

const page = z.strictObject({
  sessions: z.array(session),
  next: z.string().optional().meta({ description: 'The `cursor` of the next page; absent on the last.' }),
});

const planned = z.strictObject({
  dryRun: z.literal(true),
  sessions: z
    .int()
    .nonnegative()
    .meta({ description: 'How many sessions are meant now; for an epoch, at most.' }),
  confirm: z.string().optional().meta({ description: 'To be sent back, once, within five minutes.' }),
});

const durability = z.enum(['replicated', 'unreplicated', 'unconfirmed', 'memory']).meta({
  description:
    'Whether it would outlive the loss of the store: `replicated` (a replica has it), `unreplicated` (there is no ' +
    'replica), `unconfirmed` (the replicas did not answer in time), `memory`.',
});

const ending = z.strictObject({
  id: z.string(),
  state: z.enum(['running', 'done']),
  ended: z.int().nonnegative().meta({ description: 'Sessions ended so far.' }),
  durability: durability.optional(),
});

const epoch = z.strictObject({ kind: z.enum(['end', 'refresh']), at: time, durability });

const problem = z.object({
  type: z.enum(Object.keys(ERRORS) as [string, ...string[]]),
  title: z.string(),
  status: z.int(),
  instance: z.string(),
  reason: z.string().optional(),
  detail: z.string().optional(),
});

export const documents = { session, page, planned, ending, epoch, problem };

export function sessionDocument(listed: ListedSession): z.input<typeof session> {
  const { createdAt, usedAt, absoluteExpiresAt, ...rest } = listed;
  return {
    ...rest,
    createdAt: new Date(createdAt).toISOString(),
    usedAt: new Date(usedAt).toISOString(),
    absoluteExpiresAt: new Date(absoluteExpiresAt).toISOString(),
  };
}
