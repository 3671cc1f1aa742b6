import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { CloakroomError } from '../errors.js';
import type { Logger } from '../observability/logger.js';
import { Recent } from './recent.js';

export interface RedisSettings {
  url: string;
  /** Milliseconds. */
  connectTimeout: number;
  /** Milliseconds a command may take before its caller is told `store-unavailable`. */
  commandTimeout: number;
}

/** Commands that may be under way at once; past it callers are refused at once instead of queueing. */
const MAX_PENDING = 1000;
const MAX_RECONNECT_DELAY = 500;
/** Milliseconds between two looks at what is overdue. */
const LOOK_EVERY = 50;

interface Pending {
  since: number;
  refuse: (error: CloakroomError) => void;
}

/**
 * One connection to Redis that fails fast and comes back by itself. No offline queue, no silent resend (a command whose
 * reply was lost may have run), and a peer that accepts but never answers is cut rather than waited for.
 */
export class RedisLink {
  readonly redis: Redis;
  readonly #settings: RedisSettings;
  readonly #logger: Logger;
  readonly #refusals = new Recent<true>(10_000, 100);
  /** In the order of sending, which is the order of replies: the first is always the oldest. */
  readonly #pending = new Set<Pending>();
  readonly #overdueTimer: NodeJS.Timeout;
  #gathering: Redis['stream'] | undefined;
  #lastReply = 0;
  #available: boolean | undefined;
  #closing = false;
  #watchdog: NodeJS.Timeout | undefined;

  constructor(settings: RedisSettings, logger: Logger) {
    this.#settings = settings;
    this.#logger = logger;
    this.redis = new Redis(settings.url, {
      lazyConnect: true,
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 0,
      connectTimeout: settings.connectTimeout,
      keepAlive: 10_000,
      noDelay: true,
      retryStrategy: (times) => Math.min(50 * times, MAX_RECONNECT_DELAY),
      // A demoted master keeps the connection and answers READONLY: only a new connection finds the new master.
      // Before Redis 7 a script's refusal has the code inside its message.
      reconnectOnError: (error) => /\b(?:READONLY|MASTERDOWN)\b/.test(error.message),
    });
    this.#overdueTimer = setInterval(() => {
      if (this.#hasOverdue()) this.#lookAgain();
    }, LOOK_EVERY).unref();
    this.redis.on('connect', () => {
      this.#watchReadiness();
    });
    this.redis.on('ready', () => {
      clearTimeout(this.#watchdog);
      this.#lastReply = performance.now();
      this.#report(true);
    });
    this.redis.on('error', (error: Error) => {
      this.#report(false, error);
    });
    this.redis.on('close', () => {
      clearTimeout(this.#watchdog);
      this.#report(false);
    });
  }

  /** Begins to connect; never fails, since starting does not need Redis to be up. */
  connect(): void {
    this.redis.connect().catch((error: unknown) => {
      this.#report(false, error);
    });
  }

  /**
   * Runs one command within the budget.
   * @throws {CloakroomError} `store-unavailable` when Redis does not answer, or answers that it cannot serve
   */
  run<T>(command: (redis: Redis) => Promise<T>): Promise<T> {
    if (this.redis.status !== 'ready' || this.#pending.size >= MAX_PENDING)
      return Promise.reject(unavailable());
    return new Promise<T>((resolve, reject) => {
      const pending = { since: performance.now(), refuse: reject };
      this.#pending.add(pending);
      this.#gather();
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

  /**
   * Commands of one turn of the event loop leave in one write. A write of its own for each costs more than all else that a
   * command does here, and Redis a read of its own.
   */
  #gather(): void {
    const { stream } = this.redis;
    if (stream === this.#gathering) return;
    this.#gathering = stream;
    stream.cork();
    setImmediate(() => {
      this.#gathering = undefined;
      stream.uncork();
    });
  }

  async close(): Promise<void> {
    this.#closing = true;
    clearInterval(this.#overdueTimer);
    clearTimeout(this.#watchdog);
    const goodbye = this.redis.status === 'ready' ? this.redis.quit().catch(() => undefined) : undefined;
    // A Redis that stands still must not keep us from leaving.
    await Promise.race([goodbye, sleep(this.#settings.commandTimeout)]);
    this.redis.disconnect();
  }

  /** Redis answers, but does not do as asked: out of memory, demoted, rights withdrawn. Each kind is told now and then. */
  #refused(error: Error): void {
    this.#lastReply = performance.now();
    const [kind = ''] = error.message.split(' ', 1);
    if (kind === 'WRONGTYPE' || this.#refusals.get(kind) !== undefined) return;
    this.#refusals.set(kind, true);
    this.#logger.error('store_refused', { reason: kind, error });
  }

  #hasOverdue(): boolean {
    const [oldest] = this.#pending;
    return oldest !== undefined && performance.now() - oldest.since > this.#settings.commandTimeout;
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
      if (now - pending.since <= this.#settings.commandTimeout) break;
      this.#pending.delete(pending);
      pending.refuse(unavailable());
    }
    // One slow command is no verdict; a connection on which nothing came back for a whole budget is.
    const silent = now - this.#lastReply > this.#settings.commandTimeout;
    if (silent && this.redis.status === 'ready') this.redis.disconnect(true);
  }

  /** A peer may accept and then never answer the handshake; the client library would wait for it for ever. */
  #watchReadiness(): void {
    clearTimeout(this.#watchdog);
    const patience = this.#settings.connectTimeout + this.#settings.commandTimeout;
    this.#watchdog = setTimeout(() => {
      if (!this.#closing && this.redis.status !== 'ready') this.redis.disconnect(true);
    }, patience);
    this.#watchdog.unref();
  }

  #report(available: boolean, error?: unknown): void {
    if (this.#closing || available === this.#available) return;
    this.#available = available;
    if (available) this.#logger.info('store_available');
    else this.#logger.error('store_unavailable', { error });
  }
}

function isReply(error: unknown): error is Error {
  return error instanceof Error && error.name === 'ReplyError';
}

function unavailable(cause?: unknown): CloakroomError {
  return new CloakroomError('store-unavailable', { retryAfter: 1, cause });
}
