import type { RecordKind, SetName } from './store.js';

/**
 * The only place that spells a key. Braces make what is in them a hash tag, so that everything of one session shares a slot
 * in Redis Cluster.
 */
export const keys = {
  session: (prefix: string, handle: string): string => `${prefix}:{${handle}}:session`,
  record: (prefix: string, kind: RecordKind, id: string): string => `${prefix}:{${id}}:${kind}`,
  set: (prefix: string, { kind, id }: SetName): string => `${prefix}:{${id}}:${kind}`,
  /** How much of a rate limit one caller has used up. */
  rate: (prefix: string, limit: string, caller: string): string => `${prefix}:{${limit} ${caller}}:rate`,
  /** Where endings and changes of policy are announced. */
  channel: (prefix: string): string => `${prefix}:announcements`,
};
