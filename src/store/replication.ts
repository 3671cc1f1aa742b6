import { Redis } from 'ioredis';
import type { RedisClient } from './redis-clients.js';

export type Replication = 'replicated' | 'unreplicated' | 'unconfirmed';

/** Milliseconds a replica has to say that it has what was written. */
const PATIENCE = 100;

/** Milliseconds for which the number of a master's replicas is remembered. */
const REMEMBERED = 5_000;

const known = new WeakMap<Redis, { replicas: number | undefined; until: number }>();

/** Asks each master on which this client has an open connection whether a replica has what was written on it. */
export async function replicated(client: RedisClient): Promise<Replication> {
  const masters =
    client instanceof Redis ? [client] : client.nodes('master').filter(({ status }) => status === 'ready');
  const answers = new Set(await Promise.all(masters.map(confirmed)));
  if (answers.has('unconfirmed') || masters.length === 0) return 'unconfirmed';
  return answers.has('unreplicated') ? 'unreplicated' : 'replicated';
}

async function confirmed(master: Redis): Promise<Replication> {
  if ((await replicasOf(master)) === 0) return 'unreplicated';
  return (await master.wait(1, PATIENCE)) > 0 ? 'replicated' : 'unconfirmed';
}

/** Undefined where this user may not ask: then waiting tells, though not that there is nothing to wait for. */
async function replicasOf(master: Redis): Promise<number | undefined> {
  const now = performance.now();
  const remembered = known.get(master);
  if (remembered && remembered.until > now) return remembered.replicas;
  const info = await master.info('replication').catch(() => '');
  const replicas = replicaCount(info);
  known.set(master, { replicas, until: now + REMEMBERED });
  return replicas;
}

/** @param info what `INFO` says, as far as this user may ask */
export function replicaCount(info: string): number | undefined {
  const counted = /^connected_slaves:(\d+)/m.exec(info)?.[1];
  return counted === undefined ? undefined : Number(counted);
}
