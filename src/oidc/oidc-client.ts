import * as oidc from 'openid-client';
import type { ExchangeConfig, ProviderConfig } from '../config/config.js';
import type { Logger } from '../observability/logger.js';
import { clientAuthentication } from './client-authentication.js';
import { discover } from './discovery.js';
import { audienceParameters, clientCredentials, introspection, tokenExchange } from './further-grants.js';
import { verifyIdToken, type Claims } from './id-token.js';
import { verifyLogoutToken, type LogoutToken } from './logout-token.js';
import { Metadata } from './metadata.js';
import { providerFetch, type ProviderFetch } from './provider-fetch.js';
import { ProviderGate } from './provider-gate.js';
import { TokenError } from './signed-token.js';
import { SigningKeys } from './signing-keys.js';
import { UNVERIFIED_ID_TOKEN } from './token-answer.js';
import { UnusableAnswerError } from './unusable-answer.js';
import { readUserinfo } from './userinfo.js';

/** What a grant brought. Absent members were not in the answer. */
export interface TokenAnswer {
  accessToken: string;
  refreshToken: string | undefined;
  idToken: string | undefined;
  scope: string | undefined;
  /** Seconds. */
  expiresIn: number | undefined;
}

export interface AuthorizationRequest {
  state: string;
  nonce: string;
  codeVerifier: string;
  /** Instead of those of the configuration. */
  scopes?: readonly string[];
  /** `prompt`, `login_hint` and their like, already checked. */
  parameters: Readonly<Record<string, string>>;
}

export interface CallbackChecks {
  state: string;
  nonce: string;
  codeVerifier: string;
  maxAge: number | undefined;
}

/** What an authorization response consists of: RFC 6749 sections 4.1.2 and 4.1.2.1, RFC 9207 section 2. */
const RESPONSE_PARAMETERS = ['code', 'state', 'iss', 'error', 'error_description', 'error_uri'];

/**
 * One provider, as this client sees it. Only this folder knows the client library; what the library leaves open by
 * default is closed here: signatures, `azp`, token type, metadata endpoints, sizes.
 */
export class OidcClient {
  readonly name: string;
  readonly config: ProviderConfig;
  readonly redirectUri: string;
  readonly gate = new ProviderGate();
  /** Of its own: an endpoint that only some routes need must not keep refreshes waiting. */
  readonly introspectionGate = new ProviderGate();
  readonly #outbound: ProviderFetch;
  readonly #keys: SigningKeys;
  readonly #metadata: Metadata<oidc.Configuration>;

  /** @param redirectUri built from the public URL; never from a request */
  constructor(config: ProviderConfig, redirectUri: string, logger: Logger) {
    this.name = config.name;
    this.config = config;
    this.redirectUri = redirectUri;
    const outbound = providerFetch(config.issuer, config.endpointHosts);
    const authentication = clientAuthentication(config, logger);
    this.#outbound = outbound;
    this.#keys = new SigningKeys(outbound.fetch, config.metadataTimeout);
    const read = async (): Promise<oidc.Configuration> => {
      const configuration = await discover(config, outbound, authentication);
      if (
        config.wanted.introspection &&
        configuration.serverMetadata().introspection_endpoint === undefined
      ) {
        logger.error('introspection_impossible', { provider: config.name });
      }
      return configuration;
    };
    this.#metadata = new Metadata(config.name, read, logger);
  }

  start(): void {
    this.#metadata.start();
  }

  async close(): Promise<void> {
    this.#metadata.stop();
    await this.#outbound.close();
  }

  get available(): boolean {
    return this.#metadata.available;
  }

  /** Waits for metadata, for `cloakroom check` and for the first login after a start. */
  async serverMetadata(): Promise<oidc.ServerMetadata> {
    return (await this.#metadata.get()).serverMetadata();
  }

  /** Reads the metadata again: the provider said that it does not know this client or this address. */
  reload(): void {
    this.#metadata.reload();
  }

  async authorizationUrl(request: AuthorizationRequest): Promise<URL> {
    const configuration = await this.#metadata.get();
    const parameters = new URLSearchParams({
      ...this.config.authorizationParameters,
      ...request.parameters,
      redirect_uri: this.redirectUri,
      scope: (request.scopes ?? this.config.scopes).join(' '),
      code_challenge: await oidc.calculatePKCECodeChallenge(request.codeVerifier),
      code_challenge_method: 'S256',
      state: request.state,
      nonce: request.nonce,
    });
    if (this.config.responseMode === 'form_post') parameters.set('response_mode', 'form_post');
    if (this.config.audienceParameter === 'resource') {
      // RFC 8707 section 2.1: what is not asked for here, many providers do not give at a refresh.
      for (const audience of this.config.wanted.audiences) {
        if (!parameters.has('resource', audience)) parameters.append('resource', audience);
      }
    }
    return oidc.buildAuthorizationUrl(configuration, parameters);
  }

  /**
   * Exchanges the code and verifies everything that came back.
   * @param parameters what the browser brought to the redirect URI
   * @throws errors of the client library and {@link TokenError}; see `oidc-errors.ts`
   */
  async exchange(
    parameters: URLSearchParams,
    checks: CallbackChecks,
  ): Promise<{ tokens: TokenAnswer; claims: Claims }> {
    const configuration = await this.#metadata.get();
    const url = new URL(this.redirectUri);
    // Nothing else counts (RFC 6749 section 4.1.2); tokens that somebody put beside it would be an error to the library.
    for (const name of RESPONSE_PARAMETERS) {
      for (const value of parameters.getAll(name)) url.searchParams.append(name, value);
    }
    const answer = await oidc.authorizationCodeGrant(configuration, url, {
      expectedState: checks.state,
      pkceCodeVerifier: checks.codeVerifier,
    });
    const tokens = tokensOf(answer);
    try {
      requireBearer(answer);
      if (tokens.idToken === undefined) throw new TokenError('missing');
      const claims = await this.#verify(configuration, tokens.idToken, {
        accessToken: tokens.accessToken,
        nonce: checks.nonce,
        code: parameters.get('code') ?? '',
        ...(checks.maxAge === undefined ? {} : { maxAge: checks.maxAge }),
      });
      return { tokens, claims };
    } catch (error) {
      this.discard(tokens);
      throw error;
    }
  }

  /**
   * Uses a refresh token once. Nothing is retried here: the outcome of a lost answer is unknown.
   * @param audience whom the access token is to be for, alone (RFC 8707 section 2.2)
   * @returns with `idToken` not yet verified; see {@link OidcClient.verifyRefreshed}
   */
  async refresh(refreshToken: string, audience?: string): Promise<TokenAnswer> {
    const configuration = await this.#metadata.get();
    const parameters = audienceParameters(this.config, audience);
    return bearerTokensOf(await oidc.refreshTokenGrant(configuration, refreshToken, parameters));
  }

  /** The application's own access token. */
  async clientToken(wish: { audience: string | undefined; scope: string | undefined }): Promise<TokenAnswer> {
    return bearerTokensOf(await clientCredentials(await this.#metadata.get(), this.config, wish));
  }

  /** Another access token in exchange for one of a user. */
  async exchangeToken(accessToken: string, wish: ExchangeConfig): Promise<TokenAnswer> {
    return bearerTokensOf(await tokenExchange(await this.#metadata.get(), accessToken, wish));
  }

  /** Whether an access token is active, as its provider says. */
  async isActive(accessToken: string): Promise<boolean> {
    return introspection(await this.#metadata.get(), accessToken);
  }

  /** Verifies an ID token that came with a refresh. */
  async verifyRefreshed(idToken: string, accessToken: string): Promise<Claims> {
    return this.#verify(await this.#metadata.get(), idToken, { accessToken });
  }

  /**
   * Revokes a token (RFC 7009).
   * @returns false when the provider has no revocation endpoint
   */
  async revoke(token: string, hint: 'refresh_token' | 'access_token'): Promise<boolean> {
    const configuration = await this.#metadata.get();
    if (configuration.serverMetadata().revocation_endpoint === undefined) return false;
    await oidc.tokenRevocation(configuration, token, { token_type_hint: hint });
    return true;
  }

  /** Revokes, as far as that goes, what a login brought that came to nothing. */
  discard(tokens: TokenAnswer): void {
    if (tokens.refreshToken !== undefined)
      this.revoke(tokens.refreshToken, 'refresh_token').catch(() => undefined);
  }

  /**
   * Verifies a token by which the provider says that a session ended (Back-Channel Logout 1.0 section 2.6).
   * @throws {TokenError} with the reason; {@link ProviderCallError} when the keys cannot be read
   */
  async verifyLogoutToken(token: string): Promise<LogoutToken> {
    const strict = this.config.backchannelLogout === 'strict';
    return verifyLogoutToken(token, { ...this.#expected(await this.#metadata.get()), strict }, this.#keys);
  }

  /** @throws when the answer is not about `subject`, or is no answer */
  async userinfo(accessToken: string, subject: string): Promise<Record<string, unknown>> {
    const configuration = await this.#metadata.get();
    const endpoint = configuration.serverMetadata().userinfo_endpoint;
    if (endpoint === undefined) return {};
    const jwksUri = configuration.serverMetadata().jwks_uri ?? '';
    const from = { endpoint, jwksUri, accessToken, subject };
    return readUserinfo(this.config, from, this.#outbound.fetch, this.#keys);
  }

  /**
   * Where to send the browser so that the provider ends its own session.
   * @returns undefined when the provider offers no such place
   */
  async endSessionUrl(request: {
    idToken: string | undefined;
    postLogoutRedirectUri: string;
    state: string;
  }): Promise<URL | undefined> {
    const configuration = await this.#metadata.get();
    if (configuration.serverMetadata().end_session_endpoint === undefined) return undefined;
    const parameters = new URLSearchParams({
      post_logout_redirect_uri: request.postLogoutRedirectUri,
      state: request.state,
    });
    if (request.idToken !== undefined) parameters.set('id_token_hint', request.idToken);
    return oidc.buildEndSessionUrl(configuration, parameters);
  }

  #verify(
    configuration: oidc.Configuration,
    idToken: string,
    expected: { accessToken: string; nonce?: string; code?: string; maxAge?: number },
  ): Promise<Claims> {
    return verifyIdToken(idToken, { ...this.#expected(configuration), ...expected }, this.#keys);
  }

  #expected(configuration: oidc.Configuration) {
    const { issuer, clientId, idTokenAlgs: algs, clockTolerance: tolerance } = this.config;
    const jwksUri = configuration.serverMetadata().jwks_uri ?? '';
    return { issuer, clientId, jwksUri, algs, tolerance };
  }
}

function tokensOf(answer: oidc.TokenEndpointResponse): TokenAnswer {
  const idToken = answer[UNVERIFIED_ID_TOKEN];
  return {
    accessToken: answer.access_token,
    refreshToken: answer.refresh_token,
    idToken: typeof idToken === 'string' ? idToken : undefined,
    scope: answer.scope,
    expiresIn: answer.expires_in,
  };
}

function bearerTokensOf(answer: oidc.TokenEndpointResponse): TokenAnswer {
  requireBearer(answer);
  return tokensOf(answer);
}

/** The library also accepts `DPoP`, which nobody asked for and nobody could use. */
function requireBearer(answer: oidc.TokenEndpointResponse): void {
  if (answer.token_type !== 'bearer') throw new UnusableAnswerError('token_type is not Bearer');
}
