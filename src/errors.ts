/** What happens to a request that cannot be served: one row a code. `docs/errors.md` explains each to its reader. */
export const ERRORS = {
  'bad-request': { status: 400, title: 'The request is malformed.' },
  'callback-refused': { status: 400, title: 'This sign-in could not be completed.' },
  'login-parameter-invalid': { status: 400, title: 'A parameter of the sign-in request is not allowed.' },
  'session-required': { status: 401, title: 'Sign in to continue.' },
  'session-ended': { status: 401, title: 'Your session has ended. Sign in again.' },
  unauthorized: { status: 401, title: 'Show who you are: a token or a certificate that is known here.' },
  csrf: { status: 403, title: 'The request did not prove that it comes from the application.' },
  forbidden: { status: 403, title: 'This is not allowed for you, or not in this way.' },
  'insufficient-claims': { status: 403, title: 'What is known about you does not allow this.' },
  'insufficient-scope': { status: 403, title: 'Your sign-in was not granted what this needs.' },
  'login-refused': { status: 403, title: 'Signing in must be started by a top-level navigation.' },
  'step-up': { status: 403, title: 'This needs a further sign-in.' },
  'not-found': { status: 404, title: 'There is nothing at this address.' },
  'method-not-allowed': { status: 405, title: 'This method is not supported here.' },
  'request-timeout': { status: 408, title: 'The request took too long to arrive.' },
  'payload-too-large': { status: 413, title: 'The request body is too large.' },
  'uri-too-long': { status: 414, title: 'The address is too long.' },
  'expectation-failed': { status: 417, title: 'The expectation of the request cannot be met.' },
  'insecure-transport': { status: 421, title: 'This address must be used over https.' },
  'too-many-requests': { status: 429, title: 'Too many requests. Wait a moment.' },
  'headers-too-large': { status: 431, title: 'The request headers are too large.' },
  internal: { status: 500, title: 'Something went wrong on our side.' },
  'upstream-unreachable': { status: 502, title: 'The service behind this address cannot be reached.' },
  'upstream-invalid': { status: 502, title: 'The service behind this address gave an invalid answer.' },
  'idp-invalid': { status: 502, title: 'The identity provider gave an invalid answer.' },
  'token-refused': {
    status: 502,
    title: 'The identity provider does not give the token that this address needs.',
  },
  'store-unavailable': {
    status: 503,
    title: 'Sessions are temporarily unavailable. You are still signed in.',
  },
  'idp-unavailable': { status: 503, title: 'The identity provider is temporarily unavailable.' },
  'upstream-timeout': { status: 504, title: 'The service behind this address took too long to answer.' },
} as const satisfies Record<string, { status: number; title: string }>;

export type ErrorCode = keyof typeof ERRORS;

/** Members of a problem document beyond the fixed ones. Everything here is public. */
export interface PublicDetails {
  /** Why, as a stable word. */
  reason?: string;
  /** Where a navigation starts a new login. */
  loginUrl?: string;
  /** A silent login (`prompt=none`) has a fair chance to succeed. */
  silent?: boolean;
  /** Names of what the session lacks. */
  missing?: readonly string[];
  /** What a caller should change. */
  detail?: string;
}

export interface CloakroomErrorOptions {
  public?: PublicDetails;
  /** Seconds after which a retry makes sense; becomes `Retry-After`. */
  retryAfter?: number;
  /** Methods that would have been served; becomes `Allow`. */
  allow?: readonly string[];
  /** Take the browser's dead session cookie away. */
  clearSession?: boolean;
  /** For our logs, never for the answer. */
  cause?: unknown;
}

/**
 * The one error type that decides an answer. Anything else that is thrown becomes `internal`.
 *
 * @see RFC 9457 for the document a browser receives
 */
export class CloakroomError extends Error {
  readonly code: ErrorCode;
  readonly public: PublicDetails;
  readonly retryAfter: number | undefined;
  readonly allow: readonly string[] | undefined;
  readonly clearSession: boolean;

  constructor(code: ErrorCode, options: CloakroomErrorOptions = {}) {
    super(ERRORS[code].title, { cause: options.cause });
    this.name = 'CloakroomError';
    this.code = code;
    this.public = options.public ?? {};
    this.retryAfter = options.retryAfter;
    this.allow = options.allow;
    this.clearSession = options.clearSession ?? false;
  }

  get status(): number {
    return ERRORS[this.code].status;
  }

  static from(error: unknown): CloakroomError {
    return error instanceof CloakroomError ? error : new CloakroomError('internal', { cause: error });
  }
}
