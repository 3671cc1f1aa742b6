import type { Request } from 'express';

/** The query as it stands in the request line. Express would parse nesting into it; nothing of ours has any. */
export function rawQuery(request: Request): URLSearchParams {
  const mark = request.url.indexOf('?');
  return new URLSearchParams(mark === -1 ? '' : request.url.slice(mark + 1));
}
