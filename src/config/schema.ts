import { z } from 'zod';
import { isHostAndPort, isListenHost, isLoopbackHost, parseAddressRange, parseUrl } from './addresses.js';
import { isAgreementKey } from './agreement-key.js';
import { DURATION_PATTERN, parseDuration } from './duration.js';
import {
  isReservedAuthorizationParameter,
  isReservedCookie,
  isReservedRequestHeader,
  isReservedResponseHeader,
  NAME_TOKEN,
} from './reserved.js';
import { parseSize, SIZE_PATTERN } from './size.js';

// ---------------------------------------------------------------------------------------------------------
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
}
/** What passes the proxy. TRACE and CONNECT never do. */
export const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const;
export interface RouteConfig {
  readonly path: string;
  readonly upstream: string;
  readonly methods: readonly string[];
  readonly token: 'user' | 'none' | 'user-or-none';
  readonly csrf: 'header' | 'origin';
  /** `requestBody` in bytes; undefined: no limit. */
  readonly limits: { readonly requestBody?: number | undefined; readonly parallel: number };
  readonly cache: 'no-store' | 'upstream';
  readonly headers: { readonly requestAllow: readonly string[]; readonly responseAllow: readonly string[] };
  readonly cookies: readonly string[];
  readonly timeouts: { readonly connect: number; readonly firstByte: number; readonly idle: number };
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
export interface Config {
  readonly publicUrl: string;
  readonly secureCookies: boolean;
  readonly listen: {
    readonly host: string;
    readonly port: number;
    readonly trustedProxies: readonly string[];
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
    readonly sameSite: 'strict' | 'lax';
    readonly address: 'off' | 'network' | 'full';
    readonly warnBefore: number;
    readonly freshLoginFor: number;
  };
  readonly me: { readonly anonymous: 'problem' | 'ok'; readonly claims: readonly string[] };
  readonly cors: { readonly origins: readonly string[] };
  readonly routes: readonly RouteConfig[];
  readonly frontend: { readonly folder: string } | undefined;
  readonly admin: AdminConfig | undefined;
  readonly log: { readonly level: 'debug' | 'info' | 'warn' | 'error' };
  readonly shutdown: { readonly delay: number; readonly drain: number };
}

// ---------------------------------------------------------------------------------------------------------
// The file, as written. Everything below is the contract: the JSON Schema, docs/configuration.md, the names
// of the environment variables and every message about a faulty value are made from it.

/** What a setting carries besides its type. `example` also serves as the remedy when a value is missing. */
export interface About {
  readonly description: string;
  readonly example: unknown;
  readonly secret?: boolean;
  /** Values people write that are refused on purpose, with the reason and what to write. */
  readonly refused?: Readonly<Record<string, Wrong>>;
}

export interface Wrong {
  readonly problem: string;
  readonly remedy: string;
}

function setting<S extends z.ZodType>(schema: S, about: About): S {
  return schema.meta({ ...about });
}

/** Adds a rule whose violation names both the problem and what to write. */
function checked<S extends z.ZodType>(schema: S, test: (value: z.output<S>) => Wrong | undefined): S {
  return schema.superRefine((value, context) => {
    const wrong = test(value);
    if (wrong) context.addIssue({ code: 'custom', message: wrong.problem, params: { remedy: wrong.remedy } });
  });
}

function quote(value: string): string {
  return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value);
}

function duration(least: string, most: string) {
  const [low, high] = [parseDuration(least) ?? 0, parseDuration(most) ?? Infinity];
  return z
    .string()
    .meta({ kind: 'duration', pattern: DURATION_PATTERN.source })
    .transform((text, context) => {
      const value = parseDuration(text);
      if (value !== undefined && value >= low && value <= high) return value;
      const problem =
        value === undefined
          ? `${quote(text)} is not a duration`
          : `${text} is too ${value < low ? 'short' : 'long'}`;
      const remedy = `write a whole number and a unit (ms, s, m, h, d), between ${least} and ${most}`;
      context.addIssue({ code: 'custom', message: problem, params: { remedy } });
      return z.NEVER;
    });
}

function size(least: string, most: string) {
  const [low, high] = [parseSize(least) ?? 0, parseSize(most) ?? Infinity];
  return z
    .string()
    .meta({ kind: 'size', pattern: SIZE_PATTERN.source })
    .transform((text, context) => {
      const value = parseSize(text);
      if (value !== undefined && value >= low && value <= high) return value;
      const problem =
        value === undefined
          ? `${quote(text)} is not a size`
          : `${text} is too ${value < low ? 'small' : 'large'}`;
      const remedy = `write a whole number and a unit (B, KiB, MiB, GiB), between ${least} and ${most}`;
      context.addIssue({ code: 'custom', message: problem, params: { remedy } });
      return z.NEVER;
    });
}

function nameList(what: string, test: (name: string) => Wrong | undefined) {
  const name = checked(z.string(), (value) =>
    NAME_TOKEN.test(value)
      ? test(value)
      : {
          problem: `${quote(value)} is not the name of a ${what}`,
          remedy: `name each ${what}; there are no wildcards`,
        },
  );
  return z.array(name).prefault([]);
}

function webUrl(text: string, wants: string): { url: URL } | Wrong {
  const url = parseUrl(text);
  if (!url) return { problem: `${quote(text)} is not a URL`, remedy: `write ${wants}` };
  if (url.username !== '' || url.password !== '') {
    return {
      problem: 'has a user name or password in it',
      remedy: `write ${wants}, without "user:password@"`,
    };
  }
  if (url.protocol !== 'https:' && url.protocol !== 'http:') {
    return { problem: `${quote(text)} is not an http or https URL`, remedy: `write ${wants}` };
  }
  if (url.search !== '' || url.hash !== '' || /[?#]/.test(text)) {
    return {
      problem: `${quote(text)} has a query or a fragment`,
      remedy: `write ${wants}, without "?" and "#"`,
    };
  }
  return { url };
}

function plainHttp(url: URL, text: string): Wrong | undefined {
  if (url.protocol === 'https:' || isLoopbackHost(url.hostname)) return undefined;
  return {
    problem: `${quote(text)} is plain http`,
    remedy: `write https://${url.host}… (http is accepted for localhost, *.localhost, 127.0.0.1 and [::1] only)`,
  };
}

const publicUrl = checked(z.string(), (text) => {
  const parsed = webUrl(text, 'the origin that browsers see, such as https://app.example.com');
  if (!('url' in parsed)) return parsed;
  if (parsed.url.pathname !== '/') {
    return {
      problem: `${quote(text)} has a path`,
      remedy: `write ${parsed.url.origin}: Cloakroom needs an origin of its own`,
    };
  }
  return plainHttp(parsed.url, text);
});

const issuer = checked(z.string(), (text) => {
  const parsed = webUrl(text, "the provider's issuer, such as https://id.example.com/realms/shop");
  if (!('url' in parsed)) return parsed;
  if (text.includes('/.well-known/')) {
    return {
      problem: 'is the address of a metadata document',
      remedy: `write the issuer itself, ${quote(text.slice(0, text.indexOf('/.well-known/')))}`,
    };
  }
  return plainHttp(parsed.url, text);
});

const upstream = checked(z.string(), (text) => {
  const parsed = webUrl(text, 'an origin such as http://orders:8080');
  if (!('url' in parsed)) return parsed;
  const { url } = parsed;
  const written = text.slice(text.indexOf('://') + 3);
  const path = written.includes('/') ? written.slice(written.indexOf('/')) : '';
  if (path !== '' && path !== url.pathname) {
    return { problem: `${quote(text)} has a path that is not canonical`, remedy: `write ${quote(url.href)}` };
  }
  if (path === '' || path.endsWith('/')) return undefined;
  return {
    problem: `${quote(text)} has a path that does not end with "/"`,
    remedy: `write ${quote(`${text}/`)} to replace the route's prefix by it, or only ${quote(url.origin)}`,
  };
});

const ORIGIN_WANTED = 'an origin such as https://app.other.example, exactly as browsers send it';

const crossOrigin = checked(z.string(), (text) => {
  if (text.includes('*')) {
    return {
      problem: `${quote(text)} is a wildcard`,
      remedy: 'write each origin in full: every one of them may act as whoever is signed in',
    };
  }
  if (text === 'null') {
    return {
      problem: 'null is the origin of every sandboxed frame and local file',
      remedy: `write ${ORIGIN_WANTED}`,
    };
  }
  const parsed = webUrl(text, ORIGIN_WANTED);
  if (!('url' in parsed)) return parsed;
  const { url } = parsed;
  if (url.pathname !== '/') return { problem: `${quote(text)} has a path`, remedy: `write ${url.origin}` };
  // Compared as text: what differs only in spelling would never match.
  if (text !== url.origin) {
    return { problem: `${quote(text)} is not written as browsers send it`, remedy: `write ${url.origin}` };
  }
  if (url.hostname.endsWith('.')) {
    return { problem: `${quote(text)} ends with a dot`, remedy: `write ${ORIGIN_WANTED}` };
  }
  return plainHttp(url, text);
});

const PATH_SEGMENT = /^(?!\.{1,2}$)[A-Za-z0-9._~-]+$/;
const OWN_PATHS = ['/auth/', '/livez/', '/readyz/'];

const routePath = checked(z.string(), (path) => {
  const segments = path.split('/').slice(1, -1);
  const bounded = path.startsWith('/') && path.endsWith('/') && path.length > 1;
  if (path === '/') {
    return { problem: '"/" would cover /auth/ and the front end', remedy: 'write a prefix such as /api/' };
  }
  if (!bounded && segments.length === 0 && !/^\/?[A-Za-z0-9._~-]+\/?$/.test(path)) {
    return { problem: `${quote(path)} is not a path`, remedy: 'write a prefix such as /api/' };
  }
  if (!bounded) {
    const fixed = `/${path.replace(/^\/+|\/+$/g, '')}/`;
    return { problem: `${quote(path)} does not start and end with "/"`, remedy: `write ${quote(fixed)}` };
  }
  if (!segments.every((segment) => PATH_SEGMENT.test(segment))) {
    return {
      problem: `${quote(path)} is not canonical`,
      remedy: 'write segments of letters, digits, "-", ".", "_" and "~", without "//", "..", "%", "?" or "*"',
    };
  }
  const own = OWN_PATHS.find((taken) => path.toLowerCase().startsWith(taken));
  if (own === undefined) return undefined;
  return {
    problem: `${quote(path)} lies under ${own.slice(0, -1)}, which Cloakroom answers itself`,
    remedy: 'choose another prefix',
  };
});

const trustedProxy = checked(z.string(), (text) => {
  const range = parseAddressRange(text);
  const remedy = 'write the addresses of your own proxies, such as 10.0.0.0/8 or 127.0.0.1';
  if (!range) return { problem: `${quote(text)} is not an IP address or CIDR range`, remedy };
  return range.bits === 0 ? { problem: `${quote(text)} would believe everybody`, remedy } : undefined;
});

/** `{ file }` or `{ env }`: the place of a secret, never the secret. */
export const secretPlace = checked(
  z.strictObject({
    file: setting(z.string().min(1).optional(), {
      description: 'Path of a file that holds the secret, relative to the configuration file.',
      example: '/run/secrets/name',
    }),
    env: setting(
      z
        .string()
        .regex(/^[A-Za-z_][A-Za-z0-9_]*$/)
        .optional(),
      {
        description: 'Name of an environment variable that holds the secret.',
        example: 'MY_SECRET',
      },
    ),
  }),
  (value) => {
    const given = Object.keys(value).length;
    if (given === 1) return undefined;
    return {
      problem: given === 0 ? 'names neither a file nor a variable' : 'names both a file and a variable',
      remedy: 'write { file: /run/secrets/name } or { env: NAME }',
    };
  },
).meta({ kind: 'secret', oneOf: true, minProperties: 1, maxProperties: 1 });

// The value is never repeated: it may hold a password.
export const NOT_REDIS: Wrong = {
  problem: 'is not a Redis URL',
  remedy:
    'write redis://host:6379 or redis://host:6379/1, or rediss:// for TLS; when it holds a password, percent-encode ' +
    'that and give the URL by { file: … } or { env: … }',
};

export const redisUrl = checked(z.string(), (text) => {
  const url = parseUrl(text);
  const redis = url !== undefined && /^rediss?:$/.test(url.protocol) && url.hostname !== '';
  // The client library takes a query for options, which would override limits and certificate checks.
  const plain = url?.search === '' && url.hash === '' && /^(\/([0-9]+)?)?$/.test(url.pathname);
  return redis && plain ? undefined : NOT_REDIS;
}).meta({ kind: 'Redis URL' });

const store = z.union([
  z.literal('memory'),
  checked(
    z.strictObject({
      memory: z
        .strictObject({
          singleProcess: setting(z.literal(true), {
            description:
              'Says that there is one process only. Needed when publicUrl is not a loopback host: sessions are lost ' +
              'at every restart, and a second replica would not know them.',
            example: true,
          }),
        })
        .optional()
        .meta({ description: 'Sessions in the memory of this process.' }),
      redis: z
        .strictObject({
          url: setting(z.union([redisUrl, secretPlace]), {
            description:
              'Where Redis is: `redis://host:6379/0`, or `rediss://` for TLS. When it holds a password, give the ' +
              'whole URL by `{ file: … }` or `{ env: … }`.',
            example: 'redis://redis:6379',
            secret: true,
          }),
          prefix: setting(
            z
              .string()
              .regex(/^[A-Za-z0-9_.:-]{1,64}$/)
              .prefault('cloakroom'),
            {
              description: 'First part of every key, for a Redis that others use too.',
              example: 'cloakroom',
            },
          ),
          connectTimeout: setting(duration('10ms', '30s').prefault('500ms'), {
            description: 'Longest time for a connection to Redis to be made.',
            example: '500ms',
          }),
          commandTimeout: setting(duration('10ms', '10s').prefault('250ms'), {
            description:
              'Longest wait for the answer to one command. A request then gets 503 and keeps its cookie.',
            example: '250ms',
          }),
          cluster: setting(z.boolean().prefault(false), {
            description:
              'Whether `url` is one node of a Redis Cluster. The other nodes are then found by asking it, and the database is 0.',
            example: true,
          }),
        })
        .optional()
        .meta({ description: 'Sessions in Redis: any number of replicas.' }),
    }),
    (value) =>
      Object.keys(value).length === 1
        ? undefined
        : {
            problem: 'must name exactly one store',
            remedy: 'write memory, or redis: { url: redis://… }',
          },
  ).meta({ oneOf: true, minProperties: 1, maxProperties: 1 }),
]);

const keyList = z.array(secretPlace).min(1);

const provider = z
  .strictObject({
    issuer: setting(issuer, {
      description:
        'The issuer, exactly as the provider states it in its metadata, path and final slash included. https, or ' +
        'http on a loopback host.',
      example: 'https://id.example.com/realms/shop',
    }),
    clientId: setting(z.string().min(1), {
      description: 'The client id that the provider gave this application.',
      example: 'shop-bff',
    }),
    clientSecret: setting(secretPlace, {
      description: 'The client secret. Read at each use, so that it can be replaced without a restart.',
      example: { file: '/run/secrets/client' },
      secret: true,
    }),
    clientAuth: setting(
      z
        .enum(['client_secret_basic', 'client_secret_basic_plain', 'client_secret_post'])
        .prefault('client_secret_basic'),
      {
        description:
          'How the client proves itself. `client_secret_basic` form-encodes id and secret first, as RFC 6749 section ' +
          '2.3.1 says; `client_secret_basic_plain` does not, for providers that expect them as they are.',
        example: 'client_secret_basic',
        refused: {
          none: {
            problem: 'none would make this a public client',
            remedy:
              'register a confidential client and write client_secret_basic or client_secret_post: a server can keep a secret',
          },
        },
      },
    ),
    scopes: setting(
      checked(z.array(z.string().regex(/^[\x21\x23-\x5b\x5d-\x7e]+$/)).prefault(['openid']), (scopes) => {
        if (!scopes.includes('openid')) {
          return {
            problem: 'lacks openid',
            remedy: `write [${['openid', ...scopes].join(', ')}]: without it there is no ID token`,
          };
        }
        const twice = scopes.find((scope, index) => scopes.indexOf(scope) !== index);
        return twice === undefined
          ? undefined
          : { problem: `names ${quote(twice)} twice`, remedy: 'write each scope once' };
      }),
      {
        description:
          'Scopes to ask for. Must contain `openid`; most providers give a refresh token only with `offline_access`.',
        example: ['openid', 'profile', 'email', 'offline_access'],
      },
    ),
    rotation: setting(
      z
        .union([
          z.enum(['strict', 'none']),
          z.strictObject({
            leeway: setting(duration('1s', '10m'), {
              description: 'How long the provider still accepts a refresh token after it was used.',
              example: '30s',
            }),
          }),
        ])
        .prefault('strict'),
      {
        description:
          'How this provider treats a refresh token used twice: `strict` (each works once; a second use may end the ' +
          'session), `none` (it stays valid), `{ leeway: 30s }` (a second use is forgiven for that long). When in doubt, `strict`.',
        example: { leeway: '30s' },
      },
    ),
    timeout: setting(duration('100ms', '60s').prefault('10s'), {
      description: 'Longest wait for the token, revocation and userinfo endpoints.',
      example: '10s',
    }),
    metadataTimeout: setting(duration('100ms', '60s').prefault('3s'), {
      description: "Longest wait for the provider's metadata and keys.",
      example: '3s',
    }),
    endpointHosts: setting(
      z
        .array(
          checked(z.string(), (host) =>
            isHostAndPort(host)
              ? undefined
              : {
                  problem: `${quote(host)} is not a host name`,
                  remedy: 'write host names such as login.example.com, without scheme, path or wildcard',
                },
          ),
        )
        .prefault([]),
      {
        description:
          "Further hosts on which the provider's endpoints may live. Metadata that points anywhere else than here or " +
          "to the issuer's own host is refused.",
        example: ['login.example.com'],
      },
    ),
    idTokenAlgs: setting(
      z
        .array(
          z
            .enum(['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA'])
            .meta({
              refused: Object.fromEntries(
                ['none', 'HS256', 'HS384', 'HS512'].map((alg) => [
                  alg,
                  {
                    problem: `${alg} is refused: ${alg === 'none' ? 'it is no signature' : 'the key would be the client secret'}`,
                    remedy: 'write algorithms with a public key, such as RS256 or ES256',
                  },
                ]),
              ),
            }),
        )
        .min(1)
        .prefault(['RS256', 'PS256', 'ES256', 'EdDSA']),
      { description: 'Signature algorithms accepted on ID tokens.', example: ['RS256', 'ES256'] },
    ),
    clockTolerance: setting(duration('10s', '60s').prefault('30s'), {
      description: "How far the provider's clock may differ from ours.",
      example: '30s',
    }),
    userinfo: setting(z.enum(['off', 'optional', 'required']).prefault('off'), {
      description:
        'Whether claims are also fetched from the userinfo endpoint at login: `off`, `optional` (a failure is logged ' +
        'and ignored) or `required` (a failure refuses the login).',
      example: 'optional',
    }),
    responseMode: setting(z.enum(['query', 'form_post']).prefault('query'), {
      description:
        'How the provider sends the browser back: by a GET with a query, or by a POST with a form.',
      example: 'query',
    }),
    idTokenHint: setting(z.boolean().prefault(true), {
      description:
        'Whether the ID token is sent as `id_token_hint` at logout, which spares a question to the user.',
      example: true,
    }),
    revokeOnLogout: setting(z.boolean().prefault(true), {
      description:
        'Whether the refresh token is revoked at the provider at logout (RFC 7009), where it can be.',
      example: true,
    }),
    backchannelLogout: setting(z.enum(['lenient', 'strict', 'off']).prefault('lenient'), {
      description:
        'Whether the provider may end sessions by calling `POST /auth/backchannel-logout` (OpenID Connect Back-Channel ' +
        'Logout). `lenient` accepts what real providers send, such as a token without `exp`; `strict` holds them to the ' +
        'specification; `off` refuses every call.',
      example: 'lenient',
    }),
    revokeOnBackchannelLogout: setting(z.boolean().prefault(false), {
      description:
        'Whether the refresh token is revoked at the provider when the provider itself ended the session. Most providers ' +
        'revoke it on their own, and some end further sessions of the user when one is revoked.',
      example: true,
    }),
    frontchannelLogout: setting(z.boolean().prefault(false), {
      description:
        'Whether the provider may end a session by loading `/auth/frontchannel-logout` in a frame of the browser (OpenID ' +
        'Connect Front-Channel Logout). Browsers that keep cookies from frames make it unreliable: prefer the back channel.',
      example: true,
    }),
    accessTokenLifetime: setting(duration('1s', '24h').prefault('5m'), {
      description: 'Assumed life of an access token when the provider does not state `expires_in`.',
      example: '5m',
    }),
    pkceUnadvertised: setting(z.enum(['refuse', 'allow']).prefault('refuse'), {
      description:
        'What to do when the metadata does not list S256 in `code_challenge_methods_supported`. PKCE is sent in ' +
        'either case; `allow` accepts that such a provider may ignore it.',
      example: 'refuse',
    }),
    authorizationParameters: setting(
      z
        .record(
          checked(z.string(), (name) => {
            if (!/^[A-Za-z0-9_.-]+$/.test(name)) {
              return {
                problem: 'is not the name of a parameter',
                remedy: 'write letters, digits, "_", "." and "-"',
              };
            }
            return isReservedAuthorizationParameter(name)
              ? { problem: 'is set by Cloakroom itself and cannot be changed here', remedy: 'remove it' }
              : undefined;
          }),
          z.string(),
        )
        .prefault({}),
      {
        description:
          'Constants added to the authorization request, such as `audience`, `resource` or `access_type`.',
        example: { audience: 'https://orders.example.com' },
      },
    ),
  })
  .meta({ description: 'One provider.' });

const route = z
  .strictObject({
    path: setting(routePath, {
      description: 'Prefix of the paths that go to this upstream. The longest matching one wins.',
      example: '/api/',
    }),
    upstream: setting(upstream, {
      description:
        'Where they go. An origin only (`http://orders:8080`): the path is forwarded unchanged. With a path, which ' +
        "must end with `/`: the route's prefix is replaced by it.",
      example: 'http://orders:8080',
    }),
    methods: setting(
      checked(
        z
          .array(
            z.enum(METHODS).meta({
              refused: Object.fromEntries(
                ['TRACE', 'CONNECT'].map((method) => [
                  method,
                  { problem: `${method} never passes`, remedy: `write some of ${METHODS.join(', ')}` },
                ]),
              ),
            }),
          )
          .min(1)
          .prefault([...METHODS]),
        (methods) => {
          const twice = methods.find((method, index) => methods.indexOf(method) !== index);
          return twice === undefined
            ? undefined
            : { problem: `names ${twice} twice`, remedy: 'write each method once' };
        },
      ),
      {
        description:
          'Methods that are forwarded, exactly these: GET does not bring HEAD with it. Any other is 405.',
        example: ['GET', 'POST'],
      },
    ),
    token: setting(z.enum(['user', 'none', 'user-or-none']).prefault('user'), {
      description:
        'Whose access token goes along. `user`: that of whoever is signed in; nobody else gets through. `none`: no token, and ' +
        'the session is not even looked for, so that everybody gets through. `user-or-none`: the token of whoever is signed ' +
        'in; requests without a session cookie go on without one. A cookie whose session is over is 401 there as well, so ' +
        'that nobody is served as a stranger while believing to be signed in.',
      example: 'user-or-none',
    }),
    csrf: setting(z.enum(['header', 'origin']).prefault('header'), {
      description:
        'How a request proves that it comes from the application. `header`: by `X-CSRF: 1`. `origin`: that, or for GET and ' +
        'HEAD the word of the browser (`Sec-Fetch-Site: same-origin`, or an `Origin` of ours), and for other methods the ' +
        '`Origin` of `publicUrl`: for `EventSource`, `<img>`, downloads and forms, which cannot add a header. Applies ' +
        'whatever `token` is.',
      example: 'origin',
    }),
    limits: z
      .strictObject({
        requestBody: setting(size('0B', '1024GiB').optional(), {
          description:
            'Largest body of a request, as it comes over the line. More is 413: before anything is sent on where the length ' +
            'is announced, in the middle where it is not.',
          example: '10MiB',
        }),
        parallel: setting(z.int().min(1).max(100_000).prefault(256), {
          description:
            'How many requests of one session may be under way at once on this route in one process, open streams included. ' +
            'More are 429. Requests without a session are not counted.',
          example: 64,
        }),
      })
      .prefault({})
      .meta({ description: 'What one caller may ask for.' }),
    cache: setting(z.enum(['no-store', 'upstream']).prefault('no-store'), {
      description: 'Whether answers are marked `no-store`, or keep the caching headers of the upstream.',
      example: 'no-store',
    }),
    headers: z
      .strictObject({
        requestAllow: setting(
          nameList('header', (name) =>
            isReservedRequestHeader(name)
              ? { problem: `${quote(name)} never passes from a browser to an upstream`, remedy: 'remove it' }
              : undefined,
          ),
          {
            description:
              'Further request headers that may pass to the upstream. Standard content headers always do.',
            example: ['X-Tenant'],
          },
        ),
        responseAllow: setting(
          nameList('header', (name) =>
            isReservedResponseHeader(name)
              ? {
                  problem: `${quote(name)} never passes from an upstream to a browser`,
                  remedy: /^set-cookie2?$/i.test(name)
                    ? "remove it and name the cookie in the route's cookies"
                    : 'remove it',
                }
              : undefined,
          ),
          {
            description: 'Further response headers that may pass to the browser.',
            example: ['X-Total-Count'],
          },
        ),
      })
      .prefault({})
      .meta({ description: 'Headers that pass besides the standard ones.' }),
    cookies: setting(
      nameList('cookie', (name) =>
        isReservedCookie(name)
          ? {
              problem: `${quote(name)} is a cookie of Cloakroom itself`,
              remedy: 'remove it: it never leaves Cloakroom',
            }
          : undefined,
      ),
      { description: 'Names of cookies that may pass to and from the upstream.', example: ['locale'] },
    ),
    timeouts: z
      .strictObject({
        connect: setting(duration('10ms', '60s').prefault('2s'), {
          description: 'Longest time for a connection to be made.',
          example: '2s',
        }),
        firstByte: setting(duration('10ms', '1h').prefault('30s'), {
          description: 'Longest wait for the head of the answer, once the request is sent.',
          example: '30s',
        }),
        idle: setting(duration('10ms', '24h').prefault('60s'), {
          description:
            'Longest silence of a sender inside a body, in either direction. A browser that pauses reading is not cut.',
          example: '60s',
        }),
      })
      .prefault({})
      .meta({ description: 'Time limits of this route.' }),
  })
  .meta({ description: 'One prefix and its upstream.' });

const ROLE = setting(z.enum(['read', 'end']), {
  description: '`read` may look at sessions, `end` may also end them.',
  example: 'read',
});

// The value is never repeated: it is most likely the token itself.
const NOT_TOKEN_HASH: Wrong = {
  problem: 'is not the SHA-256 of a token, in 64 lower-case hexadecimal digits',
  remedy: '`cloakroom admin-token` makes a token and prints the hash to write here',
};

const NOT_PUBLIC_KEY: Wrong = {
  problem: 'is not an X25519 public key, 32 bytes in base64url',
  remedy: 'write the 43 characters that `cloakroom check` prints where secrets.revocation is given',
};

const admin = z.strictObject({
  host: setting(
    checked(z.string(), (host) =>
      isListenHost(host)
        ? undefined
        : { problem: `${quote(host)} is not an address`, remedy: 'write 127.0.0.1, ::1 or 10.1.2.3' },
    ).prefault('127.0.0.1'),
    {
      description: 'Address to listen on. Any that is not a loopback address needs `tls`.',
      example: '127.0.0.1',
    },
  ),
  port: setting(z.int().min(0).max(65535).prefault(3010), {
    description: 'Port to listen on; 0 takes a free one, which the log names.',
    example: 3010,
  }),
  tokens: z
    .array(
      z
        .strictObject({
          name: setting(z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$/), {
            description: 'Who holds the token, as the audit log will say.',
            example: 'alice',
          }),
          role: ROLE,
          sha256: setting(
            checked(z.string(), (text) => (/^[0-9a-f]{64}$/.test(text) ? undefined : NOT_TOKEN_HASH)),
            {
              description:
                'SHA-256 of the token in 64 lower-case hexadecimal digits. `cloakroom admin-token` makes both; the token ' +
                'itself never stands here.',
              example: '<64 digits, as `cloakroom admin-token` prints them>',
              secret: true,
            },
          ),
        })
        .meta({ description: 'One token.' }),
    )
    .prefault([])
    .meta({ description: 'Tokens that may be shown as `Authorization: Bearer …`.' }),
  tls: z
    .strictObject({
      certificate: setting(z.string().min(1), {
        description: 'PEM file of the certificate and its chain, relative to the configuration file.',
        example: './admin-certificate.pem',
      }),
      key: setting(z.string().min(1), {
        description: 'PEM file of its private key, relative to the configuration file.',
        example: '/run/secrets/admin-key.pem',
      }),
      clientAuthority: setting(z.string().min(1).optional(), {
        description:
          'PEM file of the authority whose client certificates are accepted, relative to the configuration file. It should ' +
          'issue for this purpose only.',
        example: './operators-ca.pem',
      }),
    })
    .optional()
    .meta({ description: 'TLS of the admin listener.' }),
  clients: z
    .array(
      z
        .strictObject({
          name: setting(z.string().regex(/^[\x20-\x7e]{1,64}$/), {
            description: 'Common name (CN) of the client certificate.',
            example: 'incident-bot',
          }),
          role: ROLE,
        })
        .meta({ description: 'One holder of a client certificate.' }),
    )
    .prefault([])
    .meta({ description: 'Client certificates that are accepted instead of a token.' }),
  requestsPerMinute: setting(z.int().min(1).max(100_000).prefault(120), {
    description: 'How many requests each operator, and each address, may make in a minute.',
    example: 120,
  }),
});

export const fileSchema = z.strictObject({
  publicUrl: setting(publicUrl, {
    description:
      'The origin that browsers see. It decides cookie flags and redirect URIs; request headers never do. https, ' +
      'or http on a loopback host.',
    example: 'https://app.example.com',
  }),
  listen: z
    .strictObject({
      host: setting(
        checked(z.string(), (host) =>
          isListenHost(host)
            ? undefined
            : { problem: `${quote(host)} is not an address`, remedy: 'write 0.0.0.0, 127.0.0.1 or ::' },
        ).prefault('0.0.0.0'),
        { description: 'Address to listen on.', example: '127.0.0.1' },
      ),
      port: setting(z.int().min(0).max(65535).prefault(3000), {
        description: 'Port to listen on; 0 takes a free one, which the log names.',
        example: 3000,
      }),
      trustedProxies: setting(z.array(trustedProxy).prefault([]), {
        description:
          'Addresses or CIDR ranges of the proxies in front. `X-Forwarded-For` and `X-Forwarded-Proto` are believed ' +
          'from these only.',
        example: ['10.0.0.0/8'],
      }),
    })
    .prefault({})
    .meta({ description: 'Where Cloakroom listens. Plain HTTP: TLS ends in front of it.' }),
  store: setting(store, {
    description:
      'Where sessions live: `memory` (this process only; for trying things out on a loopback host), ' +
      '`{ memory: { singleProcess: true } }` to say so anywhere else, or `{ redis: { url: … } }`.',
    example: { redis: { url: 'redis://redis:6379' } },
  }),
  secrets: z
    .strictObject({
      cookie: setting(keyList, {
        description: 'Keys that sign cookies. The first signs, all are accepted.',
        example: [{ file: '/run/secrets/cookie' }],
        secret: true,
      }),
      seal: setting(keyList, {
        description: 'Keys that seal what is stored. The first seals, all open.',
        example: [{ env: 'CLOAKROOM_SEAL' }],
        secret: true,
      }),
      revocation: setting(z.array(secretPlace).prefault([]), {
        description:
          'Keys by which this process can read the refresh token of an ended session, to revoke it at the provider while ' +
          "nobody's cookie is at hand. The first is written to, all open. Without any, and without `revocation.publicKey`, " +
          'a forced end leaves the refresh token to expire. Give it to as few processes as possible.',
        example: [{ file: '/run/secrets/revocation' }],
        secret: true,
      }),
    })
    .meta({
      description:
        'Lists, so that each can be rotated. Every secret has at least 32 bytes and all differ; make one with ' +
        '`openssl rand -base64 48`. They are read at start.',
    }),
  revocation: z
    .strictObject({
      publicKey: setting(
        checked(z.string(), (text) => (isAgreementKey(text) ? undefined : NOT_PUBLIC_KEY)).optional(),
        {
          description:
            'Public key (X25519, 32 bytes in base64url) for processes without `secrets.revocation`: they can put refresh ' +
            'tokens away for revocation, and only a process that has the secret can read them. Where the secret is given ' +
            'the key follows from it, and `cloakroom check` prints it.',
          example: '77v3ctzAwThnYAuZOQwVJARiJJlCqoJQ1I33Jo1VJHA',
          secret: true,
        },
      ),
      retryFor: setting(duration('1m', '7d').prefault('24h'), {
        description: 'How long revocation is tried again while the provider cannot be reached.',
        example: '24h',
      }),
    })
    .prefault({})
    .meta({
      description:
        'Revocation of refresh tokens at the provider when a session is ended by an operator or the provider.',
    }),
  providers: checked(
    z.record(
      checked(z.string(), (name) =>
        /^[a-z][a-z0-9-]*$/.test(name)
          ? undefined
          : {
              problem: `${quote(name)} cannot name a provider`,
              remedy: 'write a lower-case letter, then lower-case letters, digits and "-"',
            },
      ),
      provider,
    ),
    (value) =>
      Object.keys(value).length > 0
        ? undefined
        : { problem: 'names no provider', remedy: 'write main: { issuer: …, clientId: …, clientSecret: … }' },
  ).meta({
    keyName: 'name',
    keyStyle: 'dashed',
    description:
      'OpenID providers by name. The callback of the first is `/auth/callback`, of the others `/auth/callback/<name>`; ' +
      'the first serves logins that name none.',
  }),
  session: z
    .strictObject({
      idle: setting(duration('1s', '30d').prefault('30m'), {
        description: 'A session ends after this long without a request.',
        example: '30m',
      }),
      absolute: setting(duration('1s', '30d').prefault('12h'), {
        description: 'A session ends this long after login, whatever happens.',
        example: '12h',
      }),
      sameSite: setting(z.enum(['strict', 'lax']).prefault('strict'), {
        description:
          'The SameSite flag of the session cookie. With `lax`, links from other sites arrive logged in.',
        example: 'strict',
        refused: {
          none: {
            problem: 'none would send the session cookie with requests from every site',
            remedy: 'write strict or lax',
          },
        },
      }),
      address: setting(z.enum(['off', 'network', 'full']).prefault('network'), {
        description:
          "What is remembered of the browser's address for lists of sessions: nothing (`off`), its `network` (the first 24 " +
          'bits of an IPv4 address, 48 of an IPv6 one) or the `full` address.',
        example: 'network',
      }),
      warnBefore: setting(duration('0s', '1d').prefault('2m'), {
        description: 'How long before a session runs out open pages are told so, by `GET /auth/events`.',
        example: '2m',
      }),
      freshLoginFor: setting(duration('0s', '30d').prefault('1h'), {
        description:
          'After an operator or the provider ended a session, how long a login of the same person asks the provider for a ' +
          'fresh sign-in (`prompt=login`), so that single sign-on does not undo the end at once. `0s` never asks.',
        example: '1h',
      }),
    })
    .prefault({})
    .meta({
      description: 'How long sessions live, when their cookie is sent, and what is remembered of them.',
    }),
  me: z
    .strictObject({
      anonymous: setting(z.enum(['problem', 'ok']).prefault('problem'), {
        description:
          'What `GET /auth/me` answers without a session: `problem` (401) or `ok` (200 with `{"authenticated":false}`).',
        example: 'problem',
      }),
      claims: setting(
        z
          .array(z.string().min(1))
          .prefault(['sub', 'name', 'preferred_username', 'email', 'email_verified', 'picture']),
        { description: 'Claims that the page may see.', example: ['sub', 'name', 'email'] },
      ),
    })
    .prefault({})
    .meta({ description: 'What `GET /auth/me` tells the page.' }),
  cors: z
    .strictObject({
      origins: setting(z.array(crossOrigin).prefault([]), {
        description:
          'Origins of front ends that live elsewhere and may call routes, `/auth/me`, `/auth/logout`, `/auth/sessions` and ' +
          '`/auth/events` with credentials. Compared exactly, there are no wildcards. Each can do what the page itself can, ' +
          'so list only what you run yourself. Such a script still sends `X-CSRF: 1`. The session cookie is SameSite: browsers ' +
          'send it only where both sites are the same (https://app.example.com and https://shop.example.com are; ' +
          'https://app.other.example is not), so that a front end on another site is nobody here and gets through only where ' +
          '`token` is `none` or `user-or-none`.',
        example: ['https://shop.example.com'],
      }),
    })
    .prefault({})
    .meta({ description: 'Which other origins may call, besides that of `publicUrl`.' }),
  routes: z.array(route).min(1).meta({
    description: 'What is proxied, and where to. Nothing else is: a path without a route is 404.',
  }),
  frontend: z
    .strictObject({
      folder: setting(z.string().min(1), {
        description: 'Folder of the built front end, relative to the configuration file.',
        example: './public',
      }),
    })
    .optional()
    .meta({
      description: 'Static files served beside the proxy. Without it, something else serves the page.',
    }),
  admin: admin.optional().meta({
    description:
      'A second listener by which operators list and end sessions over HTTP: [admin-api.md](admin-api.md). Without this ' +
      'block there is none. Everybody who calls it shows a token or a client certificate.',
  }),
  log: z
    .strictObject({
      level: setting(z.enum(['debug', 'info', 'warn', 'error']).prefault('info'), {
        description: 'Lowest level that is logged. `debug` adds one line a request.',
        example: 'info',
      }),
    })
    .prefault({})
    .meta({ description: 'JSON lines on standard output.' }),
  shutdown: z
    .strictObject({
      delay: setting(duration('0s', '5m').prefault('5s'), {
        description:
          'After SIGTERM, how long `/readyz` says no while requests are still taken, so that load balancers notice.',
        example: '5s',
      }),
      drain: setting(duration('0s', '10m').prefault('25s'), {
        description: 'Then, how long requests in flight may still run.',
        example: '25s',
      }),
    })
    .prefault({})
    .meta({ description: 'How the process stops.' }),
});

/** The file as it was written, every value checked, durations in milliseconds; secrets are still references. */
export type FileConfig = z.output<typeof fileSchema>;

export type SecretPlace = z.output<typeof secretPlace>;
