import * as oidc from 'openid-client';
import type { ProviderConfig } from '../config/config.js';
import type { ProviderFetch } from './provider-fetch.js';
import { normaliseTokenAnswer } from './token-answer.js';
import { UnusableAnswerError } from './unusable-answer.js';

/** The provider's metadata breaks a rule that no configuration lifts by accident. */
class UnacceptableMetadataError extends Error {
  override name = 'UnacceptableMetadataError';
}

const USED_ENDPOINTS = [
  'authorization_endpoint',
  'token_endpoint',
  'jwks_uri',
  'userinfo_endpoint',
  'revocation_endpoint',
  'end_session_endpoint',
] as const;

/**
 * Reads what a provider says about itself (OpenID Connect Discovery 1.0 section 4) and refuses what we cannot work with.
 *
 * @returns the client library's configuration, with our way out to the provider built in
 */
export async function discover(
  config: ProviderConfig,
  outbound: ProviderFetch,
  authentication: oidc.ClientAuth,
): Promise<oidc.Configuration> {
  const server = new URL(config.issuer);
  const configuration = await oidc.discovery(server, config.clientId, {}, authentication, {
    [oidc.customFetch]: libraryFetch(outbound),
    timeout: config.metadataTimeout / 1000,
    // eslint-disable-next-line @typescript-eslint/no-deprecated -- loopback issuers only; the configuration sees to it
    ...(server.protocol === 'http:' ? { execute: [oidc.allowInsecureRequests] } : {}),
  });
  checkMetadata(configuration.serverMetadata(), config, outbound);
  configuration.timeout = config.timeout / 1000;
  return configuration;
}

function checkMetadata(metadata: oidc.ServerMetadata, config: ProviderConfig, outbound: ProviderFetch): void {
  if (metadata.issuer !== config.issuer) {
    throw new UnacceptableMetadataError(`the provider calls itself ${metadata.issuer}`);
  }
  const used = config.wanted.introspection ? [...USED_ENDPOINTS, 'introspection_endpoint'] : USED_ENDPOINTS;
  for (const name of used) {
    const value = metadata[name];
    if (value !== undefined && !(typeof value === 'string' && outbound.allows(value))) {
      throw new UnacceptableMetadataError(
        `${name} is not on the issuer's host; if that is right, list its host in endpointHosts`,
      );
    }
  }
  for (const name of ['authorization_endpoint', 'token_endpoint', 'jwks_uri'] as const) {
    if (metadata[name] === undefined) throw new UnacceptableMetadataError(`${name} is missing`);
  }
  // RFC 9700 section 2.1.1: without the member one cannot know that the server checks the verifier at all.
  const methods: unknown = metadata.code_challenge_methods_supported;
  const advertised = Array.isArray(methods) && methods.includes('S256');
  if (config.pkceUnadvertised === 'refuse' && !advertised) {
    throw new UnacceptableMetadataError(
      'the provider does not advertise PKCE with S256; if it supports it all the same, set pkceUnadvertised: allow',
    );
  }
}

/** Our way out, and the token endpoint's answer made plain before the library reads it. */
function libraryFetch(outbound: ProviderFetch): oidc.CustomFetch {
  return async (url, options) => {
    const response = await outbound.fetch(url, options);
    const isGrant =
      options.method === 'POST' &&
      new URLSearchParams(options.body as URLSearchParams | string).has('grant_type');
    if (!isGrant || response.status !== 200) return response;
    const answer = normaliseTokenAnswer(await response.text());
    if ('fault' in answer) throw new UnusableAnswerError(answer.fault);
    return new Response(answer.body, { status: 200, headers: { 'content-type': 'application/json' } });
  };
}
