import { formatDuration } from '../config/duration.js';
import type { Config } from '../config/config.js';
import type { EndingResult } from '../endings/endings.service.js';
import { isBroad, isEverybody, type SessionFilter } from '../endings/filter.js';
import { CloakroomError } from '../errors.js';
import type { Durability } from '../store/store.js';
import type { Administration } from './administration.js';
import { refusal } from './consent.js';
import { DONE, EX_USAGE, INTERRUPTED, NOTHING } from './exit-codes.js';
import { grouped, jsonLine, print, printable, Progress, sessionsIn, tell } from './terminal.js';

export interface EndOptions {
  readonly reason: string | undefined;
  readonly dryRun: boolean;
  readonly yes: boolean;
  readonly json: boolean;
}

/** What an ending would come to. */
interface Plan {
  sessions: number;
  /** Ended by the policy epoch already; what is left is their refresh token. */
  over: number;
  byProvider: Record<string, number>;
  examples: { handle: string; user: string }[];
}

const EXAMPLES = 3;
const DAMAGED = '(damaged records)';

export async function endSessions(
  administration: Administration,
  filter: SessionFilter,
  options: EndOptions,
): Promise<number> {
  const { actor, audit, config } = administration;
  const { reason, dryRun, yes, json } = options;
  const broad = isBroad(filter);
  // Counting takes nearly as long as ending: where nothing hangs on the number, everybody's sessions end sooner without.
  const plan =
    !dryRun && reason !== undefined && (yes || !broad) ? undefined : await survey(administration, filter);
  if (plan !== undefined) {
    if (dryRun) audit.record('sessions_listed', actor, { by: Object.keys(filter), listed: plan.sessions });
    if (json && dryRun) await print(jsonLine({ dryRun: true, ...plan }));
    else if (plan.sessions + plan.over > 1 || dryRun) tell(describePlan(plan));
    if (plan.sessions + plan.over === 0) {
      if (!dryRun) await nothing(json);
      return NOTHING;
    }
    if (dryRun) return DONE;
    if (reason === undefined && plan.sessions + plan.over > 1) {
      tell('cloakroom: nothing was ended: say why with --reason, for the audit log\n');
      return EX_USAGE;
    }
    if (broad) {
      const everybody = isEverybody(filter) && filter.except === undefined;
      const act = `to end ${sessionsIn(plan.sessions + plan.over)}`;
      const refused = await refusal(yes, everybody ? 'everybody' : 'yes', act);
      if (refused !== undefined) return refused;
    }
  }
  // Said before anything ends: whoever watches the servers' log must hear of it even if this command does not live on.
  if (broad) audit.alarm('mass_ending', actor, { by: Object.keys(filter), reason });
  const result = await end(administration, filter, reason ?? 'none given', plan);
  if (result.ended === 0) {
    await nothing(json);
    return NOTHING;
  }
  const { id, ended, durability } = result;
  if (json) await print(jsonLine({ id, ended, durability, revocation: revocationState(config) }));
  else await print(describeResult(result, config));
  return DONE;
}

async function nothing(json: boolean): Promise<void> {
  if (json) await print(jsonLine({ ended: 0 }));
  else tell('Nothing matches: nothing was ended.\n');
}

async function survey({ directory }: Administration, filter: SessionFilter): Promise<Plan> {
  const plan: Plan = { sessions: 0, over: 0, byProvider: {}, examples: [] };
  const progress = new Progress('Counting:');
  for await (const page of directory.pages(filter)) {
    for (const { handle, about, over } of page) {
      if (over) {
        plan.over += 1;
        continue;
      }
      plan.sessions += 1;
      const provider = about?.provider ?? DAMAGED;
      plan.byProvider[provider] = (plan.byProvider[provider] ?? 0) + 1;
      if (about !== undefined && plan.examples.length < EXAMPLES) {
        plan.examples.push({ handle, user: about.email ?? about.subject });
      }
    }
    progress.update(plan.sessions);
  }
  progress.end();
  return plan;
}

async function end(
  { endings, directory, actor }: Administration,
  filter: SessionFilter,
  reason: string,
  plan: Plan | undefined,
): Promise<EndingResult> {
  const total =
    plan === undefined && filter.all === true ? await directory.size() : plan && plan.sessions + plan.over;
  const progress = new Progress('Ending:', total);
  let far = 0;
  const interrupted = () => {
    progress.end();
    tell(
      `Left after ${sessionsIn(far)}. A server goes on with the rest in about 10 seconds: this stops nothing.\n`,
    );
    process.exit(INTERRUPTED);
  };
  process.once('SIGINT', interrupted);
  try {
    return await endings.end(filter, {
      cause: 'operator',
      reason,
      actor,
      progress: (ended) => {
        far = ended;
        progress.update(ended);
      },
    });
  } catch (error) {
    if (error instanceof CloakroomError && error.code === 'store-unavailable') {
      progress.end();
      tell(
        `${sessionsIn(far)} ended for certain. A server goes on with the rest as soon as Redis answers.\n`,
      );
    }
    throw error;
  } finally {
    process.removeListener('SIGINT', interrupted);
    progress.end();
  }
}

function describePlan({ sessions, over, byProvider, examples }: Plan): string {
  const lines = [`This means ${sessionsIn(sessions)}.`];
  for (const [provider, count] of Object.entries(byProvider)) {
    lines.push(`  ${printable(provider)}  ${grouped(count)}`);
  }
  if (over > 0) lines.push(`And ${sessionsIn(over)} that the policy epoch has ended already.`);
  if (examples.length > 0) lines.push(examples.length < sessions ? 'Some of them:' : 'Which:');
  for (const { handle, user } of examples) lines.push(`  ${handle}  ${printable(user)}`);
  return `${lines.join('\n')}\n`;
}

function describeResult({ id, ended, durability }: EndingResult, config: Config): string {
  const { freshLoginFor } = config.session;
  const rows: readonly (readonly [string, string])[] = [
    [`Ended ${sessionsIn(ended)}.`, ''],
    ['Kept:', durabilityInWords(durability)],
    ['Refresh tokens:', revocationInWords(config)],
    [
      'Next sign-in:',
      freshLoginFor > 0
        ? `for ${formatDuration(freshLoginFor)} the provider is told to ask for the password again (prompt=login)`
        : 'the provider may let them in without a question (session.freshLoginFor is 0s)',
    ],
    ['Audit log:', `ending ${id}`],
  ];
  return rows.map(([name, text]) => (text === '' ? `${name}\n` : `  ${name.padEnd(16)}${text}\n`)).join('');
}

export function durabilityInWords(durability: Durability): string {
  switch (durability) {
    case 'replicated':
      return 'written to 1 Redis replica or more';
    case 'unreplicated':
      return 'written to Redis, which has no replica: a crash there may undo the last second';
    case 'unconfirmed':
      return 'not confirmed by a Redis replica yet: see docs/operations.md';
    case 'memory':
      return 'in memory';
  }
}

type RevocationState = 'servers' | 'revoker' | 'no-key' | 'off';

function revocationState({ providers, secrets, revocation }: Config): RevocationState {
  if (providers.every(({ revokeOnLogout }) => !revokeOnLogout)) return 'off';
  if (secrets.revocation.length > 0) return 'servers';
  return revocation.publicKey === undefined ? 'no-key' : 'revoker';
}

function revocationInWords(config: Config): string {
  const retried = `tried for ${formatDuration(config.revocation.retryFor)}`;
  const without = config.providers.filter(({ revokeOnLogout }) => !revokeOnLogout).map(({ name }) => name);
  const except = without.length === 0 ? '' : `; not at ${without.join(', ')} (revokeOnLogout is off)`;
  switch (revocationState(config)) {
    case 'servers':
      return `revoked by the running servers, ${retried}${except}`;
    case 'revoker':
      return `revoked by whoever runs with the private key (cloakroom revoker), ${retried}${except}`;
    case 'no-key':
      return 'not revoked: no revocation key (secrets.revocation)';
    case 'off':
      return 'not revoked: revokeOnLogout is off';
  }
}
