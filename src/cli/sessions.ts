import type { SessionFilter } from '../endings/filter.js';
import type { Administration } from './administration.js';
import { noMore, readArguments, UsageError } from './arguments.js';
import { administering, type Command } from './command.js';
import { readReason } from './consent.js';
import { DONE, NOTHING } from './exit-codes.js';
import { CRITERIA_OPTIONS, CRITERIA_USAGE, knownIssuer, readCriteria } from './session-criteria.js';
import { endSessions } from './sessions-end.js';
import { sessionDetails, sessionJson, SessionTable } from './sessions-output.js';
import { jsonLine, print, tell } from './terminal.js';

/** `cloakroom sessions`: who is signed in, and no longer. */

export const SESSIONS_USAGE = `usage: cloakroom sessions list [criteria] [--limit N] [--cursor CURSOR] [--json]
       cloakroom sessions show HANDLE [--json]
       cloakroom sessions end criteria [--reason TEXT] [--dry-run] [--yes] [--json]

${CRITERIA_USAGE}
options
  --limit N                at most so many; 50 unless told, with --json all
  --cursor CURSOR          go on where a list ended
  --json                   one JSON object a line; a list that ended at its limit has {"next": CURSOR} as its last
  --reason TEXT            why, for the audit log; needed to end more than one. No secrets, no personal data
  --dry-run                end nothing, and show what would be ended
  --yes                    do not ask before ending sessions of people who are not named (--all, --issuer, --before, …);
                           without a terminal to ask at, nothing is ended unless this is given
  -c, --config FILE        the configuration of the servers
  -h, --help               print this text

exit codes
  0   done
  1   nothing matched, or the question was not answered with yes: nothing was ended
  64  wrong usage, or a reason or --yes is missing: nothing was ended
  69  Redis cannot be reached, or stopped answering; what had begun to end is finished by the servers
  78  faults in the configuration, or sessions are in memory
`;

/** Sessions read at a time. */
const PAGE = 250;
const LIMIT = 50;

/** @throws {UsageError} */
export function sessionsCommand(argv: readonly string[]): Command {
  const { values, positionals } = readArguments(argv, {
    ...CRITERIA_OPTIONS,
    limit: { type: 'string' },
    cursor: { type: 'string' },
    json: { type: 'boolean' },
    reason: { type: 'string' },
    'dry-run': { type: 'boolean' },
    yes: { type: 'boolean' },
  });
  const [verb, ...rest] = positionals;
  const { config: file, json = false } = values;
  const command = (work: (administration: Administration) => Promise<number>): Command => ({
    help: values.help === true,
    file,
    run: administering(work),
  });
  if (values.help === true) return command(() => Promise.resolve(DONE));
  const allow = (...names: readonly string[]) => {
    const own = new Set([...names, 'json', 'config']);
    const other = Object.keys(values).find((name) => !own.has(name));
    if (other !== undefined)
      throw new UsageError(`option '--${other}' does not go with 'sessions ${String(verb)}'`);
  };
  switch (verb) {
    case 'list': {
      noMore(rest);
      allow(...Object.keys(CRITERIA_OPTIONS), 'limit', 'cursor');
      const filter = readCriteria(values);
      const limit = readLimit(values.limit) ?? (json ? Infinity : LIMIT);
      return command((administration) =>
        list(administration, filter, { limit, cursor: values.cursor, json }),
      );
    }
    case 'show': {
      allow('handle');
      const [handle = values.handle, ...extra] = rest;
      noMore(extra);
      const filter = readCriteria({ handle });
      if (filter.handle === undefined) throw new UsageError('the handle of a session is missing');
      const known = filter.handle;
      return command((administration) => show(administration, known, json));
    }
    case 'end': {
      noMore(rest);
      allow(...Object.keys(CRITERIA_OPTIONS), 'reason', 'dry-run', 'yes');
      const filter = readCriteria(values);
      if (Object.keys(filter).every((name) => name === 'except')) {
        throw new UsageError('say whose sessions: --user, --handle, …; or --all for everybody');
      }
      const reason = readReason(values.reason);
      const options = { reason, dryRun: values['dry-run'] === true, yes: values.yes === true, json };
      return command((administration) =>
        endSessions(administration, knownIssuer(filter, administration.config), options),
      );
    }
    default:
      throw new UsageError(
        verb === undefined ? 'say what to do: list, show or end' : `unknown command 'sessions ${verb}'`,
      );
  }
}

function readLimit(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new UsageError("'--limit' is not a number of sessions");
  return Number(text);
}

async function list(
  { directory, audit, actor, config }: Administration,
  criteria: SessionFilter,
  { limit, cursor, json }: { limit: number; cursor: string | undefined; json: boolean },
): Promise<number> {
  const filter = knownIssuer(criteria, config);
  const table = new SessionTable(process.stdout.isTTY ? process.stdout.columns : undefined);
  let listed = 0;
  let next = cursor;
  // Said before anything is shown: a reader may stop reading at any line.
  audit.record('sessions_listed', actor, { by: Object.keys(filter) });
  do {
    const page = await directory.page(filter, next, Math.min(PAGE, limit - listed));
    const { sessions } = page;
    next = page.next;
    listed += sessions.length;
    if (json) await print(sessions.map((session) => jsonLine(sessionJson(session))).join(''));
    else if (sessions.length > 0) await print(table.rows(sessions));
  } while (next !== undefined && listed < limit);
  if (next !== undefined) {
    if (json) await print(jsonLine({ next }));
    else tell(`There may be more: go on with --cursor ${next}\n`);
  }
  if (listed > 0) return DONE;
  if (!json) tell('Nobody matches.\n');
  return NOTHING;
}

async function show(
  { directory, audit, actor }: Administration,
  handle: string,
  json: boolean,
): Promise<number> {
  const session = await directory.show(handle);
  audit.record('session_shown', actor, { handle, found: session !== undefined });
  if (session === undefined) {
    tell('There is no such session: it has ended, or there never was one.\n');
    return NOTHING;
  }
  await print(json ? jsonLine(sessionJson(session)) : sessionDetails(session));
  return DONE;
}
