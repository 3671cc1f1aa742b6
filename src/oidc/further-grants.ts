import * as oidc from 'openid-client';
import type { ExchangeConfig, ProviderConfig } from '../config/config.js';
import { UnusableAnswerError } from './unusable-answer.js';

export const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';
const JWT = 'urn:ietf:params:oauth:token-type:jwt';

/** The parameter by which this provider is told for whom a token is. */
export function audienceParameters(
  { audienceParameter }: ProviderConfig,
  audience: string | undefined,
): Record<string, string> {
  return audience === undefined ? {} : { [audienceParameter]: audience };
}

/** The application's own access token (RFC 6749 section 4.4). */
export function clientCredentials(
  configuration: oidc.Configuration,
  config: ProviderConfig,
  { audience, scope }: { audience: string | undefined; scope: string | undefined },
): Promise<oidc.TokenEndpointResponse> {
  return oidc.clientCredentialsGrant(configuration, {
    ...audienceParameters(config, audience),
    ...(scope === undefined ? {} : { scope }),
  });
}

/**
 * Another access token for an access token (RFC 8693 section 2).
 * @throws {UnusableAnswerError} when something else came back
 */
export async function tokenExchange(
  configuration: oidc.Configuration,
  accessToken: string,
  exchange: ExchangeConfig,
): Promise<oidc.TokenEndpointResponse> {
  const wanted = Object.entries(exchange).filter(
    (entry): entry is [string, string] => entry[1] !== undefined,
  );
  const answer = await oidc.genericGrantRequest(configuration, TOKEN_EXCHANGE, {
    ...Object.fromEntries(wanted),
    subject_token: accessToken,
    subject_token_type: ACCESS_TOKEN,
    requested_token_type: ACCESS_TOKEN,
  });
  const issued = answer['issued_token_type'];
  // Section 3: a JWT may be called what it is. A refresh or ID token has no business in an API.
  if (issued !== undefined && issued !== ACCESS_TOKEN && issued !== JWT) {
    throw new UnusableAnswerError('issued_token_type is no access token');
  }
  return answer;
}

/**
 * Whether a token is active (RFC 7662 section 2).
 * @throws {UnusableAnswerError} when the provider has no such endpoint
 */
export async function introspection(configuration: oidc.Configuration, token: string): Promise<boolean> {
  if (configuration.serverMetadata().introspection_endpoint === undefined) {
    throw new UnusableAnswerError('the provider has no introspection_endpoint');
  }
  const answer = await oidc.tokenIntrospection(configuration, token, { token_type_hint: 'access_token' });
  return answer.active;
}
