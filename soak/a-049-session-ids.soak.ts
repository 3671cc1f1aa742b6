import { expect } from '@jest/globals';
import { startCloakroom } from '../test/support/cloakroom.js';
import { makeSessions } from '../test/support/made-sessions.js';
import { loginsLast } from '../test/support/over-at-once.js';
import { logIn } from './people.js';
import { scenario, type Say } from './scenario.js';

const CREATED = 1_000_000;
const PART = 50_000;
const LOGINS = 10_000;
const BITS = 256;

/** What is seen of many ids: doubles, and how often each bit is set. */
class Ids {
  readonly seen = new Set<string>();
  readonly ones = new Uint32Array(BITS);
  count = 0;

  add(id: string): void {
    const bytes = Buffer.from(id, 'base64url');
    if (bytes.length !== BITS / 8 || bytes.toString('base64url') !== id) throw new Error('not 32 bytes');
    this.count += 1;
    this.seen.add(id);
    for (let bit = 0; bit < BITS; bit += 1) {
      this.ones[bit] = (this.ones[bit] ?? 0) + (((bytes[bit >> 3] ?? 0) >> (bit & 7)) & 1);
    }
  }

  /** In standard deviations of a fair coin, the bit that is furthest off. */
  get worstBit(): number {
    const deviation = Math.sqrt(this.count / 4);
    return Math.max(...[...this.ones].map((ones) => Math.abs(ones - this.count / 2) / deviation));
  }

  judge(say: Say, what: string): void {
    say(
      `${String(this.count)} ${what}: ${String(this.count - this.seen.size)} doubles; the most uneven of 256 bits is ${this.worstBit.toFixed(1)} standard deviations off`,
    );
    expect(this.seen.size).toBe(this.count);
    // Chance leaves 6 once in two million runs; a bit that is fixed or biased by one per cent is 20 off.
    expect(this.worstBit).toBeLessThan(6);
  }
}

/** The id in a `Cookie` value, signature and encoding taken off. */
const idOf = (value: string): string => /^s(?::|%3A)([A-Za-z0-9_-]{43})\./.exec(value)?.[1] ?? '';

scenario(
  'A-049',
  `${String(LOGINS)} real logins and ${String(CREATED)} sessions created by the code that a login calls: no id twice, no bit that leans`,
  15,
  async (say) => {
    say(
      'a million logins would take hours: the million is made by the session creation alone, in this process',
    );
    const created = new Ids();
    // A store of its own for each part: a million records would fill the memory.
    while (created.count < CREATED)
      await makeSessions(PART, (secret) => created.add(secret.toString('base64url')));
    created.judge(say, 'ids of created sessions');

    const c = await startCloakroom({ tap: false });
    loginsLast(c.provider, 3600);
    const real = new Ids();
    for (const client of await logIn(c, LOGINS, say)) real.add(idOf(client.sessionCookie?.value ?? ''));
    real.judge(say, 'ids of real logins');
    expect([...real.seen].filter((id) => created.seen.has(id))).toEqual([]);
    // That no id stands in a log is looked for here; the tokens, in the search at the end of the run.
    const lines = c.replicas.flatMap((replica) => replica.log.map((line) => JSON.stringify(line)));
    const words = new Set(lines.flatMap((line) => line.match(/[A-Za-z0-9_-]{43}/g) ?? []));
    say(
      `${String(lines.length)} log lines with ${String(words.size)} words of that length, none of them an id`,
    );
    expect([...words].filter((word) => real.seen.has(word))).toEqual([]);
  },
);
