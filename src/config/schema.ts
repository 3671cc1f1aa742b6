import { z } from 'zod';
import { admin } from './admin-schema.js';
import { cors } from './cors-schema.js';
import { forwardAuth } from './forward-auth-schema.js';
import { frontend } from './frontend-schema.js';
import { lifetimes } from './lifetime-schema.js';
import { listen } from './listen-schema.js';
import { providers } from './provider-schema.js';
import { rateLimits } from './rate-schema.js';
import { routes } from './route-schema.js';
import { revocation, secrets } from './secret-schema.js';
import { checked, duration, quote, setting } from './setting.js';
import { store } from './store-schema.js';
import { plainHttp, webUrl } from './web-url.js';

// The file, as written. This and the schemas of its parts are the contract: the JSON Schema, docs/configuration.md, the
// names of the environment variables and every message about a faulty value are made from them.

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

export const fileSchema = z.strictObject({
  publicUrl: setting(publicUrl, {
    description:
      'The origin that browsers see. It decides cookie flags and redirect URIs; request headers never do. https, ' +
      'or http on a loopback host.',
    example: 'https://app.example.com',
  }),
  listen,
  store,
  secrets,
  revocation,
  providers,
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
      lifetimes,
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
  cors,
  rateLimits,
  routes,
  frontend,
  forwardAuth,
  admin,
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
