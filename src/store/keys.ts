import type { OnceKind } from './store.js';

/**
 * The only place that spells a key. Braces make the handle a hash tag, so that everything of one session shares a slot in
 * Redis Cluster.
 */
export const keys = {
  session: (prefix: string, handle: string): string => `${prefix}:{${handle}}:session`,
  once: (prefix: string, kind: OnceKind, id: string): string => `${prefix}:{${id}}:${kind}`,
};
