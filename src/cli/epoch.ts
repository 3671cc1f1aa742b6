import type { Administration } from './administration.js';
import { noMore, readArguments, UsageError } from './arguments.js';
import { administering, type Command } from './command.js';
import { readReason, refusal } from './consent.js';
import { DONE } from './exit-codes.js';
import { durabilityInWords } from './sessions-end.js';
import { utc } from './sessions-output.js';
import { jsonLine, print, sessionsIn } from './terminal.js';

/** `cloakroom epoch`: everything from before a moment is over, or is renewed. */

export const EPOCH_USAGE = `usage: cloakroom epoch show [--json]
       cloakroom epoch bump [--refresh] --reason TEXT [--yes] [--json]

Bumping it ends every session begun before now, at once and however many there are. Refresh tokens are not revoked
by it; 'cloakroom sessions end --all' does that, before or after.

options
  --refresh          end nothing: every session fetches new tokens at its next use
  --reason TEXT      why, for the audit log. No secrets, no personal data
  --yes              do not ask; needed where there is no terminal
  --json             the result as JSON
  -c, --config FILE  the configuration of the servers
  -h, --help         print this text

exit codes
  0   done
  1   the question was not answered with the word: nothing was done
  64  wrong usage, or --yes is missing: nothing was done
  69  Redis cannot be reached, or stopped answering
  78  faults in the configuration, or sessions are in memory
`;

/** @throws {UsageError} */
export function epochCommand(argv: readonly string[]): Command {
  const { values, positionals } = readArguments(argv, {
    refresh: { type: 'boolean' },
    reason: { type: 'string' },
    yes: { type: 'boolean' },
    json: { type: 'boolean' },
  });
  const [verb, ...rest] = positionals;
  const { config: file, json = false, yes = false, refresh = false, help = false } = values;
  const command = (work: (administration: Administration) => Promise<number>): Command => ({
    help,
    file,
    run: administering(work),
  });
  if (help) return command(() => Promise.resolve(DONE));
  noMore(rest);
  if (verb === 'show') {
    if (refresh || yes || values.reason !== undefined) {
      throw new UsageError("'epoch show' takes no option but --json");
    }
    return command((administration) => show(administration, json));
  }
  if (verb !== 'bump') {
    throw new UsageError(
      verb === undefined ? 'say what to do: show or bump' : `unknown command 'epoch ${verb}'`,
    );
  }
  const reason = readReason(values.reason);
  if (reason === undefined) throw new UsageError('say why with --reason, for the audit log');
  return command((administration) =>
    bump(administration, { kind: refresh ? 'refresh' : 'end', reason, yes, json }),
  );
}

async function show({ epoch }: Administration, json: boolean): Promise<number> {
  const { end, refresh } = await epoch.load();
  if (json) {
    await print(jsonLine({ end: timeOrNull(end), refresh: timeOrNull(refresh) }));
    return DONE;
  }
  const when = (time: number) => (time === 0 ? 'never' : `${utc(time)} UTC`);
  await print(
    `Sessions begun before this are over:         ${when(end)}\n` +
      `Tokens from before this are fetched anew:    ${when(refresh)}\n`,
  );
  return DONE;
}

function timeOrNull(time: number): string | null {
  return time === 0 ? null : new Date(time).toISOString();
}

async function bump(
  { epoch, store, directory, audit, actor }: Administration,
  { kind, reason, yes, json }: { kind: 'end' | 'refresh'; reason: string; yes: boolean; json: boolean },
): Promise<number> {
  // As many as are known of, some of which may have run out: counting those that live would take far longer than the act.
  const known = `up to ${sessionsIn(await directory.size())}`;
  const refused = await refusal(
    yes,
    kind === 'end' ? 'everybody' : 'yes',
    kind === 'end' ? `to end ${known}` : `to let ${known} fetch new tokens`,
  );
  if (refused !== undefined) return refused;
  if (kind === 'end') audit.alarm('mass_ending', actor, { epoch: kind, reason });
  const at = new Date(await epoch.bump(kind)).toISOString();
  const durability = await store.confirm();
  audit.record('epoch_raised', actor, { kind, reason, at, durability });
  if (json) {
    await print(jsonLine({ kind, at, durability }));
    return DONE;
  }
  await print(
    kind === 'end'
      ? `Every session begun before ${utc(Date.parse(at))} UTC is over.\n`
      : `Every session fetches new tokens at its next use.\n`,
  );
  await print(`  Kept:           ${durabilityInWords(durability)}\n`);
  if (kind === 'end')
    await print(`  Refresh tokens: not revoked by this; 'cloakroom sessions end --all' does that\n`);
  return DONE;
}
