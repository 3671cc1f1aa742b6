import { z } from 'zod';
import { DURATION_PATTERN, parseDuration } from './duration.js';
import { NAME_TOKEN } from './reserved.js';
import { parseSize, SIZE_PATTERN } from './size.js';

/** What a setting carries besides its type. `example` also serves as the remedy when a value is missing. */
export interface About {
  readonly description: string;
  readonly example: unknown;
  readonly secret?: boolean;
  /** Values people write that are refused on purpose, with the reason and what to write. */
  readonly refused?: Readonly<Record<string, Wrong>>;
}

export interface Wrong {
  readonly problem: string;
  readonly remedy: string;
}

export function setting<S extends z.ZodType>(schema: S, about: About): S {
  return schema.meta({ ...about });
}

/** Adds a rule whose violation names both the problem and what to write. */
export function checked<S extends z.ZodType>(schema: S, test: (value: z.output<S>) => Wrong | undefined): S {
  return schema.superRefine((value, context) => {
    const wrong = test(value);
    if (wrong) context.addIssue({ code: 'custom', message: wrong.problem, params: { remedy: wrong.remedy } });
  });
}

export function quote(value: string): string {
  return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value);
}

export function duration(least: string, most: string) {
  return quantity(least, most, {
    kind: 'duration',
    pattern: DURATION_PATTERN,
    parse: parseDuration,
    under: 'too short',
    over: 'too long',
    units: 'ms, s, m, h, d',
  });
}

export function size(least: string, most: string) {
  return quantity(least, most, {
    kind: 'size',
    pattern: SIZE_PATTERN,
    parse: parseSize,
    under: 'too small',
    over: 'too large',
    units: 'B, KiB, MiB, GiB',
  });
}

interface Quantity {
  readonly kind: string;
  readonly pattern: RegExp;
  readonly parse: (text: string) => number | undefined;
  readonly under: string;
  readonly over: string;
  readonly units: string;
}

/** A number with a unit, between two of its kind; both count as allowed. */
function quantity(least: string, most: string, { kind, pattern, parse, under, over, units }: Quantity) {
  const [low, high] = [parse(least) ?? 0, parse(most) ?? Infinity];
  return z
    .string()
    .meta({ kind, pattern: pattern.source })
    .transform((text, context) => {
      const value = parse(text);
      if (value !== undefined && value >= low && value <= high) return value;
      const problem =
        value === undefined ? `${quote(text)} is not a ${kind}` : `${text} is ${value < low ? under : over}`;
      const remedy = `write a whole number and a unit (${units}), between ${least} and ${most}`;
      context.addIssue({ code: 'custom', message: problem, params: { remedy } });
      return z.NEVER;
    });
}

export function nameList(what: string, test: (name: string) => Wrong | undefined) {
  const name = checked(z.string(), (value) =>
    NAME_TOKEN.test(value)
      ? test(value)
      : {
          problem: `${quote(value)} is not the name of a ${what}`,
          remedy: `name each ${what}; there are no wildcards`,
        },
  );
  return z.array(name).prefault([]);
}
