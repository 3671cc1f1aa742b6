import { parseArgs, type ParseArgsConfig } from 'node:util';

type Options = NonNullable<ParseArgsConfig['options']>;

/** What is wrong with a command line, for whoever typed it. */
export class UsageError extends Error {}

const COMMON = {
  config: { type: 'string', short: 'c' },
  help: { type: 'boolean', short: 'h' },
} as const;

/** A handle that begins like an option: one in 64 does. */
const LIKE_AN_OPTION = /^-[A-Za-z0-9_-]{42}$/;
/** Nothing that was typed can hold it. */
const SHIELD = '\0';

/** Keeps handles from being taken for options, until they have been read as what they are. */
export function shielded(argv: readonly string[]): string[] {
  return argv.map((argument) => (LIKE_AN_OPTION.test(argument) ? SHIELD + argument : argument));
}

function unshielded(argument: string): string {
  return argument.startsWith(SHIELD) ? argument.slice(SHIELD.length) : argument;
}

/**
 * Reads options strictly: an unknown one, one without its value, an empty value and one given twice are refused. An empty
 * variable of a script, or the second of two users, must never silently mean somebody else.
 *
 * @throws {UsageError}
 */
export function readArguments<O extends Options>(argv: readonly string[], options: O) {
  const config = {
    args: [...argv],
    allowPositionals: true as const,
    tokens: true as const,
    options: { ...COMMON, ...options },
  };
  const parsed = parse(config);
  const seen = new Set<string>();
  for (const token of parsed.tokens) {
    if (token.kind !== 'option') continue;
    if (token.value === '') throw new UsageError(emptyValue(token.name));
    if (seen.has(token.name)) throw new UsageError(`option '--${token.name}' is given twice`);
    seen.add(token.name);
  }
  const values = parsed.values as Record<string, unknown>;
  for (const [name, value] of Object.entries(values)) {
    if (typeof value === 'string') values[name] = unshielded(value);
  }
  return { ...parsed, positionals: parsed.positionals.map(unshielded) };
}

function parse<T extends ParseArgsConfig>(config: T) {
  try {
    return parseArgs(config);
  } catch (error) {
    throw new UsageError((error as Error).message.split('. ')[0] ?? 'wrong usage');
  }
}

function emptyValue(name: string): string {
  return name === 'config'
    ? "option '--config' needs the path of a file"
    : `option '--${name}' needs a value`;
}

/** @throws {UsageError} for anything more than is expected */
export function noMore([unexpected]: readonly string[]): void {
  if (unexpected !== undefined) throw new UsageError(`unexpected argument '${unexpected}'`);
}
