import type { Redis } from 'ioredis';
import { reconnectDelay } from './redis-clients.js';

interface Listener {
  readonly onMessage: (message: string) => void;
  readonly onGap: () => void;
}

/** Milliseconds within which a connection must be made, and between two signs of life on it. */
const HEARTBEAT = 1_000;

/** A connection of its own that listens, made anew whenever it is lost. It fails nobody: who listens is told of gaps. */
export class RedisSubscriber {
  readonly #open: () => Redis;
  readonly #onError: (error: unknown) => void;
  readonly #listeners = new Map<string, Listener[]>();
  #redis: Redis | undefined;
  #listening = false;
  #alive = false;
  #attempts = 0;
  #heartbeat: NodeJS.Timeout | undefined;
  #reconnect: NodeJS.Timeout | undefined;
  #closed = false;

  constructor(open: () => Redis, onError: (error: unknown) => void) {
    this.#open = open;
    this.#onError = onError;
  }

  subscribe(channel: string, listener: Listener): void {
    if (this.#closed) return;
    const known = this.#listeners.get(channel);
    this.#listeners.set(channel, [...(known ?? []), listener]);
    if (this.#redis === undefined) this.#connect();
    else if (this.#listening) this.#listen(this.#redis, [channel], [listener]);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#reconnect);
    clearInterval(this.#heartbeat);
    this.#redis?.disconnect();
  }

  #connect(): void {
    const redis = this.#open();
    this.#redis = redis;
    this.#alive = true;
    redis.on('error', () => undefined);
    redis.on('message', (channel: string, message: string) => {
      this.#tell(this.#listeners.get(channel) ?? [], ({ onMessage }) => {
        onMessage(message);
      });
    });
    redis.once('ready', () => {
      this.#listening = true;
      this.#listen(redis, [...this.#listeners.keys()], [...this.#listeners.values()].flat());
    });
    redis.once('end', () => {
      this.#lost();
    });
    this.#heartbeat = setInterval(() => {
      this.#check(redis);
    }, HEARTBEAT).unref();
    // Why it failed is told by 'error'; what to do then, by 'end'.
    redis.connect().catch(() => undefined);
  }

  /** What was published before the subscription stood is lost, at the first one too. */
  #listen(redis: Redis, channels: string[], listeners: Listener[]): void {
    redis.subscribe(...channels).then(
      () => {
        this.#attempts = 0;
        this.#tell(listeners, ({ onGap }) => {
          onGap();
        });
      },
      (error: unknown) => {
        if (this.#closed) return;
        this.#onError(error);
        redis.disconnect();
      },
    );
  }

  /** Who only listens never learns that the other side is gone, unless it asks. */
  #check(redis: Redis): void {
    if (!this.#alive || redis.status !== 'ready') {
      redis.disconnect();
      return;
    }
    this.#alive = false;
    redis.ping().then(
      () => (this.#alive = true),
      () => undefined,
    );
  }

  #lost(): void {
    clearInterval(this.#heartbeat);
    this.#listening = false;
    if (this.#closed) return;
    this.#attempts += 1;
    this.#reconnect = setTimeout(() => {
      this.#connect();
    }, reconnectDelay(this.#attempts)).unref();
  }

  #tell(listeners: readonly Listener[], tell: (listener: Listener) => void): void {
    for (const listener of listeners) {
      try {
        tell(listener);
      } catch (error) {
        this.#onError(error);
      }
    }
  }
}
