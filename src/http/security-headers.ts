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

export interface PageSecurity {
  /** Which pages may show the answer in a frame: none, or those of our own origin. */
  frameAncestors: 'none' | 'self';
  referrerPolicy: string;
}

/** The same for the answers of an upstream, which may be pages; `nosniff`, CORP and HSTS are the same for all. */
export function proxiedSecurityHeaders(
  secure: boolean,
  { frameAncestors, referrerPolicy }: PageSecurity,
): readonly (readonly [string, string])[] {
  const own = new Map([
    ['x-frame-options', frameAncestors === 'self' ? 'SAMEORIGIN' : 'DENY'],
    ['referrer-policy', referrerPolicy],
  ]);
  return [
    ...securityHeaders(secure).map(([name, value]) => [name, own.get(name) ?? value] as const),
    ['content-security-policy', `frame-ancestors '${frameAncestors}'`],
  ];
}
