// @ts-check
// The load, in a process of its own: requests leave at their appointed times, however long the answers before them take,
// and each one's time is counted from the moment it was due.
import { setTimeout as sleep } from 'node:timers/promises';
import { Pool } from 'undici';

/**
 * @typedef {object} Order
 * @property {string[]} targets origins of the replicas
 * @property {string[]} cookies one for each session; sessions take turns
 * @property {string[]} headers of every request
 * @property {string} path
 * @property {number} rate requests a second
 * @property {number} seconds after which it ends by itself
 * @property {boolean} balance send only to replicas whose /readyz said 200 last, as a load balancer would
 */

const CONNECTIONS = 256;
const MOST_WAITING = 20_000;
const NO_ANSWER_AFTER = 30_000;
const PROBE_EVERY = 50;

/** @type {(() => void) | undefined} */
let stop;

process.on('message', (/** @type {any} */ message) => {
  if (message.stop) stop?.();
  else {
    run(message.order).then(
      (result) => process.send?.({ result }),
      (error) => process.send?.({ failed: error.message }),
    );
  }
});
process.on('disconnect', () => process.exit(0));
process.send?.({ ready: true });

/** @param {Order} order */
async function run({ targets, cookies, headers, path, rate, seconds, balance }) {
  const pools = targets.map(
    (origin) =>
      new Pool(origin, {
        connections: CONNECTIONS,
        pipelining: 1,
        headersTimeout: NO_ANSWER_AFTER,
        bodyTimeout: NO_ANSWER_AFTER,
      }),
  );
  /** @type {number[]} */
  const due = [];
  /** @type {number[]} */
  const took = [];
  /** @type {number[]} */
  const status = [];
  /** @type {number[]} */
  const marks = [];
  /** @type {Map<string, number>} */
  const errors = new Map();
  const begun = performance.now();
  let ready = pools;
  let sent = 0;
  let waiting = 0;
  let unsent = 0;
  let stopped = false;
  stop = () => {
    stopped = true;
  };

  /** @param {string} text */
  const note = (text) => errors.set(text, (errors.get(text) ?? 0) + 1);

  /** @param {number} number @param {number} at */
  const fire = (number, at) => {
    if (waiting >= MOST_WAITING || ready.length === 0) {
      unsent += 1;
      note(ready.length === 0 ? 'no replica was ready' : 'too many requests were waiting');
      return;
    }
    waiting += 1;
    const session = number % cookies.length;
    // A session meets another replica each time round.
    const pool = ready[(number + Math.floor(number / cookies.length)) % ready.length];
    /** @param {number} code @param {number} mark */
    const end = (code, mark) => {
      waiting -= 1;
      due.push(at);
      took.push(performance.now() - at);
      status.push(code);
      marks.push(mark);
    };
    let code = 0;
    let mark = 0;
    pool?.dispatch(
      { path, method: 'GET', headers: [...headers, 'cookie', cookies[session] ?? ''] },
      {
        onConnect() {},
        onHeaders(statusCode, rawHeaders) {
          code = statusCode;
          for (let i = 0; i < rawHeaders.length; i += 2) {
            const name = rawHeaders[i]?.toString('latin1').toLowerCase();
            if (name === 'set-cookie' || name === 'location') mark = 1;
          }
          return true;
        },
        onData: () => true,
        onComplete: () => end(code, mark),
        onError(error) {
          note(/** @type {NodeJS.ErrnoException} */ (error).code ?? error.message);
          end(0, 0);
        },
      },
    );
  };

  const probe = async () => {
    while (!stopped) {
      const states = await Promise.all(
        targets.map((origin) =>
          fetch(`${origin}/readyz`, { signal: AbortSignal.timeout(2000) }).then(
            async (answer) => {
              await answer.arrayBuffer();
              return answer.status === 200;
            },
            () => false,
          ),
        ),
      );
      ready = pools.filter((_, at) => states[at]);
      await sleep(PROBE_EVERY);
    }
  };
  const probing = balance ? probe() : undefined;

  const until = begun + seconds * 1000;
  while (!stopped) {
    const now = performance.now();
    if (now >= until) stopped = true;
    for (let at = begun + (sent * 1000) / rate; at <= now && !stopped; at = begun + (sent * 1000) / rate) {
      fire(sent, at);
      sent += 1;
    }
    await sleep(1);
  }
  const lasted = (performance.now() - begun) / 1000;
  await probing;
  const giveUp = performance.now() + NO_ANSWER_AFTER + 5000;
  while (waiting > 0 && performance.now() < giveUp) await sleep(10);
  await Promise.all(pools.map((pool) => pool.destroy()));
  return {
    due: Float64Array.from(due, (at) => performance.timeOrigin + at),
    took: Float64Array.from(took),
    status: Uint16Array.from(status),
    marks: Uint8Array.from(marks),
    errors: [...errors],
    rate: sent / lasted,
    unsent: unsent + waiting,
  };
}
