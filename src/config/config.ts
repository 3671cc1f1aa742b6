// The configuration as the server uses it: durations in milliseconds, everything frozen.

/** A secret that lives outside the file. Read anew at each call, so that it can be rotated in place. */
export interface SecretRef {
  read(): string;
}
export type Rotation =
  | { readonly policy: 'strict' }
  | { readonly policy: 'none' }
  | { readonly policy: 'leeway'; readonly leeway: number };
export interface ProviderConfig {
  readonly name: string;
  readonly issuer: string;
  readonly clientId: string;
  readonly clientSecret: SecretRef;
  readonly clientAuth: 'client_secret_basic' | 'client_secret_basic_plain' | 'client_secret_post';
  readonly scopes: readonly string[];
  readonly rotation: Rotation;
  readonly timeout: number;
  readonly metadataTimeout: number;
  readonly endpointHosts: readonly string[];
  readonly idTokenAlgs: readonly string[];
  readonly clockTolerance: number;
  readonly userinfo: 'off' | 'optional' | 'required';
  readonly responseMode: 'query' | 'form_post';
  readonly idTokenHint: boolean;
  readonly revokeOnLogout: boolean;
  readonly backchannelLogout: 'lenient' | 'strict' | 'off';
  readonly revokeOnBackchannelLogout: boolean;
  readonly frontchannelLogout: boolean;
  readonly accessTokenLifetime: number;
  readonly pkceUnadvertised: 'refuse' | 'allow';
  readonly authorizationParameters: Readonly<Record<string, string>>;
  readonly audienceParameter: 'resource' | 'audience';
  /** What the routes want of every provider. */
  readonly wanted: WantedOfProvider;
}
export interface WantedOfProvider {
  /** Audiences for which tokens of users are refreshed. */
  readonly audiences: readonly string[];
  readonly introspection: boolean;
  readonly clientCredentials: boolean;
  readonly tokenExchange: boolean;
}
/** RFC 8693 section 2.1. */
export interface ExchangeConfig {
  readonly audience?: string | undefined;
  readonly resource?: string | undefined;
  readonly scope?: string | undefined;
}
/** By name or path of a claim, the values of which one must be there. */
export type WantedClaims = Readonly<Record<string, readonly (string | number | boolean)[]>>;
/** What a session must have shown. `maxAuthAge` in milliseconds. */
export interface RequireConfig {
  readonly scopes?: readonly string[] | undefined;
  readonly claims?: WantedClaims | undefined;
  readonly acr?: readonly string[] | undefined;
  readonly maxAuthAge?: number | undefined;
}
/** What passes the proxy. TRACE and CONNECT never do. */
export const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const;
export interface RouteConfig {
  readonly path: string;
  /** Origins; with a path, which is the same in all of them, it takes the place of the route's. */
  readonly upstreams: readonly string[];
  readonly methods: readonly string[];
  readonly token: 'user' | 'none' | 'user-or-none' | 'client';
  /** undefined: the session's plain access token. */
  readonly audience?: string | undefined;
  readonly clientScope?: string | undefined;
  readonly exchange?: ExchangeConfig | undefined;
  /** Milliseconds. */
  readonly introspect?: number | undefined;
  readonly require?: RequireConfig | undefined;
  /** A scope of its own for some milliseconds. */
  readonly elevate?: { readonly scope: string; readonly for: number } | undefined;
  readonly csrf: 'header' | 'origin';
  /** `requestBody` in bytes, `bandwidth` in bytes a second; undefined: no limit. */
  readonly limits: {
    readonly requestBody?: number | undefined;
    readonly parallel: number;
    readonly eventStreams: number;
    readonly bandwidth?: number | undefined;
    readonly rate?: RateConfig | undefined;
  };
  /** undefined: none are opened here. `idle` in milliseconds. */
  readonly websocket:
    { readonly idle: number; readonly perSession: number; readonly keepsSession: boolean } | undefined;
  readonly cache: 'no-store' | 'upstream';
  readonly headers: {
    readonly requestAllow: readonly string[];
    readonly responseAllow: readonly string[];
    readonly security: {
      readonly frameAncestors: 'none' | 'self';
      readonly referrerPolicy: 'no-referrer' | 'same-origin' | 'strict-origin-when-cross-origin';
    };
  };
  readonly cookies: readonly string[];
  readonly timeouts: { readonly connect: number; readonly firstByte: number; readonly idle: number };
}
export interface FrontendFolder {
  readonly kind: 'folder';
  /** Absolute path. */
  readonly folder: string;
  /** Name of the page in it; undefined: none. */
  readonly fallback: string | undefined;
  /** Or the paths of folders in which everything is, with a slash at both ends. */
  readonly immutable: 'by-name' | readonly string[];
  /** With `{nonce}` where the nonce of an answer goes. */
  readonly csp: string;
}
export type FrontendConfig = FrontendFolder | { readonly kind: 'devServer'; readonly origin: string };
export interface ForwardAuthConfig {
  readonly gateway: 'nginx' | 'traefik' | 'caddy' | 'envoy';
  readonly peers: readonly string[];
  readonly host: string;
  readonly port: number;
}
export type AdminRole = 'read' | 'end';
export interface AdminConfig {
  readonly host: string;
  readonly port: number;
  /** `sha256` is the hash of the token in lower-case hexadecimal digits. */
  readonly tokens: readonly { readonly name: string; readonly role: AdminRole; readonly sha256: string }[];
  /** Absolute paths of PEM files. */
  readonly tls:
    | { readonly certificate: string; readonly key: string; readonly clientAuthority: string | undefined }
    | undefined;
  /** `name` is the common name of a client certificate. */
  readonly clients: readonly { readonly name: string; readonly role: AdminRole }[];
  readonly requestsPerMinute: number;
}
/** So many requests in so many milliseconds. */
export interface RateConfig {
  readonly requests: number;
  readonly per: number;
}
export type EndpointLimit = 'login' | 'callback' | 'backchannelLogout' | 'frontchannelLogout';
export interface Config {
  readonly publicUrl: string;
  readonly secureCookies: boolean;
  readonly listen: {
    readonly host: string;
    readonly port: number;
    readonly trustedProxies: readonly string[];
    readonly idle: number;
  };
  readonly store:
    | { readonly kind: 'memory' }
    | {
        readonly kind: 'redis';
        readonly url: string;
        readonly prefix: string;
        readonly connectTimeout: number;
        readonly commandTimeout: number;
        readonly cluster: boolean;
      };
  readonly secrets: {
    readonly cookie: readonly Buffer[];
    readonly seal: readonly Buffer[];
    readonly revocation: readonly Buffer[];
  };
  readonly revocation: { readonly publicKey: string | undefined; readonly retryFor: number };
  readonly providers: readonly ProviderConfig[];
  readonly session: {
    readonly idle: number;
    readonly absolute: number;
    /** Milliseconds; undefined: as for all. */
    readonly lifetimes: readonly {
      readonly claims: WantedClaims;
      readonly idle?: number | undefined;
      readonly absolute?: number | undefined;
    }[];
    readonly sameSite: 'strict' | 'lax';
    readonly address: 'off' | 'network' | 'full';
    readonly warnBefore: number;
    readonly freshLoginFor: number;
  };
  readonly me: { readonly anonymous: 'problem' | 'ok'; readonly claims: readonly string[] };
  readonly cors: { readonly origins: readonly string[] };
  readonly rateLimits: Readonly<Record<EndpointLimit, RateConfig | 'off'>>;
  readonly routes: readonly RouteConfig[];
  readonly frontend: FrontendConfig | undefined;
  readonly forwardAuth: ForwardAuthConfig | undefined;
  readonly admin: AdminConfig | undefined;
  readonly log: { readonly level: 'debug' | 'info' | 'warn' | 'error' };
  readonly shutdown: { readonly delay: number; readonly drain: number };
}
