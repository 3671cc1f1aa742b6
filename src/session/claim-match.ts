import type { WantedClaims } from '../config/config.js';

/** A claim by its name, or else by the path that its dots lead along; undefined where there is none. */
export function claimAt(claims: Readonly<Record<string, unknown>>, path: string): unknown {
  if (Object.hasOwn(claims, path)) return claims[path];
  let value: unknown = claims;
  for (const name of path.split('.')) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, name)) return undefined;
    value = (value as Record<string, unknown>)[name];
  }
  return value;
}

/** Whether a claim has one of some values; a list must contain one of them. Nothing is converted: `"1"` is not `1`. */
export function hasOneOf(claim: unknown, wanted: readonly unknown[]): boolean {
  return Array.isArray(claim) ? claim.some((value) => wanted.includes(value)) : wanted.includes(claim);
}

export function matchesAll(claims: Readonly<Record<string, unknown>>, wanted: WantedClaims): boolean {
  return Object.entries(wanted).every(([path, values]) => hasOneOf(claimAt(claims, path), values));
}
