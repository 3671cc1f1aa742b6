import { CloakroomError } from '../errors.js';
import { ACR_VALUES, MAX_AGE } from '../session/step-up.js';

/** What an application may ask of one login. */
export interface LoginParameters {
  returnTo: string | undefined;
  provider: string | undefined;
  /** We sent the browser here ourselves after a sign-in that came too late. */
  restart: boolean;
  /** One of our own answers led here, which asked for more than there is. */
  stepUp: boolean;
  /** A scope for some routes alone. */
  elevate: string | undefined;
  /** Passed to the provider as they are. */
  forwarded: Readonly<Record<string, string>>;
}

/** Parameters that are passed on, and what each may look like. */
const FORWARDED: Record<string, RegExp> = {
  prompt: /^(?:none|(?:login|consent|select_account)(?: (?:login|consent|select_account)){0,2})$/,
  login_hint: /^[^\p{Cc}]{1,256}$/u,
  acr_values: ACR_VALUES,
  max_age: MAX_AGE,
  ui_locales: /^[A-Za-z0-9-]{1,35}(?: [A-Za-z0-9-]{1,35}){0,9}$/,
};
const MAX_LENGTH = 512;

/**
 * Reads the query of `/auth/login` by allow-list. Names that nobody defined are ignored.
 *
 * @throws {CloakroomError} `login-parameter-invalid` for a repeated or ill-formed value
 */
export function loginParameters(query: URLSearchParams): LoginParameters {
  const forwarded: Record<string, string> = {};
  for (const [name, pattern] of Object.entries(FORWARDED)) {
    const value = single(query, name);
    if (value === undefined) continue;
    if (value.length > MAX_LENGTH || !pattern.test(value)) throw invalid(name);
    forwarded[name] = value;
  }
  return {
    returnTo: single(query, 'returnTo'),
    provider: single(query, 'provider'),
    restart: single(query, 'restart') === '1',
    stepUp: single(query, 'stepUp') === '1',
    elevate: single(query, 'elevate'),
    forwarded,
  };
}

function single(query: URLSearchParams, name: string): string | undefined {
  const values = query.getAll(name);
  if (values.length > 1) throw invalid(name);
  return values[0];
}

export function invalid(name: string): CloakroomError {
  return new CloakroomError('login-parameter-invalid', { public: { reason: name } });
}
