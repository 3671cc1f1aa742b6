import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { formatFault } from '../config/faults.js';
import { jsonSchema } from '../config/json-schema.js';
import { loadConfig } from '../config/load.js';
import type { Config } from '../config/config.js';
import { ADMIN_TOKEN_USAGE, adminTokenCommand } from './admin-token.js';
import { noMore, readArguments, shielded, UsageError } from './arguments.js';
import type { Command } from './command.js';
import { EPOCH_USAGE, epochCommand } from './epoch.js';
import { DONE, EX_CONFIG, EX_SOFTWARE, EX_USAGE } from './exit-codes.js';
import { loadModule } from './load-module.js';
import { SESSIONS_USAGE, sessionsCommand } from './sessions.js';

/** The command line: what to do, and with which exit code it ends (those of sysexits.h). */

const USAGE = `usage: cloakroom <command> [--config <file>]

commands
  start        run the server
  check        read the configuration, reach the providers, the store and the upstreams, and tell what was found
  sessions     list sessions, show one, end them; see 'cloakroom sessions --help'
  epoch        end or renew everything from before now; see 'cloakroom epoch --help'
  admin-token  make a token for the admin listener; see 'cloakroom admin-token --help'
  revoker      revoke refresh tokens of ended sessions, and nothing else: for servers without the private key
  schema       print the JSON Schema of the configuration file, for editors
  help         print this text

options
  -c, --config <file>   the configuration file; else CLOAKROOM_CONFIG, else cloakroom.yaml if there is one;
                        every setting can also come from a CLOAKROOM_* variable
  -v, --version         print the version
  -h, --help            print this text, or that of the command

exit codes
  0 all right   1 the address is taken; nothing matched   64 wrong usage   69 Redis cannot be reached
  70 failure of the program   78 faults in the configuration
`;

interface CommandLine {
  readonly usage: string;
  /** @throws {UsageError} */
  readonly read: (argv: readonly string[]) => Command;
}

type Start = typeof import('./start.js');
type Check = typeof import('./check.js');
type Revoker = typeof import('./revoker.js');

// What runs them is loaded late, so that a fault of the configuration is told without loading the server.
const COMMANDS: ReadonlyMap<string, CommandLine> = new Map<string, CommandLine>([
  // Work for a store that never came back may still be waiting; everything that could be finished is.
  [
    'start',
    plain(async (config) => process.exit(await (await loadModule<Start>('./start.js')).start(config))),
  ],
  ['check', plain(async (config) => (await loadModule<Check>('./check.js')).check(config))],
  [
    'revoker',
    plain(async (config) => process.exit(await (await loadModule<Revoker>('./revoker.js')).revoker(config))),
  ],
  ['sessions', { usage: SESSIONS_USAGE, read: sessionsCommand }],
  ['epoch', { usage: EPOCH_USAGE, read: epochCommand }],
  ['admin-token', { usage: ADMIN_TOKEN_USAGE, read: adminTokenCommand }],
  ['schema', text(() => `${JSON.stringify(jsonSchema(), null, 2)}\n`)],
  ['help', text(() => USAGE)],
]);

export async function main(argv: readonly string[]): Promise<void> {
  let usage = USAGE;
  try {
    const { name, rest } = split(shielded(argv));
    if (name === undefined) return;
    const line = COMMANDS.get(name);
    if (line === undefined) throw new UsageError(`unknown command '${name}'`);
    usage = line.usage;
    const command = line.read(rest);
    if (command.help) process.stdout.write(usage);
    else process.exitCode = await command.run(() => load(command.file));
  } catch (error) {
    if (error instanceof UsageError) {
      process.stderr.write(`cloakroom: ${error.message}\n\n${usage}`);
      process.exitCode = EX_USAGE;
      return;
    }
    const problem = error instanceof Error ? (error.stack ?? error.message) : String(error);
    process.stderr.write(`cloakroom: ${problem}\n`);
    process.exitCode = EX_SOFTWARE;
  }
}

/** The command's name, wherever it stands, and everything else. Without one there is only something to print. */
function split(argv: readonly string[]): { name: string | undefined; rest: readonly string[] } {
  const { values, tokens } = parseArgs({
    args: [...argv],
    allowPositionals: true,
    // Options of commands are not known here; each command reads its own strictly.
    strict: false,
    tokens: true,
    options: {
      config: { type: 'string', short: 'c' },
      version: { type: 'boolean', short: 'v' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values['version'] === true) {
    process.stdout.write(`${version()}\n`);
    return { name: undefined, rest: [] };
  }
  const first = tokens.find(({ kind }) => kind === 'positional');
  if (first !== undefined) return { name: argv[first.index], rest: argv.toSpliced(first.index, 1) };
  const { help } = readArguments(argv, {}).values;
  if (help !== true) throw new UsageError('a command is missing');
  process.stdout.write(USAGE);
  return { name: undefined, rest: [] };
}

/** A command that has no options but the configuration. */
function plain(run: (config: Config) => Promise<number>): CommandLine {
  return {
    usage: USAGE,
    read: (argv) => {
      const { help, file } = ownless(argv);
      return {
        help,
        file,
        run: (read) => {
          const config = read();
          return config === undefined ? EX_CONFIG : run(config);
        },
      };
    },
  };
}

function text(make: () => string): CommandLine {
  const run = () => {
    process.stdout.write(make());
    return DONE;
  };
  return { usage: USAGE, read: (argv) => ({ ...ownless(argv), run }) };
}

function ownless(argv: readonly string[]): { help: boolean; file: string | undefined } {
  const { values, positionals } = readArguments(argv, {});
  noMore(positionals);
  return { help: values.help === true, file: values.config };
}

function load(file: string | undefined): Config | undefined {
  const loaded = loadConfig({ file, env: process.env, cwd: process.cwd() });
  if ('config' in loaded) return loaded.config;
  for (const fault of loaded.faults) process.stderr.write(`cloakroom: ${formatFault(fault)}\n`);
  return undefined;
}

function version(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
