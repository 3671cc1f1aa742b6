import { Agent, request, type Dispatcher } from 'undici';

/**
 * The provider's answer never arrived whole. `sent`: whether the request may have reached it; `answered`: it did answer,
 * with more than anybody could use.
 */
export class ProviderCallError extends Error {
  readonly sent: boolean;
  readonly answered: boolean;

  constructor(message: string, options: { sent: boolean; answered?: boolean; cause?: unknown }) {
    super(message, { cause: options.cause });
    this.name = 'ProviderCallError';
    this.sent = options.sent;
    this.answered = options.answered ?? false;
  }
}

/** An endpoint or a document points at a place this provider is not allowed to send us. */
export class ForbiddenEndpointError extends Error {
  constructor(url: string) {
    super(`the provider's endpoint ${url} is not on its issuer's host, nor on one listed in endpointHosts`);
    this.name = 'ForbiddenEndpointError';
  }
}

const MAX_BODY = 1024 * 1024;

/** Failures before a byte of the request has left us; every other one leaves the outcome open. */
const NOT_SENT = new Set([
  'UND_ERR_CONNECT_TIMEOUT',
  'ECONNREFUSED',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ERR_TLS_CERT_ALTNAME_INVALID',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'CERT_HAS_EXPIRED',
]);

export type Fetch = (
  url: string,
  options?: {
    method?: string;
    headers?: Record<string, string>;
    body?: unknown;
    signal?: AbortSignal | undefined;
  },
) => Promise<Response>;

export interface ProviderFetch {
  fetch: Fetch;
  /** Whether an address is one that this provider may send us to. */
  allows: (url: string) => boolean;
  close: () => Promise<void>;
}

/**
 * The only way out to a provider: to its own hosts alone, without following redirects, with at most 1 MiB of answer, and
 * each call on a connection of its own. A reset on a reused idle connection would leave open whether a refresh token was
 * spent.
 *
 * @param issuer its scheme and host set the rule: https, or http where the issuer is http on a loopback host
 * @param endpointHosts further hosts, `name` (for the scheme's own port) or `name:port`
 * @returns a function with the shape of `fetch`
 */
export function providerFetch(issuer: string, endpointHosts: readonly string[]): ProviderFetch {
  const origin = new URL(issuer);
  const hosts = new Set([origin.host, ...endpointHosts]);
  const agent = new Agent({ pipelining: 0, connect: { timeout: 2000 }, maxResponseSize: -1 });

  const allows = (url: string): boolean => {
    const parsed = URL.canParse(url) ? new URL(url) : undefined;
    if (parsed === undefined || parsed.username !== '' || parsed.password !== '') return false;
    return parsed.protocol === origin.protocol && hosts.has(parsed.host);
  };

  const fetch: Fetch = async (url, options = {}) => {
    if (!allows(url)) throw new ForbiddenEndpointError(redactedUrl(url));
    const response = await send(agent, url, options);
    const body = await readBody(response);
    const headers = new Headers();
    for (const [name, value] of Object.entries(response.headers)) {
      // A cookie or a challenge of the provider is nothing to us, and the client library would prefer the challenge
      // to the error in the body.
      if (value === undefined || name === 'set-cookie' || name === 'www-authenticate') continue;
      headers.set(name, Array.isArray(value) ? value.join(', ') : value);
    }
    const bodyless = response.statusCode === 204 || response.statusCode === 304 || response.statusCode < 200;
    return new Response(bodyless ? null : body, { status: bodyless ? 204 : response.statusCode, headers });
  };

  return { fetch, allows, close: () => agent.destroy() };
}

async function send(
  agent: Agent,
  url: string,
  options: Parameters<Fetch>[1] & object,
): Promise<Dispatcher.ResponseData> {
  const headers = Object.fromEntries(new Headers(options.headers));
  const { body } = options;
  const payload = body == null ? null : body instanceof URLSearchParams ? body.toString() : (body as string);
  try {
    return await request(url, {
      dispatcher: agent,
      method: options.method ?? 'GET',
      headers: { ...headers, 'accept-encoding': 'identity' },
      body: payload,
      ...(options.signal ? { signal: options.signal } : {}),
    });
  } catch (error) {
    throw new ProviderCallError('no answer from the provider', { sent: !isNotSent(error), cause: error });
  }
}

async function readBody(response: Dispatcher.ResponseData): Promise<ArrayBuffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of response.body) {
      const bytes = chunk as Buffer;
      size += bytes.length;
      if (size > MAX_BODY) break;
      chunks.push(bytes);
    }
  } catch (error) {
    throw new ProviderCallError("the provider's answer broke off", { sent: true, cause: error });
  }
  if (size > MAX_BODY) {
    throw new ProviderCallError("the provider's answer is too large", { sent: true, answered: true });
  }
  const bytes = Buffer.concat(chunks);
  return bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
}

function isNotSent(error: unknown): boolean {
  for (let current = error; current instanceof Error; current = current.cause) {
    if (NOT_SENT.has(String((current as { code?: unknown }).code))) return true;
    // A name that resolves to several addresses fails with one error for each.
    if (current instanceof AggregateError && current.errors.every(isNotSent)) return true;
  }
  return false;
}

function redactedUrl(url: string): string {
  return URL.canParse(url) ? `${new URL(url).protocol}//${new URL(url).host}` : '(unreadable)';
}
