import { createHash, randomBytes } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import {
  newKey,
  publicJwk,
  signJwt,
  type Json,
  type KeyAlg,
  type SigningKey,
  type SigningTrick,
} from './jws.js';
import { Ledger, type CodeRecord, type Endpoint, type Hit, type RefreshTokenRecord } from './ledger.js';
import { closeLater, sleep } from './lifetime.js';
import {
  audienceOf,
  clientCredentials,
  grantOf,
  introspect,
  isKnownAudience,
  tokenExchange,
  type GrantAnswer,
  type TokenFor,
} from './provider-grants.js';
import { runSubfolder, uniqueName } from './run-folder.js';

export type { Json, KeyAlg, SigningTrick } from './jws.js';
export type { Endpoint } from './ledger.js';

/** How a refresh token that was used before is treated. */
export type Rotation =
  /** Any second use kills the family, the fresh tokens too. */
  | 'strict'
  /** Not rotated: the answer carries no refresh token (see `modes.answerRefreshToken`). */
  | 'none'
  /** The old one is deleted only after the new pair was made: concurrent calls can all win. */
  | 'delete_on_use'
  /** The immediately previous token is accepted again for so long; afterwards, or for an older one: as strict. */
  | { leeway: number };

/** How this provider says no to a dead refresh token. */
export type RefusalShape = '400' | '403' | '401-non-oauth' | '401-empty' | '404' | '400-empty' | '400-html';

/** One answer that departs from the ordinary. */
export interface Behaviour {
  /** Which requests take it; others leave it in the queue. */
  when?: (params: URLSearchParams, request: IncomingMessage) => boolean;
  /** How many requests it serves when queued with `next()`. 1 unless told. */
  times?: number;
  /** Milliseconds before anything is looked at or spent. */
  delay?: number;
  /** Milliseconds between the commit (tokens spent and issued) and the answer. */
  delayAfter?: number;
  /** Do the ordinary work (spend, issue) before giving the faulty answer below. */
  commit?: boolean;
  status?: number;
  headers?: Record<string, string | string[]>;
  /** Objects become JSON. */
  body?: string | Buffer | Json;
  /** An OAuth error: `{ error: 'invalid_grant' }` with status 400 unless told; on `authorize`, in the redirect. */
  error?: string;
  errorDescription?: string;
  /** Answer 302 to here. */
  redirect?: string;
  /** Bytes for the socket as they are, then the connection is closed. */
  raw?: string | Buffer;
  /** Cut the connection with a reset instead of answering. */
  reset?: boolean;
  /** Never answer. */
  hang?: boolean;
  /** Send the ordinary answer's head and the first half of its body, then cut. */
  half?: boolean;
  /** Add a member so that the ordinary JSON answer has at least this many bytes. */
  pad?: number;
  /** A gzip-encoded body that unpacks to this many bytes. */
  gzipBomb?: number;
  /** Changes the ordinary JSON answer: metadata, JWKS, token response, userinfo. */
  mutate?: (answer: Json) => Json;
  /** Changes the ID token's claims; undefined values remove a claim. */
  claims?: (claims: Json) => Json;
  /** The ID token's payload as text, instead of JSON made from the claims. */
  payload?: (claims: Json) => string;
  /** Changes the ID token's header before it is signed. */
  header?: (header: Json) => Json;
  signing?: SigningTrick;
  /** Changes the finished ID token. */
  idToken?: (jwt: string) => string;
  /** Changes the authorization response's parameters. */
  response?: (params: URLSearchParams) => URLSearchParams;
  /** Runs after the commit and before the answer, for example to kill a replica. */
  onCommit?: () => void | Promise<void>;
}

/** Answers with a name, to be used with `next('refresh', faults.invalidGrant)` and `modes.always.refresh`. */
export const faults = {
  invalidGrant: { error: 'invalid_grant', errorDescription: 'Unknown or invalid refresh token' },
  forbidden: { status: 403, error: 'invalid_grant', errorDescription: 'Unknown or invalid refresh token.' },
  nonOAuth401: {
    status: 401,
    body: { code: 'E_UNAUTHORIZED', status: 401, message: 'Invalid refresh token' },
  },
  emptyBody: { status: 400, body: '' },
  notFound: { status: 404, body: { error: 'not_found' } },
  invalidClient: { status: 401, error: 'invalid_client' },
  invalidClient400: { status: 400, error: 'invalid_client' },
  tooMany: { status: 429, headers: { 'retry-after': '2' }, body: { error: 'slow_down' } },
  serverError: { status: 500, body: { error: 'server_error' } },
  badGateway: { status: 502, body: '<html>bad gateway</html>', headers: { 'content-type': 'text/html' } },
  unavailable: { status: 503, body: '' },
  html: { status: 200, body: '<!doctype html><p>Welcome</p>', headers: { 'content-type': 'text/html' } },
  reset: { reset: true },
  resetAfterCommit: { reset: true, commit: true },
  serverErrorAfterCommit: { status: 500, body: '', commit: true },
  halfJson: { half: true, commit: true },
  hugeBody: { pad: 2 * 1024 * 1024, commit: true },
  hang: { hang: true },
} as const satisfies Record<string, Behaviour>;

export interface Modes {
  /** Who is signed in at the provider. */
  user: string | ((params: URLSearchParams) => string);
  /** Which client authentication is accepted; `off` accepts anything. */
  clientAuth: 'any' | 'basic' | 'basic_plain' | 'post' | 'off';
  pkce: 'check' | 'ignore';
  /** `iss` in the authorization response: right, absent, or this value. */
  iss: 'on' | 'off' | { wrong: string };
  /** authorization_response_iss_parameter_supported in the metadata. */
  advertiseIss: boolean;
  /** code_challenge_methods_supported in the metadata. */
  advertisePkce: boolean;
  rotation: Rotation;
  refusal: RefusalShape;
  /** Whether revoking a refresh token that was used before still ends the grant, or does nothing (RFC 7009 allows both). */
  revocation: 'family' | 'token';
  accessTokens: 'opaque' | 'jwt';
  /** Seconds an access token is good for, and what `expires_in` says. */
  accessTokenLifetime: number;
  idTokenLifetime: number;
  refreshTokens: 'always' | 'offline_access' | 'never';
  /** Members of the refresh answer. `answerRefreshToken: 'same'` repeats an unrotated token. */
  answerRefreshToken: 'auto' | 'same' | 'never';
  answerIdTokenOnRefresh: boolean;
  answerScopeOnRefresh: boolean;
  atHash: boolean;
  /** Seconds added to this provider's clock. */
  clockOffset: number;
  setCookieOnToken: boolean;
  redirectStatus: 302 | 303 | 307;
  /** Show a page with a button instead of answering the authorization request at once. */
  authorizePage: boolean;
  endSession: { available: boolean; status: 302 | 303 | 307; state: 'echo' | 'omit' | 'other' };
  userinfo: 'json' | 'jwt';
  /** Further claims of the ID token and of userinfo. */
  claims: (sub: string) => Json;
  /** Changes the metadata document. */
  metadata: ((metadata: Json) => Json) | undefined;
  /** Changes the JWKS. */
  jwks: ((jwks: { keys: Json[] }) => { keys: Json[] }) | undefined;
  /** Audiences for which there are tokens; others are refused as `invalid_target`. undefined: any. */
  audiences: string[] | undefined;
  /** Answers for every request that finds nothing in the queue. */
  always: Partial<Record<Endpoint, Behaviour>>;
  /** Where the `jku` and `x5u` tricks point. */
  foreignUrl: string | undefined;
}

export interface ProviderOptions {
  clientId?: string;
  clientSecret?: string;
  /** Of the first signing key. */
  alg?: KeyAlg;
  /** Path of the issuer, for example `/realms/shop`. */
  path?: string;
  host?: string;
  port?: number;
  modes?: Partial<Modes>;
}

interface TokenAnswer {
  status: number;
  headers: Record<string, string | string[]>;
  json: Json;
}

class Refusal extends Error {
  constructor(
    readonly status: number,
    readonly body: Json | string,
    readonly headers: Record<string, string> = {},
  ) {
    super('refused');
  }
}

const oauthError = (error: string, description?: string, status = 400): Refusal =>
  new Refusal(status, { error, ...(description === undefined ? {} : { error_description: description }) });

const MAX_BODY = 1024 * 1024;

export class FaultProvider {
  readonly ledger = new Ledger();
  readonly modes: Modes;
  readonly clientId: string;
  /** `hit` (endpoint), `commit` (endpoint, params) and `answered` (endpoint, status), as they happen. */
  readonly events = new EventEmitter();
  readonly keys: SigningKey[] = [];
  private secret: string;
  private readonly acceptedSecrets = new Set<string>();
  private server: Server | undefined;
  private port: number;
  private readonly host: string;
  private readonly path: string;
  private readonly queues = new Map<Endpoint, Array<{ behaviour: Behaviour; left: number }>>();
  private readonly releases = new Set<() => void>();
  private readonly forget: () => void;

  private constructor(options: ProviderOptions) {
    this.clientId = options.clientId ?? 'cloakroom-test';
    this.secret = options.clientSecret ?? `secret-${randomBytes(24).toString('hex')}`;
    this.acceptedSecrets.add(this.secret);
    this.host = options.host ?? '127.0.0.1';
    this.port = options.port ?? 0;
    this.path = options.path ?? '';
    this.modes = { ...defaultModes(), ...options.modes };
    this.ledger.see('client_secret', this.secret);
    this.forget = closeLater(() => this.close());
  }

  static async start(options: ProviderOptions = {}): Promise<FaultProvider> {
    const provider = new FaultProvider(options);
    provider.keys.push(await newKey(options.alg ?? 'RS256'));
    await provider.start();
    writeFileSync(
      join(runSubfolder('endpoints'), `${uniqueName('provider')}.txt`),
      `${provider.issuer}/logout\n`,
    );
    return provider;
  }

  get origin(): string {
    return `http://${this.host}:${String(this.port)}`;
  }

  get issuer(): string {
    return `${this.origin}${this.path}`;
  }

  get clientSecret(): string {
    return this.secret;
  }

  /** Changes the client's secret here; the old one is refused with `invalid_client` unless kept. */
  setClientSecret(secret: string, { keepOld = false } = {}): void {
    this.secret = secret;
    if (!keepOld) this.acceptedSecrets.clear();
    this.acceptedSecrets.add(secret);
    this.ledger.see('client_secret', secret);
  }

  /** The next request of this kind (or the next `times`) is answered like this. Behaviours queue up. */
  next(endpoint: Endpoint, behaviour: Behaviour): void {
    const queue = this.queues.get(endpoint) ?? [];
    queue.push({ behaviour, left: behaviour.times ?? 1 });
    this.queues.set(endpoint, queue);
  }

  /** Every request of this kind from now on, until `always(endpoint, undefined)`. */
  always(endpoint: Endpoint, behaviour: Behaviour | undefined): void {
    if (behaviour === undefined) Reflect.deleteProperty(this.modes.always, endpoint);
    else this.modes.always[endpoint] = behaviour;
  }

  /** Empties every queue, takes back `always`, lets hanging requests go, and restores the default modes. */
  reset(modes: Partial<Modes> = {}): void {
    this.queues.clear();
    this.release();
    Object.assign(this.modes, defaultModes(), modes);
  }

  /** Cuts requests that `hang`. */
  release(): void {
    for (const release of this.releases) release();
    this.releases.clear();
  }

  /** The newest published key, which signs. */
  get signingKey(): SigningKey {
    const key = this.keys[this.keys.length - 1];
    if (key === undefined) throw new Error('the provider has no key');
    return key;
  }

  /**
   * From now on a new key signs. `dropOld` removes the others from the JWKS; `reuseKid` gives the new key the old
   * one's kid; `publish: false` leaves it out of the JWKS.
   */
  async rotateKeys({
    dropOld = false,
    reuseKid = false,
    publish = true,
    alg = this.signingKey.alg,
  }: { dropOld?: boolean; reuseKid?: boolean; publish?: boolean; alg?: KeyAlg } = {}): Promise<SigningKey> {
    const key = await newKey(alg, reuseKid ? this.signingKey.kid : undefined);
    key.published = publish;
    if (dropOld || reuseKid) for (const old of this.keys) old.published = false;
    this.keys.push(key);
    return key;
  }

  /** One more key in the JWKS that does not sign; with `kid` it can double the signing key's. */
  async publishExtraKey({ alg = 'RS256', kid }: { alg?: KeyAlg; kid?: string } = {}): Promise<SigningKey> {
    const key = await newKey(alg, kid);
    this.keys.unshift(key);
    return key;
  }

  /** Kills every refresh and access token: an administrator's logout, or reuse seen elsewhere. */
  revokeEverything(): void {
    for (const family of this.ledger.families()) this.ledger.revokeFamily(family, 'test');
  }

  /** Stops listening and cuts all connections; `start()` brings it back on the same port with all it knew. */
  async stop(): Promise<void> {
    const { server } = this;
    this.server = undefined;
    this.release();
    if (server === undefined) return;
    const closed = new Promise<void>((resolve) =>
      server.close(() => {
        resolve();
      }),
    );
    server.closeAllConnections();
    await closed;
  }

  async start(): Promise<void> {
    if (this.server !== undefined) return;
    const server = createServer({ keepAliveTimeout: 30_000 }, (request, response) => {
      void this.handle(request, response);
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(this.port, this.host, 1024, resolve);
    });
    this.port = (server.address() as AddressInfo).port;
    this.server = server;
  }

  async close(): Promise<void> {
    this.forget();
    this.ledger.flush();
    await this.stop();
  }

  // --- dispatch -------------------------------------------------------------------------------------------------

  private take(endpoint: Endpoint, params: URLSearchParams, request: IncomingMessage): Behaviour {
    const queue = this.queues.get(endpoint) ?? [];
    for (const [at, entry] of queue.entries()) {
      if (entry.behaviour.when !== undefined && !entry.behaviour.when(params, request)) continue;
      entry.left -= 1;
      if (entry.left <= 0) queue.splice(at, 1);
      return entry.behaviour;
    }
    const always = this.modes.always[endpoint];
    if (always !== undefined && (always.when === undefined || always.when(params, request))) return always;
    return {};
  }

  private async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on('error', () => undefined);
    let hit: Hit | undefined;
    try {
      const url = new URL(request.url ?? '/', this.origin);
      const body = await readBody(request);
      const form = new URLSearchParams(
        (request.headers['content-type'] ?? '').startsWith('application/x-www-form-urlencoded') ? body : '',
      );
      const params = request.method === 'POST' ? form : url.searchParams;
      const endpoint = this.endpointOf(url.pathname, params);
      if (endpoint === undefined) {
        send(response, 404, {}, 'not found');
        return;
      }
      hit = this.ledger.begin(endpoint, params, request.headers);
      const ended = hit;
      response.once('close', () => {
        this.ledger.end(ended, response.headersSent ? response.statusCode : undefined);
        this.events.emit('answered', endpoint, ended.status);
      });
      this.events.emit('hit', endpoint, params);
      const behaviour = this.take(endpoint, params, request);
      await this.answer(endpoint, behaviour, params, request, response);
    } catch (error) {
      if (hit !== undefined) this.ledger.end(hit, 500);
      if (!response.headersSent && !response.destroyed) send(response, 500, {}, `provider: ${String(error)}`);
    }
  }

  private endpointOf(path: string, params: URLSearchParams): Endpoint | undefined {
    if (!path.startsWith(this.path)) return undefined;
    switch (path.slice(this.path.length)) {
      case '/.well-known/openid-configuration':
        return 'discovery';
      case '/jwks':
        return 'jwks';
      case '/authorize':
        return 'authorize';
      case '/token':
        return grantOf(params);
      case '/introspect':
        return 'introspection';
      case '/userinfo':
        return 'userinfo';
      case '/revoke':
        return 'revocation';
      case '/logout':
        return 'end_session';
      default:
        return undefined;
    }
  }

  private async answer(
    endpoint: Endpoint,
    behaviour: Behaviour,
    params: URLSearchParams,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    const deletedLate = this.modes.rotation === 'delete_on_use' && endpoint === 'refresh';
    const early = deletedLate ? this.ledger.refreshTokens.get(params.get('refresh_token') ?? '') : undefined;
    const aliveOnArrival = early !== undefined && early.revokedAt === undefined;
    if (behaviour.delay !== undefined) await sleep(behaviour.delay);
    const faulty =
      behaviour.status !== undefined ||
      behaviour.body !== undefined ||
      behaviour.redirect !== undefined ||
      behaviour.raw !== undefined ||
      behaviour.reset === true ||
      behaviour.hang === true ||
      behaviour.gzipBomb !== undefined ||
      (behaviour.error !== undefined && endpoint !== 'authorize');
    if (faulty && behaviour.commit !== true) {
      await this.misbehave(behaviour, request, response);
      return;
    }

    let answer: TokenAnswer | undefined;
    let refusal: Refusal | undefined;
    try {
      switch (endpoint) {
        case 'discovery':
          answer = json(this.metadata());
          break;
        case 'jwks':
          answer = json(this.jwks());
          break;
        case 'token':
          answer = await this.exchange(params, request, behaviour);
          break;
        case 'refresh':
          answer = await this.refresh(params, request, behaviour, aliveOnArrival);
          break;
        case 'client_credentials':
          this.authenticateClient(params, request);
          answer = this.granted(await clientCredentials(params, this.tokenIssuer()));
          break;
        case 'token_exchange':
          this.authenticateClient(params, request);
          answer = this.granted(await tokenExchange(params, this.tokenIssuer()));
          break;
        case 'introspection':
          this.authenticateClient(params, request);
          answer = json(introspect(params, this.ledger));
          break;
        case 'revocation':
          this.authenticateClient(params, request);
          this.revoke(params.get('token') ?? '');
          answer = { status: 200, headers: {}, json: {} };
          break;
        case 'userinfo':
          answer = this.userinfo(request);
          break;
        case 'authorize':
          this.authorize(params, behaviour, response);
          return;
        case 'end_session':
          this.endSession(params, response);
          return;
      }
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      refusal = error;
    }
    if (refusal === undefined) {
      this.events.emit('commit', endpoint, params);
      await behaviour.onCommit?.();
    }
    if (behaviour.delayAfter !== undefined) await sleep(behaviour.delayAfter);
    if (faulty) {
      await this.misbehave(behaviour, request, response);
      return;
    }
    if (refusal !== undefined || answer === undefined) {
      const { status, body, headers } = refusal ?? new Refusal(500, '');
      send(response, status, headers, body);
      return;
    }
    let document = behaviour.mutate === undefined ? answer.json : behaviour.mutate(answer.json);
    for (const [kind, name] of [
      ['access_token', 'access_token'],
      ['refresh_token', 'refresh_token'],
      ['id_token', 'id_token'],
    ] as const) {
      const value = document[name];
      if (typeof value === 'string') this.ledger.see(kind, value);
    }
    if (behaviour.pad !== undefined) document = { ...document, padding: 'x'.repeat(behaviour.pad) };
    const headers = { ...answer.headers, ...behaviour.headers };
    if (endpoint === 'userinfo' && this.modes.userinfo === 'jwt') {
      const jwt = await signJwt({
        key: this.signingKey,
        payload: { iss: this.issuer, aud: this.clientId, ...document },
        trick: behaviour.signing,
        mutateHeader: behaviour.header,
        clientSecret: this.secret,
      });
      send(response, 200, { ...headers, 'content-type': 'application/jwt' }, jwt);
      return;
    }
    if (behaviour.half === true) {
      const bytes = Buffer.from(JSON.stringify(document));
      response.writeHead(answer.status, {
        'content-type': 'application/json',
        ...headers,
        'content-length': bytes.length,
      });
      response.write(bytes.subarray(0, bytes.length >> 1), () => request.socket.destroy());
      return;
    }
    send(response, answer.status, headers, document);
  }

  private async misbehave(
    behaviour: Behaviour,
    request: IncomingMessage,
    response: ServerResponse,
  ): Promise<void> {
    if (behaviour.hang === true) {
      await new Promise<void>((resolve) => {
        const end = (): void => {
          this.releases.delete(end);
          resolve();
        };
        this.releases.add(end);
        response.once('close', end);
      });
      request.socket.destroy();
      return;
    }
    if (behaviour.reset === true) {
      request.socket.resetAndDestroy();
      return;
    }
    if (behaviour.raw !== undefined) {
      request.socket.end(behaviour.raw);
      return;
    }
    if (behaviour.gzipBomb !== undefined) {
      send(
        response,
        behaviour.status ?? 200,
        { 'content-type': 'application/json', 'content-encoding': 'gzip', ...behaviour.headers },
        gzipSync(Buffer.alloc(behaviour.gzipBomb, 0x20)),
      );
      return;
    }
    if (behaviour.redirect !== undefined) {
      send(response, behaviour.status ?? 302, { location: behaviour.redirect, ...behaviour.headers }, '');
      return;
    }
    const body =
      behaviour.body ??
      (behaviour.error === undefined
        ? ''
        : {
            error: behaviour.error,
            ...(behaviour.errorDescription === undefined
              ? {}
              : { error_description: behaviour.errorDescription }),
          });
    send(
      response,
      behaviour.status ?? (behaviour.error === undefined ? 200 : 400),
      behaviour.headers ?? {},
      body,
    );
  }

  // --- documents ------------------------------------------------------------------------------------------------

  private metadata(): Json {
    const at = this.issuer;
    const document: Json = {
      issuer: at,
      authorization_endpoint: `${at}/authorize`,
      token_endpoint: `${at}/token`,
      userinfo_endpoint: `${at}/userinfo`,
      jwks_uri: `${at}/jwks`,
      revocation_endpoint: `${at}/revoke`,
      introspection_endpoint: `${at}/introspect`,
      ...(this.modes.endSession.available ? { end_session_endpoint: `${at}/logout` } : {}),
      response_types_supported: ['code'],
      response_modes_supported: ['query', 'form_post'],
      grant_types_supported: ['authorization_code', 'refresh_token'],
      subject_types_supported: ['public'],
      scopes_supported: ['openid', 'profile', 'email', 'offline_access'],
      id_token_signing_alg_values_supported: [...new Set(this.keys.map((key) => key.alg))],
      token_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post'],
      ...(this.modes.advertisePkce ? { code_challenge_methods_supported: ['S256'] } : {}),
      ...(this.modes.advertiseIss ? { authorization_response_iss_parameter_supported: true } : {}),
    };
    return this.modes.metadata === undefined ? document : this.modes.metadata(document);
  }

  private jwks(): { keys: Json[] } {
    const document = { keys: this.keys.filter((key) => key.published).map((key) => publicJwk(key) as Json) };
    return this.modes.jwks === undefined ? document : this.modes.jwks(document);
  }

  // --- authorization endpoint -----------------------------------------------------------------------------------

  private authorize(params: URLSearchParams, behaviour: Behaviour, response: ServerResponse): void {
    const redirectUri = params.get('redirect_uri');
    if (params.get('client_id') !== this.clientId || redirectUri === null || !URL.canParse(redirectUri)) {
      send(response, 400, {}, 'unknown client or redirect URI');
      return;
    }
    if (this.modes.authorizePage && params.get('approved') === null) {
      const again = new URLSearchParams(params);
      again.set('approved', '1');
      const link = `${this.path}/authorize?${again.toString()}`
        .replaceAll('&', '&amp;')
        .replaceAll('"', '&quot;');
      const page = `<!doctype html><title>Test provider</title><a id="approve" href="${link}">Sign in</a>`;
      send(response, 200, { 'content-type': 'text/html; charset=utf-8' }, page);
      return;
    }
    let answer = new URLSearchParams();
    if (behaviour.error !== undefined) {
      answer.set('error', behaviour.error);
      if (behaviour.errorDescription !== undefined)
        answer.set('error_description', behaviour.errorDescription);
    } else {
      const { user } = this.modes;
      const record: CodeRecord = {
        code: randomBytes(24).toString('base64url'),
        family: `family-${randomBytes(9).toString('hex')}`,
        // A test's browser may say who it is, so that parallel logins need no shared mode.
        sub: params.get('test_user') ?? (typeof user === 'function' ? user(params) : user),
        redirectUri,
        challenge: params.get('code_challenge') ?? undefined,
        challengeMethod: params.get('code_challenge_method') ?? undefined,
        nonce: params.get('nonce') ?? undefined,
        scope: params.get('scope') ?? 'openid',
        issuedAt: Date.now(),
        spentAt: undefined,
      };
      this.ledger.codes.set(record.code, record);
      this.ledger.see('code', record.code);
      answer.set('code', record.code);
    }
    const state = params.get('state');
    if (state !== null) answer.set('state', state);
    if (this.modes.iss !== 'off')
      answer.set('iss', this.modes.iss === 'on' ? this.issuer : this.modes.iss.wrong);
    if (behaviour.response !== undefined) answer = behaviour.response(answer);

    if (params.get('response_mode') === 'form_post') {
      const fields = [...answer]
        .map(([name, value]) => `<input type="hidden" name="${escape(name)}" value="${escape(value)}">`)
        .join('');
      const page =
        `<!doctype html><title>Submit</title><body onload="document.forms[0].submit()">` +
        `<form method="post" action="${escape(redirectUri)}">${fields}</form>`;
      send(response, 200, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' }, page);
      return;
    }
    const target = new URL(redirectUri);
    for (const [name, value] of answer) target.searchParams.append(name, value);
    send(response, this.modes.redirectStatus, { location: target.href, 'cache-control': 'no-store' }, '');
  }

  // --- token endpoint -------------------------------------------------------------------------------------------

  private authenticateClient(params: URLSearchParams, request: IncomingMessage): void {
    const header = request.headers.authorization;
    let method: 'basic' | 'basic_plain' | 'post' | 'none' = 'none';
    let ok = false;
    const matches = (id: string, secret: string): boolean => {
      this.ledger.see('client_secret', secret);
      return id === this.clientId && this.acceptedSecrets.has(secret);
    };
    if (header?.startsWith('Basic ') === true) {
      const [id, secret] = splitOnce(Buffer.from(header.slice(6), 'base64').toString('utf8'), ':');
      const decoded = [formDecode(id), formDecode(secret)] as const;
      // RFC 6749 section 2.3.1: both are form-encoded before they are joined. Many providers take them plain.
      const encoded = decoded[0] !== undefined && decoded[1] !== undefined && matches(decoded[0], decoded[1]);
      const plain = matches(id, secret);
      method = encoded ? 'basic' : 'basic_plain';
      ok =
        this.modes.clientAuth === 'basic_plain'
          ? plain
          : encoded || (plain && this.modes.clientAuth === 'any');
      if (this.modes.clientAuth === 'post') ok = false;
    } else if (params.has('client_secret')) {
      method = 'post';
      ok =
        matches(params.get('client_id') ?? '', params.get('client_secret') ?? '') &&
        (this.modes.clientAuth === 'any' || this.modes.clientAuth === 'post');
    }
    this.ledger.clientAuthentications.push(method);
    if (this.modes.clientAuth === 'off') return;
    if (!ok) throw oauthError('invalid_client', 'client authentication failed', 401);
  }

  private async exchange(
    params: URLSearchParams,
    request: IncomingMessage,
    behaviour: Behaviour,
  ): Promise<TokenAnswer> {
    const verifier = params.get('code_verifier');
    if (verifier !== null) this.ledger.see('verifier', verifier);
    this.authenticateClient(params, request);
    if (params.get('grant_type') !== 'authorization_code') throw oauthError('unsupported_grant_type');
    const record = this.ledger.codes.get(params.get('code') ?? '');
    if (record === undefined) throw oauthError('invalid_grant', 'unknown code');
    if (record.spentAt !== undefined) {
      this.ledger.revokeFamily(record.family, 'reuse');
      throw oauthError('invalid_grant', 'code was used before');
    }
    record.spentAt = Date.now();
    if (record.redirectUri !== params.get('redirect_uri'))
      throw oauthError('invalid_grant', 'redirect URI differs');
    if (this.modes.pkce === 'check') {
      const digest = createHash('sha256')
        .update(verifier ?? '')
        .digest('base64url');
      if (record.challengeMethod !== 'S256' || digest !== record.challenge) {
        throw oauthError('invalid_grant', 'PKCE verification failed');
      }
    }
    const grant = {
      family: record.family,
      sub: record.sub,
      scope: record.scope,
      nonce: record.nonce,
      authTime: this.seconds(),
      sid: randomBytes(12).toString('hex'),
    };
    const accessToken = await this.newAccessToken(grant);
    const wanted =
      this.modes.refreshTokens === 'always' ||
      (this.modes.refreshTokens === 'offline_access' && record.scope.split(' ').includes('offline_access'));
    const refreshToken = wanted ? this.newRefreshToken(grant).token : undefined;
    const idToken = await this.newIdToken(grant, accessToken, behaviour);
    return this.tokenAnswer({
      access_token: accessToken,
      token_type: 'Bearer',
      expires_in: this.modes.accessTokenLifetime,
      ...(refreshToken === undefined ? {} : { refresh_token: refreshToken }),
      id_token: idToken,
      scope: record.scope,
    });
  }

  private async refresh(
    params: URLSearchParams,
    request: IncomingMessage,
    behaviour: Behaviour,
    aliveOnArrival: boolean,
  ): Promise<TokenAnswer> {
    const presented = params.get('refresh_token') ?? '';
    this.authenticateClient(params, request);
    const record = this.ledger.refreshTokens.get(presented);
    if (record === undefined) throw this.refuse('unknown refresh token');
    if (!isKnownAudience(params, this.modes.audiences)) throw oauthError('invalid_target');
    const at = Date.now();
    const first = record.spentAt[0];
    record.spentAt.push(at);
    const { rotation } = this.modes;

    if (first !== undefined && rotation !== 'none') {
      const accepted = this.secondUseAccepted(record, first, at, aliveOnArrival);
      this.ledger.doubleSpends.push({
        token: presented,
        family: record.family,
        at,
        after: at - first,
        accepted,
      });
      if (!accepted) {
        if (rotation !== 'delete_on_use') this.ledger.revokeFamily(record.family, 'reuse');
        throw this.refuse('refresh token was used before');
      }
    } else if (record.revokedAt !== undefined) {
      throw this.refuse('refresh token is revoked');
    }

    const answer: Json = {};
    if (rotation === 'none') {
      if (this.modes.answerRefreshToken === 'same') answer['refresh_token'] = presented;
    } else {
      const fresh = this.newRefreshToken(record);
      record.successor = fresh.token;
      if (rotation === 'delete_on_use') {
        record.revokedAt ??= at;
        record.revokedBy ??= 'delete';
      }
      if (this.modes.answerRefreshToken !== 'never') answer['refresh_token'] = fresh.token;
    }
    const accessToken = await this.newAccessToken({ ...record, audience: audienceOf(params) });
    if (this.modes.answerIdTokenOnRefresh) {
      answer['id_token'] = await this.newIdToken({ ...record, nonce: undefined }, accessToken, behaviour);
    }
    if (this.modes.answerScopeOnRefresh) answer['scope'] = record.scope;
    return this.tokenAnswer({
      access_token: accessToken,
      token_type: 'Bearer',
      expires_in: this.modes.accessTokenLifetime,
      ...answer,
    });
  }

  private secondUseAccepted(
    record: RefreshTokenRecord,
    first: number,
    at: number,
    aliveOnArrival: boolean,
  ): boolean {
    const { rotation } = this.modes;
    if (rotation === 'delete_on_use') return aliveOnArrival;
    if (record.revokedAt !== undefined) return false;
    if (typeof rotation !== 'object' || at - first > rotation.leeway) return false;
    // Only the immediately previous token: its successor must not have been used yet.
    const successor =
      record.successor === undefined ? undefined : this.ledger.refreshTokens.get(record.successor);
    return successor === undefined || successor.spentAt.length === 0;
  }

  private refuse(description: string): Refusal {
    switch (this.modes.refusal) {
      case '400':
        return oauthError('invalid_grant', description);
      case '403':
        return oauthError('invalid_grant', description, 403);
      case '401-non-oauth':
        return new Refusal(401, { code: 'E_UNAUTHORIZED', status: 401, message: 'Invalid refresh token' });
      case '401-empty':
        return new Refusal(401, '');
      case '404':
        return new Refusal(404, { code: 'E_NOT_FOUND', status: 404, message: 'Not found' });
      case '400-empty':
        return new Refusal(400, '');
      case '400-html':
        return new Refusal(400, '<!doctype html><p>Bad request</p>', { 'content-type': 'text/html' });
    }
  }

  private tokenAnswer(document: Json): TokenAnswer {
    const headers: Record<string, string> = { 'cache-control': 'no-store', pragma: 'no-cache' };
    if (this.modes.setCookieOnToken) {
      headers['set-cookie'] = `PROVIDER_IDENTITY=${String(document['access_token'])}; Path=/`;
    }
    return { status: 200, headers, json: document };
  }

  private seconds(): number {
    return Math.floor(Date.now() / 1000) + this.modes.clockOffset;
  }

  private tokenIssuer() {
    const { clientId, ledger } = this;
    const { audiences } = this.modes;
    return { clientId, ledger, audiences, issue: (token: TokenFor) => this.newAccessToken(token) };
  }

  private granted(answer: GrantAnswer): TokenAnswer {
    if ('refusal' in answer) throw oauthError(String(answer['refusal']));
    const lifetime = this.modes.accessTokenLifetime;
    return this.tokenAnswer({ token_type: 'Bearer', expires_in: lifetime, ...answer });
  }

  private async newAccessToken(grant: TokenFor): Promise<string> {
    const payload: Json = {
      iss: this.issuer,
      aud: grant.audience ?? 'api',
      sub: grant.sub,
      client_id: this.clientId,
      scope: grant.scope,
      iat: this.seconds(),
      exp: this.seconds() + this.modes.accessTokenLifetime,
      jti: randomBytes(16).toString('hex'),
    };
    const token =
      this.modes.accessTokens === 'opaque'
        ? `at-${randomBytes(32).toString('base64url')}`
        : await signJwt({
            key: this.signingKey,
            header: { typ: 'at+jwt' },
            payload,
          });
    this.ledger.accessTokens.set(token, {
      token,
      family: grant.family,
      sub: grant.sub,
      scope: grant.scope,
      audience: grant.audience,
      issuedAt: Date.now(),
      expiresAt: Date.now() + this.modes.accessTokenLifetime * 1000,
      revokedAt: undefined,
    });
    this.ledger.see('access_token', token);
    return token;
  }

  private newRefreshToken(grant: {
    family: string;
    sub: string;
    scope: string;
    nonce: string | undefined;
    authTime: number;
    sid: string;
  }): RefreshTokenRecord {
    const record: RefreshTokenRecord = {
      token: `rt-${randomBytes(32).toString('base64url')}`,
      family: grant.family,
      sub: grant.sub,
      scope: grant.scope,
      nonce: grant.nonce,
      authTime: grant.authTime,
      sid: grant.sid,
      issuedAt: Date.now(),
      spentAt: [],
      successor: undefined,
      revokedAt: undefined,
      revokedBy: undefined,
    };
    this.ledger.refreshTokens.set(record.token, record);
    this.ledger.see('refresh_token', record.token);
    return record;
  }

  private async newIdToken(
    grant: { sub: string; nonce: string | undefined; authTime: number; sid: string },
    accessToken: string,
    behaviour: Behaviour,
  ): Promise<string> {
    const now = this.seconds();
    let claims: Json = {
      iss: this.issuer,
      aud: this.clientId,
      sub: grant.sub,
      iat: now,
      exp: now + this.modes.idTokenLifetime,
      auth_time: grant.authTime,
      ...(grant.nonce === undefined ? {} : { nonce: grant.nonce }),
      ...(this.modes.atHash ? { at_hash: leftHalf(accessToken, this.signingKey.alg) } : {}),
      sid: grant.sid,
      ...this.modes.claims(grant.sub),
      jti: randomBytes(16).toString('hex'),
    };
    if (behaviour.claims !== undefined) claims = behaviour.claims(claims);
    let jwt = await signJwt({
      key: this.signingKey,
      payload: behaviour.payload === undefined ? claims : behaviour.payload(claims),
      trick: behaviour.signing,
      mutateHeader: behaviour.header,
      clientSecret: this.secret,
      ...(this.modes.foreignUrl === undefined ? {} : { foreignUrl: this.modes.foreignUrl }),
    });
    if (behaviour.idToken !== undefined) jwt = behaviour.idToken(jwt);
    this.ledger.see('id_token', jwt);
    return jwt;
  }

  // --- the rest -------------------------------------------------------------------------------------------------

  private userinfo(request: IncomingMessage): TokenAnswer {
    const token = /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1] ?? '';
    const record = this.ledger.validAccessToken(token);
    if (record === undefined) {
      throw new Refusal(401, '', { 'www-authenticate': 'Bearer error="invalid_token"' });
    }
    return json({ sub: record.sub, ...this.modes.claims(record.sub), from_userinfo: true });
  }

  private revoke(token: string): void {
    const refresh = this.ledger.refreshTokens.get(token);
    const spent = refresh?.successor !== undefined;
    if (refresh !== undefined && !(spent && this.modes.revocation === 'token')) {
      this.ledger.revokeFamily(refresh.family, 'endpoint');
    }
    const access = this.ledger.accessTokens.get(token);
    if (access !== undefined) access.revokedAt ??= Date.now();
  }

  private endSession(params: URLSearchParams, response: ServerResponse): void {
    const target = params.get('post_logout_redirect_uri');
    if (target === null || !URL.canParse(target)) {
      send(response, 200, { 'content-type': 'text/html; charset=utf-8' }, '<!doctype html><p>Signed out</p>');
      return;
    }
    const url = new URL(target);
    const state = params.get('state');
    if (this.modes.endSession.state === 'other') url.searchParams.set('state', 'another');
    else if (this.modes.endSession.state === 'echo' && state !== null) url.searchParams.set('state', state);
    send(response, this.modes.endSession.status, { location: url.href }, '');
  }
}

function defaultModes(): Modes {
  return {
    user: 'alice',
    clientAuth: 'any',
    pkce: 'check',
    iss: 'on',
    advertiseIss: true,
    advertisePkce: true,
    rotation: 'strict',
    refusal: '400',
    revocation: 'family',
    accessTokens: 'opaque',
    accessTokenLifetime: 300,
    idTokenLifetime: 300,
    refreshTokens: 'always',
    answerRefreshToken: 'auto',
    answerIdTokenOnRefresh: true,
    answerScopeOnRefresh: true,
    atHash: true,
    clockOffset: 0,
    setCookieOnToken: false,
    redirectStatus: 302,
    authorizePage: false,
    endSession: { available: true, status: 302, state: 'echo' },
    userinfo: 'json',
    claims: (sub) => ({
      name: `${sub.slice(0, 1).toUpperCase()}${sub.slice(1)} Example`,
      preferred_username: sub,
      email: `${sub}@example.test`,
      email_verified: true,
    }),
    metadata: undefined,
    jwks: undefined,
    audiences: undefined,
    always: {},
    foreignUrl: undefined,
  };
}

function json(document: Json): TokenAnswer {
  return { status: 200, headers: {}, json: document };
}

function send(
  response: ServerResponse,
  status: number,
  headers: Record<string, string | string[]>,
  body: string | Buffer | Json,
): void {
  if (response.destroyed) return;
  const bytes =
    typeof body === 'string' || Buffer.isBuffer(body) ? Buffer.from(body) : Buffer.from(JSON.stringify(body));
  const isJson = typeof body === 'object' && !Buffer.isBuffer(body);
  response.writeHead(status, {
    ...(isJson ? { 'content-type': 'application/json' } : {}),
    ...headers,
    'content-length': bytes.length,
  });
  response.end(bytes);
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > MAX_BODY) throw new Error('request body too large');
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator);
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + separator.length)];
}

function formDecode(text: string): string | undefined {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    return undefined;
  }
}

function leftHalf(value: string, alg: KeyAlg): string {
  const digest = createHash(alg === 'EdDSA' || alg === 'RS512' ? 'sha512' : 'sha256')
    .update(value)
    .digest();
  return digest.subarray(0, digest.length / 2).toString('base64url');
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('"', '&quot;').replaceAll('<', '&lt;');
}

export function startProvider(options: ProviderOptions = {}): Promise<FaultProvider> {
  return FaultProvider.start(options);
}
