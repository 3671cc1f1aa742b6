import type { Behaviour, Json } from '../fault-provider.js';
import type { Random } from '../random.js';
import { upstreamAnswer } from './answers.js';

/** An answer of a provider that departs from the ordinary. */
export interface SpoiltAnswer {
  behaviour: Behaviour;
  /** An answer in HTTP that is no failure of the provider: what is in it is read. */
  isReadable: boolean;
  /** The status, where it is no matter of the ordinary answer. */
  status: number;
  /** What it says, likewise; latin1. */
  text: string;
  /** Members or claims that are not what they should be; undefined: nothing of it is. */
  changed: readonly string[] | undefined;
}

const NAMES = [
  ...['access_token', 'token_type', 'id_token', 'refresh_token', 'expires_in', 'scope'],
  ...['error', 'error_description', '__proto__', 'constructor'],
];

function anyValue(random: Random, depth = 0): unknown {
  return random.pick<() => unknown>([
    ...[() => null, () => '', () => 'x', () => 0, () => -1, () => 1e308, () => true, () => false],
    ...[() => random.string(random.int(0, 3000)), () => 'Bearer', () => '\0\r\n', () => '\u{1f4a9}'],
    ...[() => 'e30.e30.', () => 'eyJhbGciOiJub25lIn0.e30.', () => 'e30.'.repeat(40)],
    () => (depth > 3 ? [] : [anyValue(random, depth + 1)]),
    () => (depth > 3 ? {} : { a: anyValue(random, depth + 1), __proto__: 1 }),
  ])();
}

/** What a provider might say instead of an answer. None of it is one to sign anybody in by. */
export function anythingElse(random: Random): SpoiltAnswer {
  const kind = random.int(0, 7);
  if (kind === 0) {
    const { bytes } = upstreamAnswer(random);
    return unreadable({ raw: bytes }, bytes);
  }
  if (kind === 1) return unreadable({ reset: true }, 'a reset');
  const json = (): string =>
    JSON.stringify(
      Object.fromEntries(NAMES.filter(() => random.chance(0.6)).map((name) => [name, anyValue(random)])),
    );
  const status = random.pick([200, 200, 200, 200, 201, 204, 302, 400, 401, 403, 404, 429, 500, 503, 599]);
  const body =
    kind === 2
      ? json().slice(0, random.int(0, 20))
      : kind === 3
        ? random.bytes(random.int(0, 2000))
        : kind === 4
          ? '['.repeat(random.int(1, 50_000))
          : json();
  const type = random.pick([
    ...['application/json', 'application/json', 'text/html', ''],
    ...['application/jwt', 'application/json; charset=utf-16'],
  ]);
  const behaviour = { status, body, headers: { 'content-type': type } };
  return { behaviour, isReadable: status < 500, status, text: body.toString('latin1'), changed: undefined };
}

function unreadable(behaviour: Behaviour, text: string): SpoiltAnswer {
  return { behaviour, isReadable: false, status: 0, text, changed: undefined };
}

/**
 * The ordinary answer, but for some of its members.
 * @param names those that it may be
 */
export function almost(random: Random, names: readonly string[]): SpoiltAnswer {
  const changes = someOf(random, names);
  const mutate = (answer: Json): Json => ({ ...answer, ...changes });
  return { behaviour: { mutate }, isReadable: true, status: 200, text: '', changed: Object.keys(changes) };
}

/** Tokens, but the ID token says something else, well signed. */
export function almostClaims(random: Random, names: readonly string[]): SpoiltAnswer {
  const changes = someOf(random, names);
  const claims = (answer: Json): Json => ({ ...answer, ...changes });
  return { behaviour: { claims }, isReadable: true, status: 200, text: '', changed: Object.keys(changes) };
}

/** A key set with some of its keys not what they should be. */
export function almostKeys(random: Random): SpoiltAnswer {
  const members = ['kty', 'kid', 'n', 'e', 'alg', 'use', 'key_ops', 'x5c', 'crv', 'x', 'k', 'd', 'oth'];
  const one = (): unknown =>
    random.chance(0.4)
      ? anyValue(random)
      : { kty: random.pick(['RSA', 'EC', 'oct', 'OKP', null]), ...someOf(random, members) };
  const mutate = ({ keys }: Json): Json => ({
    keys: random.chance(0.2)
      ? anyValue(random)
      : [
          ...Array.from({ length: random.int(0, 20) }, one),
          ...(keys as Json[]).map((key) => ({ ...key, ...someOf(random, members) })),
        ],
  });
  return { behaviour: { mutate }, isReadable: true, status: 200, text: '', changed: ['keys'] };
}

/** Names with any values; undefined takes a member away. */
function someOf(random: Random, names: readonly string[]): Record<string, unknown> {
  const chosen = random.shuffle(names).slice(0, random.chance(0.6) ? 1 : random.int(2, 3));
  return Object.fromEntries(chosen.map((name) => [name, random.chance(0.15) ? undefined : anyValue(random)]));
}
