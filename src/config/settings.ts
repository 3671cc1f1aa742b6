import type { z } from 'zod';
import { fileSchema } from './schema.js';
import type { About } from './setting.js';

/** The schema read as a tree of settings: what exists at a path, under which name in the environment. */

export type Path = readonly (string | number)[];

interface Meta extends Partial<About> {
  readonly kind?: string;
  readonly oneOf?: boolean;
  readonly keyName?: string;
  readonly keyStyle?: 'dashed';
}

interface Definition {
  readonly type: string;
  readonly innerType?: z.ZodType;
  readonly defaultValue?: unknown;
  readonly in?: z.ZodType;
  readonly shape?: Readonly<Record<string, z.ZodType>>;
  readonly element?: z.ZodType;
  readonly valueType?: z.ZodType;
  readonly options?: readonly z.ZodType[];
  readonly entries?: Readonly<Record<string, string>>;
  readonly values?: readonly unknown[];
}

/** A schema without its wrappers (default, optional, transformation). */
export interface Node {
  readonly definition: Definition;
  readonly meta: Meta;
  readonly fallback: unknown;
  readonly required: boolean;
}

export function unwrap(schema: z.ZodType): Node {
  let meta: Meta = {};
  let fallback: unknown;
  let required = true;
  let current = schema;
  for (;;) {
    meta = { ...(current.meta() as Meta | undefined), ...meta };
    const definition = current._zod.def as unknown as Definition;
    if (definition.type === 'optional') required = false;
    if (definition.type === 'prefault' || definition.type === 'default') {
      required = false;
      fallback = definition.defaultValue;
    }
    const inner = definition.innerType ?? definition.in;
    if (!inner) return { definition, meta, fallback, required };
    current = inner;
  }
}

export const root: z.ZodType = fileSchema;

/** The alternatives at one place: the options of a union, or the schema alone. */
export function alternatives(schema: z.ZodType): readonly z.ZodType[] {
  const { definition } = unwrap(schema);
  return definition.options ? definition.options.flatMap(alternatives) : [schema];
}

/** The schema of what lies one step below, whatever its name in a record or its number in a list. */
export function below(schema: z.ZodType, key: string | number): z.ZodType | undefined {
  for (const option of alternatives(schema)) {
    const { shape, element, valueType } = unwrap(option).definition;
    if (shape && typeof key === 'string' && Object.hasOwn(shape, key)) return shape[key];
    if (element && typeof key === 'number') return element;
    if (valueType && typeof key === 'string') return valueType;
  }
  return undefined;
}

export function schemaAt(path: Path): z.ZodType | undefined {
  let schema: z.ZodType | undefined = root;
  for (const key of path) schema = schema && below(schema, key);
  return schema;
}

/** The names of the settings directly below, where these are fixed. */
export function keysOf(schema: z.ZodType): string[] {
  return alternatives(schema).flatMap((option) => Object.keys(unwrap(option).definition.shape ?? {}));
}

export function acceptsOnlyText(schema: z.ZodType): boolean {
  return alternatives(schema).every((option) => ['string', 'enum'].includes(unwrap(option).definition.type));
}

/** Whether a value written there may be a secret, put where its place was meant. */
export function maySpellSecret(path: Path): boolean {
  return path.some((_, index) => {
    const schema = schemaAt(path.slice(0, index + 1));
    return schema !== undefined && (unwrap(schema).meta.secret === true || holdsSecret(schema));
  });
}

export function holdsSecret(schema: z.ZodType): boolean {
  return alternatives(schema).some((option) => unwrap(option).meta.kind === 'secret');
}

/** `idTokenAlgs` is ID_TOKEN_ALGS, the provider `my-idp` is MY_IDP. */
export function environmentSegment(key: string): string {
  return key
    .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
    .replaceAll('-', '_')
    .toUpperCase();
}

export function environmentName(path: Path): string {
  return `CLOAKROOM_${path.map((key) => environmentSegment(String(key))).join('__')}`;
}

export function formatPath(path: Path): string {
  let text = '';
  for (const key of path) {
    if (typeof key === 'number') text += `[${key}]`;
    else {
      // A key comes from the file: quoting keeps it on its line and in its place.
      const name = /^[A-Za-z0-9_<>*-]+$/.test(key) ? key : JSON.stringify(key);
      text += text === '' ? name : `.${name}`;
    }
  }
  return text;
}

export interface Setting {
  readonly path: Path;
  readonly schema: z.ZodType;
  readonly node: Node;
  readonly block: boolean;
}

/** Every setting in the order of the schema; records and lists of blocks show as `<name>` and `<n>`. */
export function* settings(schema: z.ZodType = root, path: Path = []): Generator<Setting> {
  const node = unwrap(schema);
  const { shape, element, valueType } = node.definition;
  const secret = node.meta.kind === 'secret';
  const listOfBlocks = element && unwrap(element).definition.type === 'object' && !holdsSecret(element);
  const recordOfBlocks = valueType && unwrap(valueType).definition.type === 'object';
  const block = !secret && (shape !== undefined || Boolean(listOfBlocks) || Boolean(recordOfBlocks));
  if (path.length > 0) yield { path, schema, node, block };
  if (shape && !secret) {
    for (const [key, child] of Object.entries(shape)) yield* settings(child, [...path, key]);
  }
  if (element && listOfBlocks) yield* settings(element, [...path, '<n>']);
  if (valueType && recordOfBlocks) yield* settings(valueType, [...path, `<${node.meta.keyName ?? 'key'}>`]);
  if (node.definition.options) {
    for (const option of node.definition.options) {
      const inner = unwrap(option);
      if (!inner.definition.shape || holdsSecret(option)) continue;
      for (const [key, child] of Object.entries(inner.definition.shape))
        yield* settings(child, [...path, key]);
    }
  }
}

/** How a rule looks at the values as they were written. */
export type Look = (...path: Path) => unknown;

/** The default of a setting two levels deep, as it would be written. */
export function fallback(block: string, key: string): unknown {
  const inner = unwrap(root).definition.shape?.[block];
  const leaf = inner && unwrap(inner).definition.shape?.[key];
  return leaf && unwrap(leaf).fallback;
}
