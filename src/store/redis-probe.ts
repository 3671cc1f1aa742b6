import { RedisClients, type Address, type RedisSettings } from './redis-clients.js';
import { replicaCount } from './replication.js';

/** What a Redis says about itself, as far as this user may ask. */
export interface RedisReport {
  version: string | undefined;
  role: string | undefined;
  /** `maxmemory_policy` and `maxmemory`. */
  eviction: string | undefined;
  limit: string | undefined;
  replicas: number | undefined;
  /** Whether it is a node of a Redis Cluster. */
  clustered: boolean | undefined;
  /** Only where a Cluster is configured and this is a node of one. */
  shards: ClusterShards | undefined;
}

export interface ClusterShards {
  masters: Address[];
  /** Slots that have a master, of 16384. */
  slots: number;
}

type Slots = readonly [first: number, last: number, ...nodes: [host: string, port: number, ...unknown[]][]][];

/**
 * Asks a Redis once, within its time limits.
 * @param at another node than the configured one, of its Cluster
 * @throws the reason why it cannot be used
 */
export async function probeRedis(settings: RedisSettings, at?: Address): Promise<RedisReport> {
  const { connectTimeout, commandTimeout } = settings;
  const redis = new RedisClients(settings).openOnce(at, { commandTimeout });
  let failure: Error | undefined;
  redis.on('error', (error: Error) => {
    failure ??= error;
  });
  // A peer may accept and then stay silent, for which the client has no limit of its own.
  const timer = setTimeout(() => {
    failure ??= new Error('Command timed out');
    redis.disconnect();
  }, connectTimeout + commandTimeout);
  try {
    await redis.connect();
    await redis.ping();
    const info = await redis.info().catch(() => '');
    const field = (name: string) => new RegExp(`^${name}:(.*?)\\r?$`, 'm').exec(info)?.[1];
    const clustered = field('cluster_enabled');
    const asked = settings.cluster && at === undefined && clustered !== '0';
    return {
      version: field('redis_version'),
      role: field('role'),
      eviction: field('maxmemory_policy'),
      limit: field('maxmemory'),
      replicas: replicaCount(info),
      clustered: clustered === undefined ? undefined : clustered === '1',
      shards: asked ? shardsOf(await redis.cluster('SLOTS')) : undefined,
    };
  } catch (error) {
    // The first error tells the cause; what the call itself failed with is often only that the connection is closed.
    throw failure ?? error;
  } finally {
    clearTimeout(timer);
    redis.disconnect();
  }
}

function shardsOf(ranges: Slots): ClusterShards {
  const masters = new Map<string, Address>();
  let slots = 0;
  for (const [first, last, master] of ranges) {
    if (master === undefined) continue;
    const [host, port] = master;
    slots += last - first + 1;
    masters.set(`${host}:${String(port)}`, { host, port });
  }
  return { masters: [...masters.values()], slots };
}
