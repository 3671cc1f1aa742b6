import type { IncomingMessage } from 'node:http';
import type { CloakroomError } from '../errors.js';
import type { Logger } from '../observability/logger.js';
import { requestId } from '../observability/request-id.js';

/**
 * The log line of a request that was not served.
 *
 * @param shown the person sees the reference, and somebody will ask what it stands for
 */
export function logRefusal(
  logger: Logger,
  request: IncomingMessage,
  error: CloakroomError,
  shown: boolean,
): void {
  const { code, status, cause } = error;
  const fields = { problem: code, request: requestId(request), reason: error.public.reason, error: cause };
  if (code === 'internal') logger.error('request_failed', fields);
  else if (code === 'csrf') logger.info('csrf_rejected', fields);
  else if (status >= 500) logger.warn('request_failed', fields);
  // Whoever sends too many must not fill the log: each limit has one line now and then.
  else if (shown && code !== 'too-many-requests') logger.info('request_refused', fields);
}
