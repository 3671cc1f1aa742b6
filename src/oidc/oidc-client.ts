import { compactVerify, decodeProtectedHeader } from 'jose';
import * as oidc from 'openid-client';
import type { ProviderConfig } from '../config/schema.js';
import type { Logger } from '../observability/logger.js';
import { IdTokenError, verifyIdToken, type Claims } from './id-token.js';
import { Metadata } from './metadata.js';
import { isTooDeep } from './nesting.js';
import { providerFetch, type Fetch } from './provider-fetch.js';
import { ProviderGate } from './provider-gate.js';
import { SigningKeys } from './signing-keys.js';
import { normaliseTokenAnswer, UNVERIFIED_ID_TOKEN } from './token-answer.js';

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

const USED_ENDPOINTS = [
  'authorization_endpoint',
  'token_endpoint',
  'jwks_uri',
  'userinfo_endpoint',
  'revocation_endpoint',
  'end_session_endpoint',
] as const;

/** The provider's metadata breaks a rule that no configuration lifts by accident. */
class UnacceptableMetadataError extends Error {
  override name = 'UnacceptableMetadataError';
}

/** An endpoint answered 200 with something that is no such answer. */
class UnusableAnswerError extends Error {
  override name = 'UnusableAnswerError';
}

/**
 * One provider, as this client sees it. The only file that knows the client library; what the library leaves open by
 * default is closed here: signatures, `azp`, token type, metadata endpoints, sizes.
 */
export class OidcClient {
  readonly name: string;
  readonly config: ProviderConfig;
  readonly redirectUri: string;
  readonly gate = new ProviderGate();
  readonly #fetch: Fetch;
  readonly #allows: (url: string) => boolean;
  readonly #closeFetch: () => Promise<void>;
  readonly #keys: SigningKeys;
  readonly #metadata: Metadata<oidc.Configuration>;
  readonly #logger: Logger;
  #lastSecret: string | undefined;

  /** @param redirectUri built from the public URL; never from a request */
  constructor(config: ProviderConfig, redirectUri: string, logger: Logger) {
    this.name = config.name;
    this.config = config;
    this.redirectUri = redirectUri;
    const { fetch, allows, close } = providerFetch(config.issuer, config.endpointHosts);
    this.#fetch = fetch;
    this.#allows = allows;
    this.#closeFetch = close;
    this.#logger = logger;
    this.#keys = new SigningKeys(fetch, config.metadataTimeout);
    this.#metadata = new Metadata(config.name, () => this.#discover(), logger);
  }

  start(): void {
    this.#metadata.start();
  }

  async close(): Promise<void> {
    this.#metadata.stop();
    await this.#closeFetch();
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
    this.#metadata.invalidate();
  }

  async authorizationUrl(request: AuthorizationRequest): Promise<URL> {
    const configuration = await this.#metadata.get();
    const parameters = new URLSearchParams({
      ...this.config.authorizationParameters,
      ...request.parameters,
      redirect_uri: this.redirectUri,
      scope: this.config.scopes.join(' '),
      code_challenge: await oidc.calculatePKCECodeChallenge(request.codeVerifier),
      code_challenge_method: 'S256',
      state: request.state,
      nonce: request.nonce,
    });
    if (this.config.responseMode === 'form_post') parameters.set('response_mode', 'form_post');
    return oidc.buildAuthorizationUrl(configuration, parameters);
  }

  /**
   * Exchanges the code and verifies everything that came back.
   * @param parameters what the browser brought to the redirect URI
   * @throws errors of the client library and {@link IdTokenError}; see `oidc-errors.ts`
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
    const tokens = this.#tokens(answer);
    if (tokens.idToken === undefined) throw new IdTokenError('missing');
    const claims = await this.#verify(configuration, tokens.idToken, {
      accessToken: tokens.accessToken,
      nonce: checks.nonce,
      code: parameters.get('code') ?? '',
      ...(checks.maxAge === undefined ? {} : { maxAge: checks.maxAge }),
    });
    return { tokens, claims };
  }

  /**
   * Uses a refresh token once. Nothing is retried here: the outcome of a lost answer is unknown.
   * @returns with `idToken` not yet verified; see {@link OidcClient.verifyRefreshed}
   */
  async refresh(refreshToken: string): Promise<TokenAnswer> {
    const configuration = await this.#metadata.get();
    const answer = await oidc.refreshTokenGrant(configuration, refreshToken);
    return this.#tokens(answer);
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

  /** @throws when the answer is not about `subject`, or is no answer */
  async userinfo(accessToken: string, subject: string): Promise<Record<string, unknown>> {
    const configuration = await this.#metadata.get();
    const endpoint = configuration.serverMetadata().userinfo_endpoint;
    if (endpoint === undefined) return {};
    const response = await this.#fetch(endpoint, {
      headers: { authorization: `Bearer ${accessToken}`, accept: 'application/json, application/jwt' },
      signal: AbortSignal.timeout(this.config.timeout),
    });
    if (response.status !== 200)
      throw new UnusableAnswerError(`userinfo answered ${String(response.status)}`);
    const text = await response.text();
    const signed = /^application\/jwt\b/i.test(response.headers.get('content-type') ?? '');
    const claims = signed ? await this.#openUserinfo(configuration, text) : (JSON.parse(text) as unknown);
    if (typeof claims !== 'object' || claims === null || isTooDeep(claims)) {
      throw new UnusableAnswerError('userinfo is no object of claims');
    }
    // OpenID Connect Core section 5.3.2: without the same subject the claims are about somebody else.
    if ((claims as Claims).sub !== subject) throw new IdTokenError('userinfo-sub');
    return claims as Record<string, unknown>;
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

  async #discover(): Promise<oidc.Configuration> {
    const { issuer, clientId, metadataTimeout, timeout } = this.config;
    const server = new URL(issuer);
    const configuration = await oidc.discovery(
      server,
      clientId,
      {},
      (server, client, body, headers) =>
        clientAuthentication(this.config, this.#secret())(server, client, body, headers),
      {
        [oidc.customFetch]: this.#libraryFetch(),
        timeout: metadataTimeout / 1000,
        // eslint-disable-next-line @typescript-eslint/no-deprecated -- loopback issuers only; the configuration sees to it
        ...(server.protocol === 'http:' ? { execute: [oidc.allowInsecureRequests] } : {}),
      },
    );
    this.#checkMetadata(configuration.serverMetadata());
    configuration.timeout = timeout / 1000;
    return configuration;
  }

  /** Read at each use: a secret that was replaced in place counts at once. While it is being replaced, the last one does. */
  #secret(): string {
    try {
      this.#lastSecret = this.config.clientSecret.read();
    } catch (error) {
      if (this.#lastSecret === undefined) throw error;
      this.#logger.warn('client_secret_unreadable', { provider: this.name, error });
    }
    return this.#lastSecret;
  }

  #checkMetadata(metadata: oidc.ServerMetadata): void {
    const { issuer, pkceUnadvertised } = this.config;
    if (metadata.issuer !== issuer) {
      throw new UnacceptableMetadataError(`the provider calls itself ${metadata.issuer}`);
    }
    for (const name of USED_ENDPOINTS) {
      const value = metadata[name];
      if (value !== undefined && !(typeof value === 'string' && this.#allows(value))) {
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
    if (pkceUnadvertised === 'refuse' && !advertised) {
      throw new UnacceptableMetadataError(
        'the provider does not advertise PKCE with S256; if it supports it all the same, set pkceUnadvertised: allow',
      );
    }
  }

  /** Our way out, and the token endpoint's answer made plain before the library reads it. */
  #libraryFetch(): oidc.CustomFetch {
    return async (url, options) => {
      const response = await this.#fetch(url, options);
      const isGrant =
        options.method === 'POST' &&
        new URLSearchParams(options.body as URLSearchParams | string).has('grant_type');
      if (!isGrant || response.status !== 200) return response;
      const answer = normaliseTokenAnswer(await response.text());
      if ('fault' in answer) throw new UnusableAnswerError(answer.fault);
      return new Response(answer.body, { status: 200, headers: { 'content-type': 'application/json' } });
    };
  }

  #tokens(answer: oidc.TokenEndpointResponse): TokenAnswer {
    // The library also accepts `DPoP`, which nobody asked for and nobody could use.
    if (answer.token_type !== 'bearer') throw new UnusableAnswerError('token_type is not Bearer');
    const idToken = answer[UNVERIFIED_ID_TOKEN];
    return {
      accessToken: answer.access_token,
      refreshToken: answer.refresh_token,
      idToken: typeof idToken === 'string' ? idToken : undefined,
      scope: answer.scope,
      expiresIn: answer.expires_in,
    };
  }

  #verify(
    configuration: oidc.Configuration,
    idToken: string,
    expected: { accessToken: string; nonce?: string; code?: string; maxAge?: number },
  ): Promise<Claims> {
    const { issuer, clientId, idTokenAlgs, clockTolerance } = this.config;
    const jwksUri = configuration.serverMetadata().jwks_uri ?? '';
    const own = { issuer, clientId, jwksUri, algs: idTokenAlgs, tolerance: clockTolerance };
    return verifyIdToken(idToken, { ...own, ...expected }, this.#keys);
  }

  async #openUserinfo(configuration: oidc.Configuration, token: string): Promise<unknown> {
    const { alg = '', kid } = decodeProtectedHeader(token);
    if (!this.config.idTokenAlgs.includes(alg)) throw new IdTokenError('alg');
    const jwksUri = configuration.serverMetadata().jwks_uri ?? '';
    const header = { alg, ...(kid === undefined ? {} : { kid }) };
    const { payload } = await this.#keys.withKeys(jwksUri, header, (key) =>
      compactVerify(token, key, { algorithms: [alg] }),
    );
    return JSON.parse(Buffer.from(payload).toString('utf8')) as unknown;
  }
}

function clientAuthentication(config: ProviderConfig, secret: string): oidc.ClientAuth {
  if (config.clientAuth === 'client_secret_post') return oidc.ClientSecretPost(secret);
  if (config.clientAuth === 'client_secret_basic') return oidc.ClientSecretBasic(secret);
  // RFC 6749 section 2.3.1 asks for form encoding before Base64; some providers decode Base64 alone.
  const credentials = Buffer.from(`${config.clientId}:${secret}`).toString('base64');
  return (_server, _client, _body, headers) => {
    headers.set('authorization', `Basic ${credentials}`);
  };
}
