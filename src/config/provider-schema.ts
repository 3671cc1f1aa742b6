import { z } from 'zod';
import { isHostAndPort } from './addresses.js';
import { isReservedAuthorizationParameter } from './reserved.js';
import { secretPlace } from './secret-schema.js';
import { checked, duration, quote, setting } from './setting.js';
import { plainHttp, webUrl } from './web-url.js';

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
    audienceParameter: setting(z.enum(['resource', 'audience']).prefault('resource'), {
      description:
        'How this provider is told for whom a token is (`audience` of a route): by the parameter `resource` of RFC 8707, which ' +
        'is then also part of every login, since many give at a refresh only what was asked for there; or by `audience`, which ' +
        'is part of refreshes and client credentials only.',
      example: 'audience',
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

export const providers = checked(
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
});
