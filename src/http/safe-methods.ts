/** Without an effect, so that they may be sent twice (RFC 9110 section 9.2.2). */
export const SAFE_METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS']);
