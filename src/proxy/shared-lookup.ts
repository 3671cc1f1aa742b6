import { lookup } from 'node:dns';
import type { LookupFunction } from 'node:net';

type Callback = Parameters<LookupFunction>[2];

const underWay = new Map<string, Callback[]>();

/**
 * Looks a host name up for a new connection. Nothing is kept: only who asks while the same name is being looked up shares the
 * answer. The system is asked in four threads that serve the whole process; a name server that does not answer would
 * otherwise take all of them, and with them the connections to everything else.
 */
export const sharedLookup: LookupFunction = (hostname, options, callback) => {
  const key = JSON.stringify([hostname, options]);
  const others = underWay.get(key);
  if (others !== undefined) {
    others.push(callback);
    return;
  }
  const waiting = [callback];
  underWay.set(key, waiting);
  lookup(hostname, options, (...answer) => {
    underWay.delete(key);
    for (const each of waiting) each(...answer);
  });
};
