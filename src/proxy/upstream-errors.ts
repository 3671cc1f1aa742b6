import { CloakroomError } from '../errors.js';

const TIMEOUTS = new Set(['UND_ERR_HEADERS_TIMEOUT', 'UND_ERR_BODY_TIMEOUT']);
/** Our own: an answer that cannot be one, such as another protocol that nobody asked for. */
const ANSWER_INVALID = 'CLOAKROOM_ANSWER_INVALID';
const INVALID = new Set([
  ANSWER_INVALID,
  'UND_ERR_HEADERS_OVERFLOW',
  'UND_ERR_RES_CONTENT_LENGTH_MISMATCH',
  'UND_ERR_RES_EXCEEDED_MAX_SIZE',
  'ERR_INVALID_CHAR',
  'ERR_HTTP_INVALID_HEADER_VALUE',
]);

/** Our own: the browser stopped sending in the middle of a body. */
export const UPLOAD_STALLED = 'CLOAKROOM_UPLOAD_STALLED';
/** Our own: more came than the route takes. */
export const UPLOAD_TOO_LARGE = 'CLOAKROOM_UPLOAD_TOO_LARGE';
/** Our own: the session has as many event streams open as it may. */
export const STREAMS_TOO_MANY = 'CLOAKROOM_STREAMS_TOO_MANY';

/** Errors of undici's parser come without a code, those of Node's with one that begins like this. */
const PARSER_ERROR = 'HTTPParserError';
const PARSER_CODES = 'HPE_';

/** What a failure between us and an upstream is called towards the browser. Decided by code or kind, never by message. */
export function upstreamError(error: unknown): CloakroomError {
  if (error instanceof CloakroomError) return error;
  const code = String((error as { code?: unknown } | undefined)?.code);
  if (code === UPLOAD_STALLED) return new CloakroomError('request-timeout', { cause: error });
  if (code === UPLOAD_TOO_LARGE) return new CloakroomError('payload-too-large', { cause: error });
  if (code === STREAMS_TOO_MANY) return new CloakroomError('too-many-requests', { retryAfter: 1 });
  if (TIMEOUTS.has(code)) return new CloakroomError('upstream-timeout', { cause: error });
  const isUnparsable =
    code.startsWith(PARSER_CODES) || (error as { name?: unknown } | undefined)?.name === PARSER_ERROR;
  if (INVALID.has(code) || isUnparsable) return new CloakroomError('upstream-invalid', { cause: error });
  return new CloakroomError('upstream-unreachable', { cause: error });
}

/**
 * The connection went away before an answer, most often an idle one that the upstream closed just as a request was put on
 * it. Whether it was read is unknown, so only methods that are safe to repeat may be (RFC 9110 section 9.2.2).
 */
export function closedBeforeAnswer(error: unknown): boolean {
  const code = (error as { code?: unknown } | undefined)?.code;
  return code === 'UND_ERR_SOCKET' || code === 'ECONNRESET' || code === 'EPIPE';
}

export function invalidAnswer(message: string, cause?: Error): Error {
  return Object.assign(new Error(message, { cause }), { code: ANSWER_INVALID });
}
