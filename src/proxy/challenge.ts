/** A challenge of `WWW-Authenticate`. Names of parameters in lower case. */
export interface Challenge {
  /** In lower case. */
  scheme: string;
  parameters: ReadonlyMap<string, string>;
}

const TOKEN = /[!#$%&'*+.^_`|~0-9A-Za-z-]+/y;
/** Also takes what nobody may send inside: such a challenge is none, rather than another one. */
const QUOTED = /"((?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*)"/y;
const TOKEN68 = /[A-Za-z0-9._~+/-]+=*(?=[\t ]*(?:,|$))/y;
const EQUALS = /[\t ]*=[\t ]*/y;
const SPACES = /[\t ]+/y;
/** Empty elements of a list count for nothing: RFC 9110 section 5.6.1. */
const BETWEEN = /[\t ]*(?:,[\t ]*)*/y;
const COMMA = /[\t ]*,[\t ,]*/y;
const LONGEST = 4096;

/**
 * Reads one `WWW-Authenticate` value, which may hold several challenges.
 *
 * @returns none at all for a value that is not well-formed, or in which a challenge names a parameter twice: what two
 *   readers would take differently means nothing
 * @see RFC 9110 section 11.6.1
 */
export function challenges(value: string): Challenge[] {
  if (value.length > LONGEST) return [];
  const reader = new Reader(value);
  const found: Challenge[] = [];
  reader.take(BETWEEN);
  while (reader.position < value.length) {
    const scheme = reader.take(TOKEN);
    if (scheme === undefined) return [];
    const parameters = new Map<string, string>();
    if (reader.take(SPACES) !== undefined && reader.take(TOKEN68) === undefined) {
      if (!readParameters(reader, parameters)) return [];
    }
    found.push({ scheme: scheme.toLowerCase(), parameters });
    if (reader.position < value.length && reader.take(COMMA) === undefined) return [];
  }
  return found;
}

/** As many as there are; a name that no `=` follows begins the next challenge. */
function readParameters(reader: Reader, parameters: Map<string, string>): boolean {
  for (;;) {
    const start = reader.position;
    if (parameters.size > 0 && reader.take(COMMA) === undefined) return true;
    const name = reader.take(TOKEN)?.toLowerCase();
    if (name === undefined || reader.take(EQUALS) === undefined) {
      reader.position = start;
      return true;
    }
    const value = reader.take(QUOTED)?.replace(/\\(.)/g, '$1') ?? reader.take(TOKEN);
    if (value === undefined || parameters.has(name)) return false;
    parameters.set(name, value);
  }
}

class Reader {
  readonly #text: string;
  position = 0;

  constructor(text: string) {
    this.#text = text;
  }

  /** @returns what the pattern matches here (its first group, where it has one), and goes on behind it */
  take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.position;
    const match = pattern.exec(this.#text);
    if (match === null) return undefined;
    this.position = pattern.lastIndex;
    return match[1] ?? match[0];
  }
}
