import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { CloakroomError } from '../errors.js';
import { ClusterMasters } from './cluster-masters.js';
import type { RedisClient } from './redis-clients.js';

export interface ConnectionLimits {
  /** Milliseconds. */
  connectTimeout: number;
  /** Milliseconds. */
  commandTimeout: number;
  /** Commands that may be under way at once; past it callers are refused at once instead of queueing. */
  maxPending: number;
}

export interface ConnectionEvents {
  /** Whether commands can be run at all. May say the same twice. */
  onChange(available: boolean, error?: unknown): void;
  /** One master of a Cluster went or is back. */
  onMaster(address: string, available: boolean, error?: Error): void;
  /** Redis answers, but does not do as asked. */
  onRefusal(error: Error): void;
}

/** Milliseconds between two looks at what is overdue. */
const LOOK_EVERY = 50;

interface Pending {
  since: number;
  refuse: (error: CloakroomError) => void;
}

/**
 * One connection to Redis, or one to each master of a Cluster, that fails fast and comes back by itself. No offline queue,
 * no silent resend (a command whose reply was lost may have run), and a peer that accepts but never answers is cut rather
 * than waited for.
 */
export class RedisConnection {
  readonly redis: RedisClient;
  readonly #single: Redis | undefined;
  readonly #masters: ClusterMasters | undefined;
  readonly #limits: ConnectionLimits;
  readonly #events: ConnectionEvents;
  /** In the order of sending, which on one connection is the order of replies: the first is always the oldest. */
  readonly #pending = new Set<Pending>();
  readonly #overdueTimer: NodeJS.Timeout;
  #gathering: Redis['stream'] | undefined;
  #lastReply = 0;
  #lostAt = -Infinity;
  #open = false;
  #cutting = false;
  #opening: Promise<void> | undefined;
  #closing = false;
  #watchdog: NodeJS.Timeout | undefined;

  constructor(redis: RedisClient, limits: ConnectionLimits, events: ConnectionEvents) {
    this.redis = redis;
    this.#limits = limits;
    this.#events = events;
    this.#overdueTimer = setInterval(() => {
      if (this.#hasOverdue()) this.#lookAgain();
    }, LOOK_EVERY).unref();
    redis.on('error', (error: Error) => {
      events.onChange(false, error);
    });
    redis.on('close', () => {
      clearTimeout(this.#watchdog);
      this.#open = false;
      this.#cutting = false;
      this.#lostAt = performance.now();
      events.onChange(false);
    });
    const onOpen = (): void => {
      // A peer that wakes up may still finish the handshake of a connection that is being cut.
      if (this.#cutting) return;
      clearTimeout(this.#watchdog);
      this.#open = true;
      this.#lastReply = performance.now();
      events.onChange(true);
    };
    if (redis instanceof Redis) {
      this.#single = redis;
      redis.on('ready', onOpen);
      redis.on('connect', () => {
        this.#watchReadiness(redis);
      });
    } else {
      this.#masters = new ClusterMasters(redis, {
        onOpen,
        onLost: () => (this.#lostAt = performance.now()),
        onMaster: (...change) => {
          events.onMaster(...change);
        },
      });
    }
  }

  /** When a connection was last lost: whether what was written on it has been kept can no longer be asked there. */
  get lostAt(): number {
    return this.#lostAt;
  }

  /** Begins to connect; never fails. */
  connect(): void {
    this.redis.connect().catch((error: unknown) => {
      this.#events.onChange(false, error);
    });
  }

  /**
   * Runs one command within the budget.
   * @throws {CloakroomError} `store-unavailable` when Redis does not answer, or answers that it cannot serve
   */
  run<T>(command: (redis: RedisClient) => Promise<T>): Promise<T> {
    if (!this.#open || this.redis.status !== 'ready' || this.#pending.size >= this.#limits.maxPending)
      return Promise.reject(unavailable());
    return new Promise<T>((resolve, reject) => {
      const pending = { since: performance.now(), refuse: reject };
      this.#pending.add(pending);
      if (this.#single) this.#gather(this.#single);
      command(this.redis).then(
        (reply) => {
          this.#pending.delete(pending);
          this.#lastReply = performance.now();
          resolve(reply);
        },
        (error: unknown) => {
          this.#pending.delete(pending);
          if (isReply(error)) this.#refused(error);
          reject(unavailable(error));
        },
      );
    });
  }

  /** Like `run`, but gives a connection that is being made the time of one command. */
  async runWhenOpen<T>(command: (redis: RedisClient) => Promise<T>): Promise<T> {
    if (!this.#usable()) {
      this.#opening ??= this.#waitForOpen().finally(() => (this.#opening = undefined));
      await this.#opening;
    }
    return this.run(command);
  }

  /** Whether Redis answers. Of a Cluster, any master will do: the sessions of the others can be served. */
  async ping(): Promise<void> {
    await this.run<string>((redis) => {
      if (redis instanceof Redis) return redis.ping();
      const connected = redis.nodes('master').filter(({ status }) => status === 'ready');
      return Promise.any(connected.map((node) => node.ping()));
    });
  }

  async close(): Promise<void> {
    this.#closing = true;
    clearInterval(this.#overdueTimer);
    clearTimeout(this.#watchdog);
    const goodbye = this.redis.status === 'ready' ? this.redis.quit().catch(() => undefined) : undefined;
    // A Redis that stands still must not keep us from leaving.
    await Promise.race([goodbye, sleep(this.#limits.commandTimeout, undefined, { ref: false })]);
    this.redis.disconnect();
  }

  #usable(): boolean {
    return this.#open && this.redis.status === 'ready' && this.#masters?.allConnected !== false;
  }

  async #waitForOpen(): Promise<void> {
    const until = performance.now() + this.#limits.commandTimeout;
    while (!this.#usable() && !this.#closing && performance.now() < until) await sleep(10);
  }

  /**
   * Commands of one turn of the event loop leave in one write. A write of its own for each costs more than all else that a
   * command does here, and Redis a read of its own.
   */
  #gather({ stream }: Redis): void {
    if (stream === this.#gathering) return;
    this.#gathering = stream;
    stream.cork();
    setImmediate(() => {
      this.#gathering = undefined;
      stream.uncork();
    });
  }

  #refused(error: Error): void {
    this.#lastReply = performance.now();
    this.#events.onRefusal(error);
  }

  #hasOverdue(): boolean {
    const [oldest] = this.#pending;
    return oldest !== undefined && performance.now() - oldest.since > this.#limits.commandTimeout;
  }

  /**
   * This process may itself have stood still, with the replies waiting in the socket: timers run before input is read.
   * What is overdue counts only after one more round of input.
   */
  #lookAgain(): void {
    setImmediate(() => {
      setImmediate(() => {
        if (this.#hasOverdue()) this.#giveUpOverdue();
      });
    });
  }

  #giveUpOverdue(): void {
    const now = performance.now();
    for (const pending of this.#pending) {
      if (now - pending.since <= this.#limits.commandTimeout) break;
      this.#pending.delete(pending);
      pending.refuse(unavailable());
    }
    // One slow command is no verdict; a connection on which nothing came back for a whole budget is. In a Cluster the
    // client library watches the connection to each node.
    const silent = now - this.#lastReply > this.#limits.commandTimeout;
    if (silent && this.#single?.status === 'ready') this.#cut(this.#single);
  }

  #cut(single: Redis): void {
    this.#cutting = true;
    this.#open = false;
    this.#events.onChange(false);
    single.disconnect(true);
  }

  /** A peer may accept and then never answer the handshake; the client library would wait for it for ever. */
  #watchReadiness(single: Redis): void {
    clearTimeout(this.#watchdog);
    const patience = this.#limits.connectTimeout + this.#limits.commandTimeout;
    this.#watchdog = setTimeout(() => {
      if (!this.#closing && single.status !== 'ready') this.#cut(single);
    }, patience);
    this.#watchdog.unref();
  }
}

function isReply(error: unknown): error is Error {
  return error instanceof Error && error.name === 'ReplyError';
}

function unavailable(cause?: unknown): CloakroomError {
  return new CloakroomError('store-unavailable', { retryAfter: 1, cause });
}
