// At the end of the name before its extension, of which there may be two (`.js.map`), behind a dash or a dot.

const HEXADECIMAL = /[.-](?=[^.]*[0-9])(?=[^.]*[a-f])[0-9a-f]{8,64}(?:\.[A-Za-z0-9]{1,5}){1,2}$/;
/** Eight characters is what today's bundlers take; a capital and a digit tell them from most words. */
const BASE64URL =
  /[.-](?=[A-Za-z0-9_-]{8}\.)(?=[^.]*[0-9])(?=[^.]*[A-Z])[A-Za-z0-9_-]{8}(?:\.[A-Za-z0-9]{1,5}){1,2}$/;

/**
 * Whether a bundler put a hash of the content into this name of a file, as far as a name can tell. In doubt no: a file that
 * changes under a name that browsers keep for a year is worse than one that is asked for again.
 */
export function hasContentHash(name: string): boolean {
  return HEXADECIMAL.test(name) || BASE64URL.test(name);
}
