import type { z } from 'zod';
import type { Wrong } from './setting.js';
import {
  alternatives,
  formatPath,
  holdsSecret,
  keysOf,
  maySpellSecret,
  schemaAt,
  unwrap,
  type Path,
} from './settings.js';

/** One thing wrong with the configuration: where, what, and what to write instead. */
export interface Fault {
  readonly path: string;
  readonly problem: string;
  readonly remedy: string;
  /** `cloakroom.yaml:12`, or `environment variable X`, where that is known. */
  readonly where?: string;
}

export interface LocatedWrong extends Wrong {
  readonly path: Path;
}

export function formatFault(fault: Fault): string {
  return [fault.where, fault.path, `${fault.problem}; ${fault.remedy}`]
    .filter((part) => part !== undefined && part !== '')
    .join(': ');
}

type Issue = z.core.$ZodIssue;

/** Names that people bring from elsewhere. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  cors: 'write cors: { origins: [https://…] } at the top level, if front ends live on other origins at all',
  bodyLimit: 'write limits: { requestBody: 10MiB }',
  origin: 'write publicUrl',
  baseUrl: 'write publicUrl',
  port: 'write listen: { port: … }',
  host: 'write listen: { host: … }',
  redis: 'write store: { redis: { url: … } }',
  redirectUri: 'remove it: the redirect URI is publicUrl followed by /auth/callback',
  scope: 'write scopes: [openid, …]',
  token: 'write sha256: …, the hash that `cloakroom admin-token` prints beside the token',
  tls: 'remove it: certificates are always verified; NODE_EXTRA_CA_CERTS names further authorities',
};

/** What zod found, in plain English. `valueAt` gives the value as it was written. */
export function explainIssues(issues: readonly Issue[], valueAt: (path: Path) => unknown): LocatedWrong[] {
  return issues.flatMap((issue) => explain(issue, [], valueAt));
}

function explain(issue: Issue, parent: Path, valueAt: (path: Path) => unknown): LocatedWrong[] {
  const path: Path = [...parent, ...(issue.path as (string | number)[])];
  const value = valueAt(path);
  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map((key) => ({ path: [...path, key], ...unknownKey(path, key) }));
    case 'invalid_union': {
      const fitting = issue.errors.filter((branch) => !branch.some(isWrongKind));
      const branch = fitting.length === 1 ? fitting[0] : undefined;
      return (
        branch?.flatMap((inner) => explain(inner, path, valueAt)) ?? [{ path, ...wrongValue(path, value) }]
      );
    }
    case 'invalid_key':
      return issue.issues.flatMap((inner) => explain(inner, path, valueAt));
    case 'custom':
      return [{ path, problem: issue.message, remedy: String(issue.params?.['remedy'] ?? sample(path)) }];
    case 'too_small':
    case 'too_big':
      if (Array.isArray(value)) return [{ path, problem: 'is empty', remedy: sample(path) }];
      if (typeof value === 'string') return [{ path, problem: 'is empty', remedy: sample(path) }];
      return [{ path, ...outOfRange(path, value) }];
    default:
      return [{ path, ...wrongValue(path, value) }];
  }
}

/** Whether the branch of a union was not the one that was meant at all. */
function isWrongKind(issue: Issue): boolean {
  return issue.path.length === 0 && (issue.code === 'invalid_type' || issue.code === 'invalid_value');
}

function wrongValue(path: Path, value: unknown): Wrong {
  const schema = schemaAt(path);
  const node = schema && unwrap(schema);
  const options = schema ? alternatives(schema).map(unwrap) : [];
  if (value === undefined) return { problem: 'is missing', remedy: sample(path) };
  if (value === null) {
    const remedy =
      node?.required === false ? `${sample(path)}, or remove the line for the default` : sample(path);
    return { problem: 'is empty', remedy };
  }
  const shown = maySpellSecret(path) ? 'the value' : show(value);
  if (typeof value === 'string') {
    const refused = node?.meta.refused;
    if (refused && Object.hasOwn(refused, value)) return refused[value] as Wrong;
  }
  if (schema && holdsSecret(schema) && typeof value !== 'object') {
    return {
      problem: 'holds the secret itself',
      remedy: 'write { file: /run/secrets/name } or { env: NAME }, and keep the secret there',
    };
  }
  const choices = options.flatMap((option) =>
    Object.values(option.definition.entries ?? {}).concat((option.definition.values ?? []).map(String)),
  );
  if (choices.length > 0) {
    const near = typeof value === 'string' ? nearest(value, choices) : undefined;
    const others = options.some((option) => option.definition.type === 'object');
    const list = `${choices.length > 1 ? 'one of ' : ''}${choices.join(', ')}${others ? ' or a block of settings' : ''}`;
    return {
      problem: `${shown} is not ${list}`,
      remedy: near === undefined ? sample(path) : `did you mean ${near}?`,
    };
  }
  if (typeof value === 'string' && options.some((option) => option.definition.type === 'string')) {
    return { problem: `${shown} has characters that are not allowed here`, remedy: sample(path) };
  }
  return {
    problem: `is ${kindOf(value)}, not ${wanted(options)}`,
    remedy: remedyForKind(path, value, options),
  };
}

type Options = readonly ReturnType<typeof unwrap>[];

const KINDS: Readonly<Record<string, string>> = {
  string: 'text',
  enum: 'text',
  number: 'a number',
  int: 'a number',
  boolean: 'true or false',
  array: 'a list',
  object: 'a block of settings',
  record: 'a block of settings',
};

function wanted(options: Options): string {
  const names = options.map(({ definition, meta }) =>
    meta.kind === 'duration' || meta.kind === 'size'
      ? `a ${meta.kind}`
      : (KINDS[definition.type] ?? definition.type),
  );
  return [...new Set(names)].join(' or ');
}

function kindOf(value: unknown): string {
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'a block';
  if (typeof value === 'string') return 'text';
  return typeof value === 'number' ? 'a number' : 'true or false';
}

function remedyForKind(path: Path, value: unknown, options: Options): string {
  const [only] = options;
  if (options.length === 1 && only && (typeof value === 'number' || typeof value === 'boolean')) {
    if (only.meta.kind === 'duration') return 'write a number and a unit (ms, s, m, h, d), such as 30s';
    if (only.meta.kind === 'size') return 'write a number and a unit (B, KiB, MiB, GiB), such as 10MiB';
    if (only.definition.type === 'string') return 'put it in quotes';
  }
  return sample(path);
}

function outOfRange(path: Path, value: unknown): Wrong {
  const last = String(path.at(-1));
  return last === 'port'
    ? { problem: `${show(value)} is not a port`, remedy: 'write a number from 0 to 65535' }
    : { problem: `${show(value)} is out of range`, remedy: sample(path) };
}

function unknownKey(parent: Path, key: string): Wrong {
  const schema = schemaAt(parent);
  const known = schema ? keysOf(schema) : [];
  const near = nearest(key, known);
  const problem = 'is not a setting';
  if (near !== undefined) return { problem, remedy: `did you mean ${formatPath([...parent, near])}?` };
  const elsewhere = Object.hasOwn(ELSEWHERE, key) ? ELSEWHERE[key] : undefined;
  if (elsewhere !== undefined) return { problem, remedy: elsewhere };
  const place = parent.length === 0 ? 'the top level' : formatPath(parent);
  return { problem, remedy: `remove it; the settings of ${place} are ${known.join(', ')}` };
}

/** What a right value looks like, from the schema's own example. */
function sample(path: Path): string {
  const key = path.at(-1);
  const schema = schemaAt(path);
  if (schema === undefined) return 'remove it';
  const { meta, definition } = unwrap(schema);
  if (meta.kind === 'secret') return 'write { file: /run/secrets/name } or { env: NAME }';
  if (meta.example !== undefined)
    return `write ${typeof key === 'string' ? `${key}: ` : ''}${flow(meta.example)}`;
  if (definition.entries) return `write one of ${Object.values(definition.entries).join(', ')}`;
  const keys = keysOf(schema);
  if (keys.length > 0)
    return `write ${typeof key === 'string' ? `${key}: ` : ''}{ ${keys.join(': …, ')}: … }`;
  if (definition.element) return `write a list of ${keysOf(definition.element).join(', ') || 'values'}`;
  if (definition.valueType) return 'write a block of names and values';
  return `write ${wanted([unwrap(schema)])}`;
}

/** A value in YAML's flow style, on one line. */
export function flow(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(flow).join(', ')}]`;
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value).map(([key, inner]) => `${key}: ${flow(inner)}`);
    return entries.length === 0 ? '{}' : `{ ${entries.join(', ')} }`;
  }
  return String(value);
}

function show(value: unknown): string {
  const text = JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

/** The known name that a typing error would most likely have come from. */
export function nearest(written: string, known: readonly string[]): string | undefined {
  const plain = (text: string) => text.toLowerCase().replace(/[-_. ]/g, '');
  const target = plain(written);
  let best: { name: string; distance: number } | undefined;
  for (const name of known) {
    const distance = editDistance(target, plain(name));
    if (distance <= Math.max(1, Math.floor(name.length / 4)) && distance < (best?.distance ?? Infinity)) {
      best = { name, distance };
    }
  }
  return best?.name;
}

/** Insertions, deletions, replacements and swaps of neighbours. */
function editDistance(a: string, b: string): number {
  const rows: number[][] = [Array.from({ length: b.length + 1 }, (_, index) => index)];
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const at = (r: number, c: number) => (r === i ? row[c] : rows[r]?.[c]) ?? Infinity;
      const replaced = at(i - 1, j - 1) + (a[i - 1] === b[j - 1] ? 0 : 1);
      const swapped =
        i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1] ? at(i - 2, j - 2) + 1 : Infinity;
      row.push(Math.min(at(i - 1, j) + 1, at(i, j - 1) + 1, replaced, swapped));
    }
    rows.push(row);
  }
  return rows[a.length]?.[b.length] ?? Infinity;
}
