import { parseDocument } from 'yaml';
import type { z } from 'zod';
import type { LocatedWrong } from './faults.js';
import { nearest } from './faults.js';
import {
  acceptsOnlyText,
  alternatives,
  below,
  environmentName,
  environmentSegment,
  holdsSecret,
  keysOf,
  root,
  settings,
  unwrap,
  type Path,
} from './settings.js';

/** Settings that come from CLOAKROOM_* variables, laid over those of the file. */

export type Tree = Record<string, unknown>;

export interface Overlay {
  readonly tree: Tree;
  /** The variable that set the value at a path, by `originKey`. */
  readonly origins: ReadonlyMap<string, string>;
  readonly wrongs: readonly VariableWrong[];
}

export interface VariableWrong extends LocatedWrong {
  readonly variable: string;
}

export function originKey(path: Path): string {
  return JSON.stringify(path);
}

const PREFIX = 'CLOAKROOM_';

/** Variables that configure the command, not the server. */
const RESERVED = new Set(['CLOAKROOM_CONFIG']);

/**
 * Kubernetes announces every Service of the namespace to every container, one named `cloakroom` as
 * CLOAKROOM_SERVICE_HOST, CLOAKROOM_PORT=tcp://…, CLOAKROOM_PORT_3000_TCP_ADDR and so on. These are not ours.
 */
function isServiceLink(name: string, value: string): boolean {
  if (name.includes('__')) return false;
  if (/_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$/.test(name)) return true;
  if (/_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$/.test(name)) return true;
  return name.endsWith('_PORT') && /^(tcp|udp|sctp):\/\//.test(value);
}

interface Assignment {
  readonly variable: string;
  readonly path: Path;
  readonly schema: z.ZodType;
  readonly text: string;
}

export function overlayEnvironment(tree: Tree, env: NodeJS.ProcessEnv): Overlay {
  const wrongs: VariableWrong[] = [];
  const origins = new Map<string, string>();
  const unknown: string[] = [];
  const assignments: Assignment[] = [];
  for (const [variable, text = ''] of Object.entries(env)) {
    if (!variable.startsWith(PREFIX) || RESERVED.has(variable) || isServiceLink(variable, text)) continue;
    const target = resolveVariable(variable, tree);
    if (target) assignments.push({ variable, text, ...target });
    else unknown.push(variable);
  }
  // Outer settings first, then list elements in order: an element lands in the list that the outer variable made.
  assignments.sort((a, b) => a.path.length - b.path.length || comparePaths(a.path, b.path));
  for (const assignment of assignments) {
    const wrong = assign(tree, assignment, origins);
    if (wrong) wrongs.push({ ...wrong, path: assignment.path, variable: assignment.variable });
  }
  const named = namedVariables(tree);
  for (const variable of unknown) {
    if (!named.has(variable)) wrongs.push({ path: [], variable, ...unknownVariable(variable) });
  }
  return { tree, origins, wrongs };
}

function comparePaths(a: Path, b: Path): number {
  for (const [index, key] of a.entries()) {
    const other = b[index];
    if (typeof key === 'number' && typeof other === 'number' && key !== other) return key - other;
    if (key !== other) return String(key) < String(other) ? -1 : 1;
  }
  return 0;
}

function resolveVariable(variable: string, tree: Tree): { path: Path; schema: z.ZodType } | undefined {
  let schema = root;
  let value: unknown = tree;
  const path: (string | number)[] = [];
  for (const segment of variable.slice(PREFIX.length).split('__')) {
    const key = keyFor(segment, schema, value);
    const next = key === undefined ? undefined : below(schema, key);
    if (key === undefined || next === undefined) return undefined;
    path.push(key);
    schema = next;
    value = isTree(value) && Object.hasOwn(value, key) ? value[key] : undefined;
  }
  return { path, schema };
}

function keyFor(segment: string, schema: z.ZodType, value: unknown): string | number | undefined {
  for (const option of alternatives(schema)) {
    const { definition, meta } = unwrap(option);
    const known = Object.keys(definition.shape ?? {}).find((key) => environmentSegment(key) === segment);
    if (known !== undefined) return known;
    if (definition.element && /^(0|[1-9][0-9]{0,2})$/.test(segment)) return Number(segment);
    if (definition.valueType && /^[A-Z0-9_]+$/.test(segment)) {
      const written = isTree(value) ? Object.keys(value) : [];
      const existing = written.find((key) => environmentSegment(key) === segment);
      const fresh = segment.toLowerCase();
      return existing ?? (meta.keyStyle === 'dashed' ? fresh.replaceAll('_', '-') : fresh);
    }
  }
  return undefined;
}

function assign(
  tree: Tree,
  { variable, path, schema, text }: Assignment,
  origins: Map<string, string>,
): { problem: string; remedy: string } | undefined {
  if (text.trim() === '') {
    return { problem: 'is set but empty', remedy: 'unset the variable, or give it a value' };
  }
  const parsed = isPlainText(schema, text) ? { value: text } : parseValue(text);
  if ('problem' in parsed) return parsed;
  let holder: unknown = tree;
  for (const [depth, key] of path.slice(0, -1).entries()) {
    const current = get(holder, key);
    if (typeof current === 'object' && current !== null) {
      dropAlternative(current, path, depth + 1, origins);
      holder = current;
      continue;
    }
    const here = path.slice(0, depth + 1);
    const setBy = origins.get(originKey(here));
    if (setBy !== undefined) {
      return { problem: `contradicts ${setBy}, which gives the whole of it`, remedy: `unset one of the two` };
    }
    const fresh = typeof path[depth + 1] === 'number' ? [] : {};
    const gap = put(holder, key, fresh);
    if (gap) return gap;
    holder = fresh;
  }
  const gap = put(holder, path.at(-1) as string | number, parsed.value);
  if (!gap) origins.set(originKey(path), variable);
  return gap;
}

/** Text is taken as it stands; so is what must be a secret, or a URL with one, unless it is a `{ file }` or `{ env }`. */
function isPlainText(schema: z.ZodType, text: string): boolean {
  return acceptsOnlyText(schema) || (holdsSecret(schema) && !text.trimStart().startsWith('{'));
}

/** A variable that chooses one of two exclusive settings (file or env, memory or redis) replaces the file's choice. */
function dropAlternative(holder: object, path: Path, depth: number, origins: Map<string, string>): void {
  const schemas = path
    .slice(0, depth)
    .reduce<z.ZodType | undefined>((schema, key) => schema && below(schema, key), root);
  const exclusive = schemas && alternatives(schemas).some((option) => unwrap(option).meta.oneOf === true);
  if (!exclusive || Array.isArray(holder)) return;
  const given = [...origins.keys()];
  for (const key of Object.keys(holder)) {
    const other = originKey([...path.slice(0, depth), key]).slice(0, -1);
    const fromVariable = given.some((origin) => origin.startsWith(other));
    if (key !== path[depth] && !fromVariable) Reflect.deleteProperty(holder, key);
  }
}

function put(
  holder: unknown,
  key: string | number,
  value: unknown,
): { problem: string; remedy: string } | undefined {
  if (Array.isArray(holder)) {
    if (typeof key !== 'number' || key > holder.length) {
      return {
        problem: `leaves a gap in the list, which has ${holder.length} so far`,
        remedy: `number the elements from 0 without gaps: the next is ${holder.length}`,
      };
    }
    holder[key] = value;
    return undefined;
  }
  // A plain assignment to `__proto__` would not make a key.
  Object.defineProperty(holder, key, { value, enumerable: true, configurable: true, writable: true });
  return undefined;
}

function get(holder: unknown, key: string | number): unknown {
  return typeof holder === 'object' && holder !== null && Object.hasOwn(holder, key)
    ? (holder as Record<string | number, unknown>)[key]
    : undefined;
}

function isTree(value: unknown): value is Record<string | number, unknown> {
  return typeof value === 'object' && value !== null;
}

function parseValue(text: string): { value: unknown } | { problem: string; remedy: string } {
  const document = parseDocument(text, { prettyErrors: false });
  if (document.errors.length > 0 || document.warnings.length > 0) {
    return {
      problem: 'cannot be read as a YAML value',
      remedy: 'write a plain value, a list [a, b] or a block { key: value }',
    };
  }
  return { value: document.toJS({ maxAliasCount: 0 }) as unknown };
}

/** Variables that some `{ env: NAME }` of the configuration names. */
function namedVariables(tree: unknown, names = new Set<string>()): Set<string> {
  if (typeof tree === 'object' && tree !== null) {
    for (const [key, value] of Object.entries(tree)) {
      if (key === 'env' && typeof value === 'string') names.add(value);
      else namedVariables(value, names);
    }
  }
  return names;
}

function unknownVariable(variable: string): { problem: string; remedy: string } {
  const written = variable.slice(PREFIX.length);
  const segments = written.split('__');
  const fixed = [...settings()]
    .filter(({ path }) => !path.some((key) => String(key).startsWith('<')))
    .map(({ path }) => environmentName(path));
  const suggestion = nearest(variable, fixed) ?? suggestDeep(segments);
  return {
    problem: 'is not a setting, and no { env: … } names it',
    remedy:
      suggestion === undefined
        ? 'unset it; docs/configuration.md lists the variable of every setting'
        : `did you mean ${suggestion}?`,
  };
}

/** Follows the segments as far as they are known and corrects the first that is not. */
function suggestDeep(segments: readonly string[]): string | undefined {
  let schema = root;
  const path: (string | number)[] = [];
  for (const [index, segment] of segments.entries()) {
    let key = keyFor(segment, schema, undefined);
    if (key === undefined) {
      const names = keysOf(schema);
      const near = nearest(segment, names.map(environmentSegment));
      key = names.find((name) => environmentSegment(name) === near);
      if (key === undefined || index === 0) return undefined;
    }
    const next = below(schema, key);
    if (!next) return undefined;
    path.push(key);
    schema = next;
  }
  return environmentName(path);
}
