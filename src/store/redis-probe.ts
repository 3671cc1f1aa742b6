import { Redis } from 'ioredis';
import type { RedisSettings } from './redis-clients.js';

/** What a Redis says about itself, as far as this user may ask. */
export interface RedisReport {
  version: string | undefined;
  role: string | undefined;
  /** `maxmemory_policy` and `maxmemory`. */
  eviction: string | undefined;
  limit: string | undefined;
}

/**
 * Asks a Redis once, within its time limits.
 * @throws the reason why it cannot be used
 */
export async function probeRedis(settings: RedisSettings): Promise<RedisReport> {
  const redis = new Redis(settings.url, {
    lazyConnect: true,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    retryStrategy: () => null,
    disconnectTimeout: 50,
    connectTimeout: settings.connectTimeout,
    commandTimeout: settings.commandTimeout,
  });
  let failure: Error | undefined;
  redis.on('error', (error: Error) => {
    failure ??= error;
  });
  // A peer may accept and then stay silent, for which the client has no limit of its own.
  const timer = setTimeout(() => {
    failure ??= new Error('Command timed out');
    redis.disconnect();
  }, settings.connectTimeout + settings.commandTimeout);
  try {
    await redis.connect();
    await redis.ping();
    const info = await redis.info().catch(() => '');
    const field = (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1];
    return {
      version: field('redis_version'),
      role: field('role'),
      eviction: field('maxmemory_policy'),
      limit: field('maxmemory'),
    };
  } catch (error) {
    // The first error tells the cause; what the call itself failed with is often only that the connection is closed.
    throw failure ?? error;
  } finally {
    clearTimeout(timer);
    redis.disconnect();
  }
}
