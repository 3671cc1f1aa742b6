/** The names of all cookies, which depend on the public URL alone. */
export interface CookieNames {
  session: string;
  /** Followed by what names one login attempt. */
  loginPrefix: string;
  last: string;
  silent: string;
  restart: string;
  logout: string;
}

/**
 * @param secure the public URL is https. `__Host-` then makes the browser refuse these names from anybody but this very
 *   host (RFC 6265bis, "Cookie Name Prefixes"); over http, allowed on loopback only, browsers accept no such name.
 */
export function cookieNames(secure: boolean): CookieNames {
  const prefix = secure ? '__Host-cloakroom-' : 'cloakroom-';
  return {
    session: `${prefix}session`,
    loginPrefix: `${prefix}login-`,
    last: `${prefix}last`,
    silent: `${prefix}silent`,
    restart: `${prefix}restart`,
    logout: `${prefix}logout`,
  };
}
