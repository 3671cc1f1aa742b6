import { checkServerIdentity, type ConnectionOptions } from 'node:tls';
import { Cluster, Redis, type RedisOptions } from 'ioredis';

export interface RedisSettings {
  url: string;
  /** Whether the address is one node of a Redis Cluster. */
  cluster: boolean;
  /** Milliseconds. */
  connectTimeout: number;
  /** Milliseconds a command may take before its caller is told `store-unavailable`. */
  commandTimeout: number;
}

/** Commands are the same on both. */
export type RedisClient = Redis | Cluster;

export interface Address {
  readonly host: string;
  readonly port: number;
}

const MAX_RECONNECT_DELAY = 500;

/** MOVED and ASK say that a command was not executed, so following them repeats nothing. */
const MAX_REDIRECTIONS = 4;

export function reconnectDelay(times: number): number {
  return Math.min(50 * times, MAX_RECONNECT_DELAY);
}

/** Makes clients that fail fast: no offline queue, no silent resend, a limit on everything. They connect when told to. */
export class RedisClients {
  readonly #settings: RedisSettings;
  readonly #seed: Address;
  /** Where a Cluster may be entered. The client library reads this array at each attempt, so that it may grow. */
  readonly #entrances: Address[];
  #turn = Math.floor(Math.random() * 1_000);

  constructor(settings: RedisSettings) {
    this.#settings = settings;
    this.#seed = addressOf(settings.url);
    this.#entrances = [this.#seed];
  }

  /** @param silence milliseconds without a byte after which a node of a Cluster that owes a reply is given up */
  open(silence: number): RedisClient {
    return this.#settings.cluster ? this.#openCluster(silence) : this.#openNode();
  }

  #openNode(): Redis {
    return new Redis(this.#settings.url, {
      ...this.#limits(),
      retryStrategy: reconnectDelay,
      // A demoted master keeps the connection and answers READONLY: only a new connection finds the new master.
      // Before Redis 7 a script's refusal has the code inside its message.
      reconnectOnError: (error) => /\b(?:READONLY|MASTERDOWN)\b/.test(error.message),
    });
  }

  #openCluster(silence: number): Cluster {
    const cluster = new Cluster(this.#entrances, {
      lazyConnect: true,
      enableOfflineQueue: false,
      // It would ask a node that is still connecting, which refuses.
      enableReadyCheck: false,
      scaleReads: 'master',
      clusterRetryStrategy: reconnectDelay,
      slotsRefreshTimeout: this.#settings.connectTimeout + this.#settings.commandTimeout,
      maxRedirections: MAX_REDIRECTIONS,
      // Not executed either, and over when the slot has moved.
      retryDelayOnTryAgain: 50,
      // A command whose connection was lost may have been executed; one that met a Cluster that is down would wait.
      retryDelayOnFailover: 0,
      retryDelayOnClusterDown: 0,
      // Names stay names, for certificates and for addresses that change.
      dnsLookup: (host, found) => {
        found(null, host);
      },
      redisOptions: { ...this.#limits(), ...this.#identity(), socketTimeout: silence },
    });
    cluster.on('+node', (node: Redis) => {
      this.#remember(node);
    });
    return cluster;
  }

  /** For messages: in a Cluster every node hears all of them, so any will do. */
  openForMessages(): Redis {
    if (!this.#settings.cluster) return this.openOnce();
    // Each in its turn, since some may be away; begun anywhere, so that not all processes listen to the same.
    this.#turn += 1;
    return this.openOnce(this.#entrances[this.#turn % this.#entrances.length]);
  }

  /** One connection that is not made again when it is lost: to the configured place, or to a node of its Cluster. */
  openOnce(at?: Address, more: { commandTimeout?: number } = {}): Redis {
    const limits = { ...this.#limits(), autoResubscribe: false, retryStrategy: () => null, ...more };
    if (at === undefined) return new Redis(this.#settings.url, limits);
    return new Redis({ ...limits, ...this.#identity(), host: at.host, port: at.port });
  }

  #limits() {
    return {
      lazyConnect: true,
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 0,
      connectTimeout: this.#settings.connectTimeout,
      // Who is cut for being silent will not say goodbye either.
      disconnectTimeout: 100,
      keepAlive: 10_000,
      noDelay: true,
    } satisfies RedisOptions;
  }

  /** What the address says beside the place, for nodes that the Cluster names. */
  #identity() {
    const { protocol, username, password } = new URL(this.#settings.url);
    return {
      ...(username === '' ? {} : { username: decodeURIComponent(username) }),
      ...(password === '' ? {} : { password: decodeURIComponent(password) }),
      ...(protocol === 'rediss:' ? { tls: tlsFor(this.#seed.host) } : {}),
    } satisfies RedisOptions;
  }

  #remember({ options: { host, port } }: Redis): void {
    if (host === undefined || port === undefined) return;
    const known = this.#entrances.findIndex((other) => other.host === host && other.port === port);
    if (known > 0) this.#entrances.splice(known, 1);
    if (known !== 0) this.#entrances.push({ host, port });
    // The configured one stays first; of the others the latest.
    if (this.#entrances.length > 64) this.#entrances.splice(1, 1);
  }
}

function addressOf(url: string): Address {
  const { hostname, port } = new URL(url);
  const host = hostname.replace(/^\[(.*)\]$/, '$1');
  return { host: host === '' ? '127.0.0.1' : host, port: port === '' ? 6379 : Number(port) };
}

/** Nodes often announce a bare address, for which no certificate is made: one for the configured name will do as well. */
function tlsFor(configured: string): ConnectionOptions {
  return {
    checkServerIdentity: (host, certificate) =>
      checkServerIdentity(host, certificate) && checkServerIdentity(configured, certificate),
  };
}
