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

/**
 * One connection to Redis that fails fast and comes back by itself. No offline queue, no silent resend (a command whose
 * reply was lost may have run), and a peer that accepts but never answers is cut rather than waited for.
 */
export class RedisLink {
  readonly redis: Redis;
  readonly #settings: RedisSettings;
  readonly #logger: Logger;
  readonly #refusals = new Recent<true>(10_000, 100);
  #pending = 0;
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
      commandTimeout: settings.commandTimeout,
      keepAlive: 10_000,
      noDelay: true,
      retryStrategy: (times) => Math.min(50 * times, MAX_RECONNECT_DELAY),
      // A demoted master keeps the connection and answers READONLY: only a new connection finds the new master.
      reconnectOnError: (error) => /^(READONLY|MASTERDOWN)/.test(error.message),
    });
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
  async run<T>(command: (redis: Redis) => Promise<T>): Promise<T> {
    if (this.redis.status !== 'ready' || this.#pending >= MAX_PENDING) throw unavailable();
    this.#pending += 1;
    try {
      const reply = await command(this.redis);
      this.#lastReply = performance.now();
      return reply;
    } catch (error) {
      if (isReply(error)) this.#refused(error);
      else this.#suspect();
      throw unavailable(error);
    } finally {
      this.#pending -= 1;
    }
  }

  async close(): Promise<void> {
    this.#closing = true;
    clearTimeout(this.#watchdog);
    if (this.redis.status === 'ready') await this.redis.quit().catch(() => undefined);
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

  /** A single slow command is no verdict; a connection on which nothing at all came back for a whole budget is. */
  #suspect(): void {
    if (performance.now() - this.#lastReply < this.#settings.commandTimeout) return;
    if (this.redis.status === 'ready') this.redis.disconnect(true);
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
