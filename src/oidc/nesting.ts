const DEEPEST = 32;

/**
 * True for JSON that nests deeper than any claim does. Reading such JSON is harmless, but writing it again, as a session's
 * contents are, would overflow the stack.
 */
export function isTooDeep(value: unknown, left = DEEPEST): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return left === 0 || Object.values(value).some((member) => isTooDeep(member, left - 1));
}
