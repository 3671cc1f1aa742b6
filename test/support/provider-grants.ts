import type { Json } from './jws.js';
import type { Endpoint, Ledger } from './ledger.js';

const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';

/** What an access token is made for. */
export interface TokenFor {
  family: string;
  sub: string;
  scope: string;
  audience?: string | undefined;
}

/** The members of an answer, or the error code of a refusal. */
export type GrantAnswer = Json | { refusal: string };

interface Issuer {
  clientId: string;
  ledger: Ledger;
  /** undefined: every audience is known. */
  audiences: readonly string[] | undefined;
  issue: (token: TokenFor) => Promise<string>;
}

/** Grants that the token endpoint knows besides the code. */
export function grantOf(params: URLSearchParams): Endpoint {
  switch (params.get('grant_type')) {
    case 'refresh_token':
      return 'refresh';
    case 'client_credentials':
      return 'client_credentials';
    case TOKEN_EXCHANGE:
      return 'token_exchange';
    default:
      return 'token';
  }
}

/** Whom a token is asked for: RFC 8707, or the parameter `audience` of other providers. */
export function audienceOf(params: URLSearchParams): string | undefined {
  return params.get('resource') ?? params.get('audience') ?? undefined;
}

export function isKnownAudience(params: URLSearchParams, audiences: readonly string[] | undefined): boolean {
  const audience = audienceOf(params);
  return audience === undefined || audiences === undefined || audiences.includes(audience);
}

export async function clientCredentials(params: URLSearchParams, issuer: Issuer): Promise<GrantAnswer> {
  if (!isKnownAudience(params, issuer.audiences)) return { refusal: 'invalid_target' };
  const { clientId: sub } = issuer;
  const scope = params.get('scope') ?? '';
  const token = { family: `client-${sub}`, sub, scope, audience: audienceOf(params) };
  return { access_token: await issuer.issue(token), scope };
}

export async function tokenExchange(params: URLSearchParams, issuer: Issuer): Promise<GrantAnswer> {
  const isAccessToken = params.get('subject_token_type') === ACCESS_TOKEN;
  const subject = issuer.ledger.validAccessToken(params.get('subject_token') ?? '');
  if (subject === undefined || !isAccessToken) return { refusal: 'invalid_request' };
  if (!isKnownAudience(params, issuer.audiences)) return { refusal: 'invalid_target' };
  const { family, sub } = subject;
  const scope = params.get('scope') ?? subject.scope;
  const token = { family, sub, scope, audience: audienceOf(params) };
  return { access_token: await issuer.issue(token), issued_token_type: ACCESS_TOKEN, scope };
}

/** RFC 7662 section 2.2. */
export function introspect(params: URLSearchParams, ledger: Ledger): Json {
  const record = ledger.validAccessToken(params.get('token') ?? '');
  if (record === undefined) return { active: false };
  return { active: true, sub: record.sub, scope: record.scope, token_type: 'Bearer' };
}
