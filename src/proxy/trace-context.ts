import { randomFillSync } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';

/** Version, trace-id, parent-id and flags, neither id all zeros; version 255 is none. */
const FIELDS = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?$/;
const LENGTH = 55;

const TRACE_ID = 16;
const PARENT_ID = 8;

// Fresh randomness for each request would cost more than all the rest of its headers.
const randomness = Buffer.alloc((TRACE_ID + PARENT_ID) * 256);
let used = randomness.length;

/**
 * The trace a request belongs to: the one its sender names, or one that begins here. `tracestate` has a meaning only beside
 * the `traceparent` it came with. Node joins repeated lines, so that of two parents neither is taken.
 *
 * @param isDropped whether the sender meant a header for this hop only
 * @returns header lines, as name and value in turns
 * @see https://www.w3.org/TR/trace-context/#traceparent-header
 */
export function traceContext(
  { traceparent, tracestate }: IncomingHttpHeaders,
  isDropped: (name: string) => boolean,
): string[] {
  if (typeof traceparent !== 'string' || !isTraceparent(traceparent) || isDropped('traceparent')) {
    return ['traceparent', beginTrace()];
  }
  return typeof tracestate !== 'string' || tracestate === '' || isDropped('tracestate')
    ? ['traceparent', traceparent]
    : ['traceparent', traceparent, 'tracestate', tracestate];
}

/** Only a later version may say more behind the fields of the first. */
function isTraceparent(value: string): boolean {
  return FIELDS.test(value) && (value.length === LENGTH || !value.startsWith('00'));
}

/** Marked as sampled: unmarked, an upstream that follows its caller would record nothing at all. */
function beginTrace(): string {
  if (used === randomness.length) {
    randomFillSync(randomness);
    used = 0;
  }
  const traceId = randomness.toString('hex', used, used + TRACE_ID);
  const parentId = randomness.toString('hex', used + TRACE_ID, used + TRACE_ID + PARENT_ID);
  used += TRACE_ID + PARENT_ID;
  return `00-${traceId}-${parentId}-01`;
}
