import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { formatFault } from '../config/faults.js';
import { jsonSchema } from '../config/json-schema.js';
import { loadConfig } from '../config/load.js';
import type { Config } from '../config/schema.js';

/** The command line: what to do, and with which exit code it ends (those of sysexits.h). */

const EX_USAGE = 64;
const EX_SOFTWARE = 70;
const EX_CONFIG = 78;

const USAGE = `usage: cloakroom <command> [--config <file>]

commands
  start      run the server
  check      read the configuration, reach the providers, the store and the upstreams, and tell what was found
  schema     print the JSON Schema of the configuration file, for editors
  help       print this text

options
  -c, --config <file>   the configuration file; else CLOAKROOM_CONFIG, else cloakroom.yaml if there is one;
                        every setting can also come from a CLOAKROOM_* variable
  -v, --version         print the version
  -h, --help            print this text

exit codes
  0 all right   1 the address is taken   64 wrong usage   70 failure of the program   78 faults in the configuration
`;

interface Command {
  readonly name: string;
  readonly file: string | undefined;
}

export async function main(argv: readonly string[]): Promise<void> {
  const command = parseCommand(argv);
  if (typeof command === 'string') {
    process.stderr.write(`cloakroom: ${command}\n\n${USAGE}`);
    process.exitCode = EX_USAGE;
    return;
  }
  try {
    await run(command);
  } catch (error) {
    process.stderr.write(
      `cloakroom: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`,
    );
    process.exitCode = EX_SOFTWARE;
  }
}

/** What is asked for, or what is wrong with the question. */
function parseCommand(argv: readonly string[]): Command | string {
  let parsed;
  try {
    parsed = parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        config: { type: 'string', short: 'c' },
        version: { type: 'boolean', short: 'v' },
        help: { type: 'boolean', short: 'h' },
      },
    });
  } catch (error) {
    return (error as Error).message.split('. ')[0] ?? 'wrong usage';
  }
  const { values, positionals } = parsed;
  if (values.help === true) return { name: 'help', file: undefined };
  if (values.version === true) return { name: 'version', file: undefined };
  const [name, ...extra] = positionals;
  if (name === undefined) return 'a command is missing';
  if (!['start', 'check', 'schema', 'help'].includes(name)) return `unknown command '${name}'`;
  if (extra[0] !== undefined) return `unexpected argument '${extra[0]}'`;
  if (values.config === '') return "option '--config' needs the path of a file";
  return { name, file: values.config };
}

async function run({ name, file }: Command): Promise<void> {
  switch (name) {
    case 'help':
      process.stdout.write(USAGE);
      return;
    case 'version':
      process.stdout.write(`${version()}\n`);
      return;
    case 'schema':
      process.stdout.write(`${JSON.stringify(jsonSchema(), null, 2)}\n`);
      return;
    default: {
      const config = load(file);
      if (!config) {
        process.exitCode = EX_CONFIG;
        return;
      }
      // Imported late, so that a fault of the configuration is told without loading the server.
      if (name === 'check') {
        const { check } = await import('./check.js');
        process.exitCode = await check(config);
      } else {
        const { start } = await import('./start.js');
        // Work for a store that never came back may still be waiting; everything that could be finished is.
        process.exit(await start(config));
      }
    }
  }
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
