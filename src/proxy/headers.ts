import type { IncomingHttpHeaders } from 'node:http';
import { traceContext } from './trace-context.js';

/** Meaningful for one connection only (RFC 9110 section 7.6.1). */
const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authentication-info',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/**
 * What a browser's request may bring to an upstream without being listed by the route. Everything else stays behind,
 * above all what an upstream might take for the word of a trusted proxy.
 */
const REQUEST_STANDARD = new Set([
  'accept',
  'accept-encoding',
  'accept-language',
  'baggage',
  'cache-control',
  'content-digest',
  'content-disposition',
  'content-encoding',
  'content-language',
  'content-length',
  'content-type',
  'idempotency-key',
  'if-match',
  'if-modified-since',
  'if-none-match',
  'if-range',
  'if-unmodified-since',
  'last-event-id',
  'pragma',
  'prefer',
  'priority',
  'range',
  'repr-digest',
  'user-agent',
  'want-content-digest',
  'want-repr-digest',
]);

/** May come as well, but what goes on is decided apart. */
const TRACE_CONTEXT = new Set(['traceparent', 'tracestate']);

/** All names of headers that may come from a browser, in lower case. */
export function requestHeaderNames(allow: readonly string[]): string[] {
  return [...new Set([...REQUEST_STANDARD, ...TRACE_CONTEXT, ...allow.map((name) => name.toLowerCase())])];
}

/** Answers of an upstream that would speak for the whole site, or that we say ourselves. */
const RESPONSE_DROPPED = new Set([
  'accept-ch',
  'alt-svc',
  'authentication-info',
  'clear-site-data',
  // Our own word.
  'cloakroom-answer',
  'critical-ch',
  'cross-origin-resource-policy',
  'dpop-nonce',
  'expect-ct',
  'nel',
  'origin-agent-cluster',
  'public-key-pins',
  'public-key-pins-report-only',
  'referrer-policy',
  'refresh',
  'report-to',
  'reporting-endpoints',
  'sec-session-challenge',
  'sec-session-registration',
  'secure-session-challenge',
  'secure-session-registration',
  'server',
  'service-worker-allowed',
  'set-cookie2',
  'set-login',
  'strict-transport-security',
  'use-as-dictionary',
  'via',
  'x-aspnet-version',
  'x-aspnetmvc-version',
  'x-backend-server',
  'x-content-type-options',
  'x-frame-options',
  'x-generator',
  'x-powered-by',
  'x-request-id',
  'x-runtime',
  'x-sendfile',
  'x-served-by',
]);
const RESPONSE_DROPPED_PREFIXES = ['access-control-', 'x-accel-', 'proxy-'];

/** Schemes that make a browser ask its user for a password. */
const PROMPTING = /(?:^|,)\s*(?:basic|digest|negotiate|ntlm)\b/i;

export interface RequestHeaderInput {
  rawHeaders: readonly string[];
  /** The same, read. */
  headers: IncomingHttpHeaders;
  allow: ReadonlySet<string>;
  cookies: ReadonlySet<string>;
  /** undefined: the request goes on as nobody's. */
  accessToken: string | undefined;
  requestId: string;
  clientAddress: string;
  /** `https` or `http`, as in the public URL. */
  publicScheme: string;
  publicHost: string;
  /** Whether the trailer fields of the answer are wanted. */
  wantsTrailers: boolean;
}

/**
 * The header lines of the request to an upstream, as name and value in turns.
 */
export function upstreamRequestHeaders(input: RequestHeaderInput): string[] {
  const { rawHeaders, allow, cookies } = input;
  const named = connectionNames(rawHeaders);
  const headers = [
    'x-request-id',
    input.requestId,
    'x-forwarded-for',
    input.clientAddress,
    'x-forwarded-proto',
    input.publicScheme,
    'x-forwarded-host',
    input.publicHost,
    'forwarded',
    forwardedLine(input),
    ...traceContext(input.headers, (name) => named?.has(name) === true),
  ];
  if (input.wantsTrailers) headers.push('te', 'trailers');
  if (input.accessToken !== undefined) headers.push('authorization', `Bearer ${input.accessToken}`);
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = (rawHeaders[i] ?? '').toLowerCase();
    const value = rawHeaders[i + 1] ?? '';
    if (REQUEST_STANDARD.has(name) || (allow.has(name) && !TRACE_CONTEXT.has(name))) {
      // A length is framing, which a sender cannot take away by naming it in `Connection`.
      if (named === undefined || name === 'content-length' || !named.has(name)) headers.push(name, value);
    } else if (name === 'cookie' && cookies.size > 0) {
      const kept = keptCookies(value, cookies);
      if (kept !== '') headers.push(name, kept);
    }
  }
  return headers;
}

/** One hop, as the browser's word about others is not worth more here than in `X-Forwarded-For` (RFC 7239 section 4). */
function forwardedLine({ clientAddress, publicScheme, publicHost }: RequestHeaderInput): string {
  const node = clientAddress.includes(':') ? `"[${clientAddress}]"` : clientAddress || 'unknown';
  return `for=${node};proto=${publicScheme};host="${publicHost}"`;
}

export interface ResponseHeaderInput {
  rawHeaders: readonly (string | Buffer)[];
  allow: ReadonlySet<string>;
  cookies: ReadonlySet<string>;
  cache: 'no-store' | 'upstream';
  /** Names of request headers that our part of the answer depends on. */
  vary: readonly string[];
  requestId: string;
  /** Ours, put first. A policy of the upstream's stands beside ours, and both are enforced (CSP Level 3, section 8.1). */
  security: readonly (readonly [string, string])[];
}

/** The header lines of the answer to the browser, as name and value in turns. */
export function browserResponseHeaders(input: ResponseHeaderInput): string[] {
  const headers: string[] = [];
  for (const [name, value] of input.security) headers.push(name, value);
  headers.push('x-request-id', input.requestId);
  if (input.cache === 'no-store') headers.push('cache-control', 'no-store');
  const varies: string[] = [];
  const named = connectionNames(input.rawHeaders);
  for (let i = 0; i < input.rawHeaders.length; i += 2) {
    const original = text(input.rawHeaders[i]);
    const name = original.toLowerCase();
    const value = text(input.rawHeaders[i + 1]);
    if (named?.has(name) === true && name !== 'content-length') continue;
    if (name === 'vary') varies.push(value);
    else if (passesToBrowser(name, value, input)) headers.push(original, value);
  }
  if (varies.length > 0 || input.vary.length > 0) headers.push('vary', varyLine(input.vary, varies));
  return headers;
}

/**
 * One line: of several `Vary` lines some caches read only the last (nginx before 1.23), and without `Cookie` they would give
 * one user's answer to another. `*` stands alone (RFC 9110 section 12.5.5).
 */
function varyLine(ours: readonly string[], theirs: readonly string[]): string {
  const names = theirs.flatMap((value) => value.split(',')).map((name) => name.trim());
  if (names.includes('*')) return '*';
  const own = ours.map((name) => name.toLowerCase());
  const others = names.filter((name) => name !== '' && !own.includes(name.toLowerCase()));
  return [...ours, ...others].join(', ');
}

/** @param name in lower case */
export function passesToBrowser(
  name: string,
  value: string,
  input: Pick<ResponseHeaderInput, 'allow' | 'cookies' | 'cache'>,
): boolean {
  if (HOP_BY_HOP.has(name)) return false;
  if (name === 'set-cookie') return isAllowedCookie(value, input.cookies);
  if (name === 'cache-control' || name === 'expires' || name === 'pragma') return input.cache === 'upstream';
  if (name === 'www-authenticate') return !PROMPTING.test(value);
  if (input.allow.has(name)) return true;
  return !RESPONSE_DROPPED.has(name) && !RESPONSE_DROPPED_PREFIXES.some((prefix) => name.startsWith(prefix));
}

/** A cookie of an upstream lands on our host: only listed names, never ours, never for a whole domain. */
function isAllowedCookie(value: string, cookies: ReadonlySet<string>): boolean {
  const [pair = '', ...attributes] = value.split(';');
  const name = pair.slice(0, Math.max(0, pair.indexOf('='))).trim();
  return cookies.has(name) && !attributes.some((attribute) => /^\s*domain\s*(?:=|$)/i.test(attribute));
}

function keptCookies(header: string, cookies: ReadonlySet<string>): string {
  return header
    .split(';')
    .map((pair) => pair.trim())
    .filter((pair) => cookies.has(pair.slice(0, Math.max(0, pair.indexOf('=')))))
    .join('; ');
}

/** Names that a `Connection` line declares as meant for this hop only, or undefined when there are none of interest. */
function connectionNames(rawHeaders: readonly (string | Buffer)[]): Set<string> | undefined {
  let names: Set<string> | undefined;
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i];
    if (name?.length !== 10 || text(name).toLowerCase() !== 'connection') continue;
    const value = text(rawHeaders[i + 1]).toLowerCase();
    if (value === 'keep-alive' || value === 'close') continue;
    names ??= new Set();
    for (const part of value.split(',')) names.add(part.trim());
  }
  return names;
}

/** Header bytes are Latin-1 on the wire; reading them as anything else would change them. */
export function text(raw: string | Buffer | undefined): string {
  return typeof raw === 'string' ? raw : (raw?.toString('latin1') ?? '');
}
