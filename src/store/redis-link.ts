import type { Logger } from '../observability/logger.js';
import { Recent } from './recent.js';
import { RedisClients, type RedisClient, type RedisSettings } from './redis-clients.js';
import { RedisConnection, type ConnectionEvents, type ConnectionLimits } from './redis-connection.js';
import { RedisSubscriber } from './redis-subscriber.js';
import { replicated, type Replication } from './replication.js';

export interface ScriptDefinition {
  readonly lua: string;
  readonly numberOfKeys: number;
}

const MAX_PENDING = 1000;

/** Work nobody's request waits for, many commands at a time. */
const ASIDE = { commandTimeout: 2_000, maxPending: 10_000 };

/** How far back a lost connection leaves it open whether what was written sideways is covered by `confirm`. */
const LOOK_BACK = 10_000;

/** All that this process has to do with Redis: one connection for requests, and others that are made when first needed. */
export class RedisLink {
  readonly redis: RedisClient;
  readonly #settings: RedisSettings;
  readonly #logger: Logger;
  readonly #clients: RedisClients;
  readonly #main: RedisConnection;
  readonly #scripts = new Map<string, ScriptDefinition>();
  readonly #refusals = new Recent<true>(10_000, 100);
  #aside: RedisConnection | undefined;
  #subscriber: RedisSubscriber | undefined;
  #available: boolean | undefined;
  #closing = false;

  constructor(settings: RedisSettings, logger: Logger) {
    this.#settings = settings;
    this.#logger = logger;
    this.#clients = new RedisClients(settings);
    this.#main = this.#connection(
      { ...settings, maxPending: MAX_PENDING },
      {
        onChange: (available, error) => {
          this.#report(available, error);
        },
        onMaster: (node, available, error) => {
          this.#reportMaster(node, available, error);
        },
      },
    );
    this.redis = this.#main.redis;
  }

  /** Begins to connect; never fails, since starting does not need Redis to be up. */
  connect(): void {
    this.#main.connect();
  }

  /** Makes a script a command of every connection that runs commands. */
  defineCommand(name: string, definition: ScriptDefinition): void {
    this.#scripts.set(name, definition);
    this.redis.defineCommand(name, definition);
    this.#aside?.redis.defineCommand(name, definition);
  }

  /**
   * Runs one command within the budget.
   * @throws {CloakroomError} `store-unavailable` when Redis does not answer, or answers that it cannot serve
   */
  run<T>(command: (redis: RedisClient) => Promise<T>): Promise<T> {
    return this.#main.run(command);
  }

  /**
   * Whether anybody can be served.
   * @throws {CloakroomError} `store-unavailable`
   */
  ping(): Promise<void> {
    return this.#main.ping();
  }

  /**
   * Runs one command beside what requests wait for, within 2 s (and up to 2 s more while the connection is being made).
   * @throws {CloakroomError} `store-unavailable`, as `run` does
   */
  sideways<T>(command: (redis: RedisClient) => Promise<T>): Promise<T> {
    return this.#sideConnection().runWhenOpen(command);
  }

  /**
   * Whether what was written by `sideways` in the last seconds has reached a replica: every master has one that has it
   * (`replicated`), or some have no replica (`unreplicated`), or it is not known (`unconfirmed`).
   */
  async confirm(): Promise<Replication> {
    const aside = this.#sideConnection();
    const since = performance.now() - LOOK_BACK;
    try {
      const result = await aside.runWhenOpen(replicated);
      // WAIT speaks of its own connection only: what went out on one that is lost is not in the answer.
      return aside.lostAt > since ? 'unconfirmed' : result;
    } catch {
      return 'unconfirmed';
    }
  }

  /**
   * Listens to a channel, from now on and through every reconnection.
   * @param onGap messages may have been missed: called whenever the subscription has begun, the first time included
   */
  subscribe(channel: string, onMessage: (message: string) => void, onGap: () => void): void {
    if (this.#closing) return;
    this.#subscriber ??= new RedisSubscriber(
      () => this.#clients.openForMessages(),
      (error) => {
        this.#refused(error);
      },
    );
    this.#subscriber.subscribe(channel, { onMessage, onGap });
  }

  async close(): Promise<void> {
    this.#closing = true;
    this.#subscriber?.close();
    await Promise.all([this.#main.close(), this.#aside?.close()]);
  }

  #sideConnection(): RedisConnection {
    if (this.#aside) return this.#aside;
    const { connectTimeout, commandTimeout } = this.#settings;
    const limits = {
      connectTimeout,
      commandTimeout: Math.max(commandTimeout, ASIDE.commandTimeout),
      maxPending: ASIDE.maxPending,
    };
    this.#aside = this.#connection(limits, { onChange: () => undefined, onMaster: () => undefined });
    for (const [name, definition] of this.#scripts) this.#aside.redis.defineCommand(name, definition);
    if (!this.#closing) this.#aside.connect();
    return this.#aside;
  }

  #connection(limits: ConnectionLimits, events: Omit<ConnectionEvents, 'onRefusal'>): RedisConnection {
    // Longer than one command may take, or one slow command would cost the others their connection.
    const client = this.#clients.open(2 * limits.commandTimeout);
    return new RedisConnection(client, limits, {
      ...events,
      onRefusal: (error) => {
        this.#refused(error);
      },
    });
  }

  /** Out of memory, demoted, rights withdrawn. Each kind is told now and then. */
  #refused(error: unknown): void {
    const [kind = ''] = (error instanceof Error ? error.message : String(error)).split(' ', 1);
    if (this.#closing || kind === 'WRONGTYPE' || this.#refusals.get(kind) !== undefined) return;
    this.#refusals.set(kind, true);
    this.#logger.error('store_refused', { reason: kind, error });
  }

  #report(available: boolean, error?: unknown): void {
    if (this.#closing || available === this.#available) return;
    this.#available = available;
    if (available) this.#logger.info('store_available');
    else this.#logger.error('store_unavailable', { error });
  }

  #reportMaster(node: string, available: boolean, error?: Error): void {
    if (this.#closing) return;
    if (available) this.#logger.info('store_node_available', { node });
    else this.#logger.error('store_node_unavailable', { node, error });
  }
}
