import type { Duplex } from 'node:stream';
import { Agent, buildConnector, errors, type Dispatcher } from 'undici';
import { sharedLookup } from './shared-lookup.js';

/** Milliseconds after which connections are not used for further requests, so that a name that moved is followed. */
const RENEWED_EVERY = 60_000;

/** Milliseconds. */
export interface UpstreamTimes {
  connect: number;
  firstByte: number;
  idle: number;
}

/** What becomes of attempts to make a connection. */
export interface ConnectionListener {
  connected: () => void;
  unreachable: () => void;
}

type Connected = (...result: [error: Error, socket: null] | [error: null, socket: Duplex]) => void;

/** One server that requests of a route go to, and the connections to it. Each new connection looks its name up. */
export class Upstream {
  /** Scheme, host and port; nothing of a request ever changes it. */
  readonly url: URL;
  readonly #origin: string;
  readonly #times: UpstreamTimes;
  readonly #connect: buildConnector.connector;
  /** Whose last requests, streams perhaps, are still under way. */
  readonly #retired = new Set<Agent>();
  readonly #renewal: NodeJS.Timeout;
  #agent: Agent;

  constructor(origin: string, times: UpstreamTimes, listener: ConnectionListener) {
    this.url = new URL(origin);
    this.#origin = this.url.origin;
    this.#times = times;
    this.#connect = connector(times.connect, listener);
    this.#agent = this.#openAgent();
    this.#renewal = setInterval(() => {
      this.#renew();
    }, RENEWED_EVERY).unref();
  }

  dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): void {
    options.origin = this.#origin;
    this.#agent.dispatch(options, handler);
  }

  /** A connection for something else than one request. */
  connect(callback: Connected): void {
    const { protocol, hostname, host, port } = this.url;
    this.#connect({ protocol, host, hostname: hostname.replace(/^\[|\]$/g, ''), port }, callback);
  }

  async destroy(): Promise<void> {
    clearInterval(this.#renewal);
    await Promise.all([this.#agent, ...this.#retired].map((agent) => agent.destroy()));
  }

  #openAgent(): Agent {
    const { firstByte, idle } = this.#times;
    // Not a pool, which would keep the connection that it makes anew whenever a request is given up.
    return new Agent({ connect: this.#connect, headersTimeout: firstByte, bodyTimeout: idle });
  }

  #renew(): void {
    const retired = this.#agent;
    if (Object.keys(retired.stats).length === 0) return;
    this.#agent = this.#openAgent();
    this.#retired.add(retired);
    void retired.close().finally(() => this.#retired.delete(retired));
  }
}

/** @param limit milliseconds, for the lookup of the name and the handshake of TLS together */
function connector(limit: number, { connected, unreachable }: ConnectionListener): buildConnector.connector {
  const connect = buildConnector({ timeout: limit, lookup: sharedLookup });
  return (options, callback) => {
    let isLate = false;
    // The connector's own timer, which destroys the socket, may be a second late.
    const timer = setTimeout(() => {
      isLate = true;
      unreachable();
      callback(new errors.ConnectTimeoutError('no connection in time'), null);
    }, limit);
    connect(options, (error, socket) => {
      if (isLate) {
        socket?.destroy();
        return;
      }
      clearTimeout(timer);
      if (error === null) {
        connected();
        callback(null, socket);
      } else {
        unreachable();
        callback(error, null);
      }
    });
  };
}
