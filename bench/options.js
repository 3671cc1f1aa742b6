// @ts-check
import { parseArgs } from 'node:util';

/**
 * @typedef {object} Options
 * @property {number} sessions
 * @property {boolean} cold each session at most once a round, and not again before everything has been forgotten
 * @property {number} rounds
 * @property {number} seconds
 * @property {number} warmup seconds
 * @property {number} connections
 * @property {number} body bytes
 * @property {boolean} behindTls
 * @property {boolean} profile
 * @property {number} top
 */

const COLD_SESSIONS = 20_000;
/** From here on a round cannot use every session often enough for anything to be remembered usefully. */
const COLD_FROM = 5000;

const USAGE = `Usage: npm run bench -- [options]
       npm run bench -- logout [options]     from a forced logout to the first refusal on every replica
       npm run bench -- sessions [options]   listing and ending very many sessions: time, memory, bytes in Redis
       npm run bench -- streams [options]    messages of WebSockets and server-sent events, beside direct connections

Loads a bare node:http + undici proxy (the reference, no session) and Cloakroom (real Redis, sealing on) in turns, both
in front of the same upstream, and prints what each costs and the ratio of their CPU time per request.

  --sessions N     people who are logged in, each request is the next one's (default 100)
  --cold           nothing is remembered from one request to the next: ${COLD_SESSIONS} sessions unless --sessions says
                   otherwise, each used at most once a round, with rests between rounds; ${COLD_FROM} sessions or more imply
                   it. Logging that many people in takes about a minute first
  --rounds N       rounds for each of the two, in turns (default 5)
  --seconds N      length of a round (default 4)
  --warmup N       seconds of load on each before anything counts (default 3)
  --connections N  keep-alive connections of the load (default 50)
  --body N         bytes of each answer of the upstream, about (default 1024)
  --behind-tls     as behind a proxy that ends TLS: https public URL, X-Forwarded-* from a trusted peer
  --profile        one round of Cloakroom alone under node --cpu-prof; prints where its CPU time goes
  --top N          functions that --profile prints (default 40)
  --help           this text

Redis: the one of REDIS_URL (keys under a prefix of their own, removed afterwards), or a private redis-server from PATH.
The exit code tells whether the measurement worked, not what it found.
`;

/**
 * @param {string[]} args
 * @returns {Options | { say: string, code: number }}
 */
export function readOptions(args) {
  let values;
  try {
    ({ values } = parseArgs({
      args,
      options: {
        sessions: { type: 'string' },
        cold: { type: 'boolean', default: false },
        rounds: { type: 'string', default: '5' },
        seconds: { type: 'string', default: '4' },
        warmup: { type: 'string', default: '3' },
        connections: { type: 'string', default: '50' },
        body: { type: 'string', default: '1024' },
        'behind-tls': { type: 'boolean', default: false },
        profile: { type: 'boolean', default: false },
        top: { type: 'string', default: '40' },
        help: { type: 'boolean', short: 'h', default: false },
      },
    }));
  } catch (error) {
    return { say: `${/** @type {Error} */ (error).message}\nTry --help.\n`, code: 1 };
  }
  if (values.help) return { say: USAGE, code: 0 };

  /** @type {string[]} */
  const faults = [];
  /**
   * @param {string} name
   * @param {string} text
   * @param {number} least
   * @param {number} most
   */
  const number = (name, text, least, most) => {
    const value = Number(text);
    if (!Number.isInteger(value) || value < least || value > most) {
      faults.push(`--${name} must be a whole number from ${String(least)} to ${String(most)}\n`);
    }
    return value;
  };
  const sessions = number(
    'sessions',
    values.sessions ?? String(values.cold ? COLD_SESSIONS : 100),
    1,
    50_000,
  );
  const options = {
    sessions,
    cold: values.cold || sessions >= COLD_FROM,
    rounds: number('rounds', values.rounds, 1, 50),
    seconds: number('seconds', values.seconds, 1, 60),
    warmup: number('warmup', values.warmup, 1, 60),
    connections: number('connections', values.connections, 1, 500),
    body: number('body', values.body, 64, 10_000_000),
    behindTls: values['behind-tls'],
    profile: values.profile,
    top: number('top', values.top, 1, 500),
  };
  return faults.length > 0 ? { say: faults.join(''), code: 1 } : options;
}
