/** Headers and members whose values are secrets wherever they turn up. */
const SECRET_NAME =
  /^(authorization|proxy-authorization|cookie|set-cookie|dpop|.*(token|secret|password|verifier|assertion|hint)|code|state|nonce)$/i;

/** Anything shaped like a JWT or like a credential parameter inside free text. */
const JWT = /\beyJ[\w-]{5,}\.[\w-]*\.?[\w-]*/g;
const CREDENTIAL =
  /\b(access_token|refresh_token|id_token|id_token_hint|client_secret|code|code_verifier|state|token)=[^&\s"']+/gi;
const URL_PASSWORD = /(\w+:\/\/[^:@/\s]*):[^@/\s]+@/g;

/** Free text without secrets, cut to a length that keeps one log line readable. */
export function redactText(text: string): string {
  return text
    .slice(0, 2000)
    .replace(JWT, '[token]')
    .replace(CREDENTIAL, '$1=[secret]')
    .replace(URL_PASSWORD, '$1:[secret]@');
}

export interface LoggedError {
  name: string;
  message: string;
  code?: string;
  cause?: LoggedError;
}

/**
 * An error as a log line may show it. Only name, code and redacted message survive: library errors carry responses,
 * request options and parsed bodies as properties, and those hold tokens.
 */
export function redactError(error: unknown, depth = 0): LoggedError {
  if (!(error instanceof Error)) return { name: 'Unknown', message: redactText(String(error)) };
  const code = (error as { code?: unknown }).code;
  return {
    name: error.name,
    message: redactText(error.message),
    ...(typeof code === 'string' ? { code } : {}),
    ...(error.cause !== undefined && depth < 3 ? { cause: redactError(error.cause, depth + 1) } : {}),
  };
}

/** True for names whose value must be masked in a log line. */
export function isSecretName(name: string): boolean {
  return SECRET_NAME.test(name);
}
