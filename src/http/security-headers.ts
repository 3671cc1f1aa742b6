/**
 * Headers on every answer, errors and proxied answers included.
 *
 * @param secure the public URL is https, so HSTS may be promised
 * @returns lower-case names and values, to be set before the headers of the answer itself
 */
export function securityHeaders(secure: boolean): readonly (readonly [string, string])[] {
  const headers: [string, string][] = [
    ['x-content-type-options', 'nosniff'],
    ['x-frame-options', 'DENY'],
    ['cross-origin-resource-policy', 'same-origin'],
    ['referrer-policy', 'no-referrer'],
  ];
  if (secure) headers.push(['strict-transport-security', 'max-age=31536000; includeSubDomains']);
  return headers;
}

/** For answers without markup of their own: nothing may run, nothing may frame them. */
export const DATA_CSP = "default-src 'none'; frame-ancestors 'none'";

/** Sent beside whatever policy an upstream has, since several policies are all enforced (CSP Level 3, section 8.1). */
export const PROXIED_CSP = "frame-ancestors 'none'";
