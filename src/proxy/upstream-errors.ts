import { CloakroomError } from '../errors.js';

const TIMEOUTS = new Set(['UND_ERR_HEADERS_TIMEOUT', 'UND_ERR_BODY_TIMEOUT']);
const INVALID = new Set([
  'UND_ERR_HEADERS_OVERFLOW',
  'UND_ERR_RES_CONTENT_LENGTH_MISMATCH',
  'UND_ERR_RES_EXCEEDED_MAX_SIZE',
  'ERR_INVALID_CHAR',
  'ERR_HTTP_INVALID_HEADER_VALUE',
]);

/** Our own: the browser stopped sending in the middle of a body. */
export const UPLOAD_STALLED = 'CLOAKROOM_UPLOAD_STALLED';

/** The parser's errors come without a code. */
const PARSER_ERROR = 'HTTPParserError';

/** What a failure between us and an upstream is called towards the browser. Decided by code or kind, never by message. */
export function upstreamError(error: unknown): CloakroomError {
  const code = String((error as { code?: unknown } | undefined)?.code);
  if (code === UPLOAD_STALLED) return new CloakroomError('request-timeout', { cause: error });
  if (TIMEOUTS.has(code)) return new CloakroomError('upstream-timeout', { cause: error });
  if (INVALID.has(code) || (error as { name?: unknown } | undefined)?.name === PARSER_ERROR)
    return new CloakroomError('upstream-invalid', { cause: error });
  return new CloakroomError('upstream-unreachable', { cause: error });
}

/** The upstream closed an idle connection just as a request was put on it, so it cannot have read it. */
export function closedBeforeAnswer(error: unknown): boolean {
  const code = (error as { code?: unknown } | undefined)?.code;
  return code === 'UND_ERR_SOCKET' || code === 'ECONNRESET' || code === 'EPIPE';
}
