// @ts-check
// The load, in a process of its own: a fixed number of keep-alive connections, each sending its next request when the
// answer to the last one is complete.
import { once } from 'node:events';
import { createHistogram } from 'node:perf_hooks';
import { Client } from 'undici';

/**
 * @typedef {object} Round
 * @property {string} origin
 * @property {number} seconds
 * @property {number} connections
 * @property {boolean} oncePerSession the round ends when every session has been used
 * @property {number} length bytes every answer must have
 */

/** Share of requests: on a busy machine a process can be kept waiting for longer than Cloakroom waits for Redis. */
const MAY_BE_REFUSED = 0.005;

/** @type {string[]} */
let cookies = [];
/** @type {string[]} */
let headers = [];
let next = 0;

process.on('message', (/** @type {any} */ message) => {
  if (message.cookies) {
    ({ cookies, headers } = message);
    process.send?.({ ready: true });
  } else {
    run(message).then(
      (result) => process.send?.(result),
      (error) => process.send?.({ failed: error.message }),
    );
  }
});
process.on('disconnect', () => process.exit(0));
process.send?.({ ready: true });

/** @param {Round} round */
async function run(round) {
  const clients = Array.from(
    { length: round.connections },
    () => new Client(round.origin, { pipelining: 1, headersTimeout: 5000, bodyTimeout: 5000 }),
  );
  const histogram = createHistogram();
  const begun = performance.now();
  const until = begun + round.seconds * 1000;
  let requests = 0;
  let refused = 0;
  let used = 0;
  let active = clients.length;
  /** @type {string | undefined} */
  let wrong;
  /** @type {string | undefined} */
  let failure;
  /** @type {(value?: unknown) => void} */
  let finished = () => undefined;
  const end = new Promise((resolve) => {
    finished = resolve;
  });

  /** @param {Client} client */
  const send = (client) => {
    const over = performance.now() >= until || (round.oncePerSession && used === cookies.length);
    if (over || failure !== undefined) {
      active -= 1;
      if (active === 0) finished();
      return;
    }
    next = next + 1 < cookies.length ? next + 1 : 0;
    used += 1;
    client.dispatch(
      {
        path: '/api/orders?page=2&sort=placed',
        method: 'GET',
        headers: [...headers, 'cookie', cookies[next] ?? ''],
      },
      new Answer(client),
    );
  };

  class Answer {
    #begun = process.hrtime.bigint();
    #status = 0;
    #length = 0;
    #client;

    /** @param {Client} client */
    constructor(client) {
      this.#client = client;
    }

    onConnect() {}

    /** @param {number} status */
    onHeaders(status) {
      this.#status = status;
      return true;
    }

    /** @param {Buffer} chunk */
    onData(chunk) {
      this.#length += chunk.length;
      return true;
    }

    onComplete() {
      if (this.#status !== 200 || this.#length !== round.length) {
        refused += 1;
        wrong ??= `status ${String(this.#status)}, ${String(this.#length)} bytes`;
      }
      histogram.record(process.hrtime.bigint() - this.#begun);
      requests += 1;
      send(this.#client);
    }

    /** @param {Error} error */
    onError(error) {
      failure ??= error.message;
      send(this.#client);
    }
  }

  for (const client of clients) send(client);
  await end;
  const seconds = (performance.now() - begun) / 1000;
  await Promise.all(clients.map((client) => client.destroy()));
  if (failure !== undefined) throw new Error(failure);
  if (refused > requests * MAY_BE_REFUSED) {
    throw new Error(`${String(refused)} of ${String(requests)} answers were wrong (${String(wrong)})`);
  }
  return {
    requests,
    refused,
    seconds,
    p50: histogram.percentile(50) / 1e6,
    p99: histogram.percentile(99) / 1e6,
  };
}

await once(process, 'disconnect');
