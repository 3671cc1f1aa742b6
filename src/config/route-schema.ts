import { z } from 'zod';
import { parseUrl } from './addresses.js';
import { METHODS } from './config.js';
import { rateSettings } from './rate-schema.js';
import { pageSecurity } from './page-schema.js';
import { elevate, requirement } from './route-require-schema.js';
import { isReservedCookie, isReservedRequestHeader, isReservedResponseHeader } from './reserved.js';
import { routeToken } from './route-token-schema.js';
import { checked, duration, nameList, quote, setting, size } from './setting.js';
import { webUrl } from './web-url.js';

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

/** Origin and, if any is written, path. */
function upstreamParts(text: string): { origin: string; path: string } | undefined {
  const url = parseUrl(text);
  if (url === undefined) return undefined;
  return { origin: url.origin, path: text.slice(text.indexOf('://') + 3).includes('/') ? url.pathname : '' };
}

const upstreams = checked(z.array(upstream).min(1), (written) => {
  const parts = written.map(upstreamParts);
  const [first] = parts;
  for (const [index, part] of parts.entries()) {
    // Faults of an element are told by itself.
    if (part === undefined || first === undefined) continue;
    if (part.path !== first.path) {
      const paths = [first, part].map(({ path }) => (path === '' ? 'no path' : quote(path)));
      return {
        problem: `has ${paths[0] ?? ''} in the first and ${paths[1] ?? ''} in ${quote(written[index] ?? '')}`,
        remedy: `write the same path in all, such as ${quote(`${part.origin}${first.path}`)}`,
      };
    }
    if (parts.findIndex((earlier) => earlier?.origin === part.origin) !== index) {
      return { problem: `names ${quote(part.origin)} twice`, remedy: 'write each upstream once' };
    }
  }
  return undefined;
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

/** `websocket: true` is this with nothing written. */
export const webSocketRules = z.strictObject({
  idle: setting(duration('1s', '24h').prefault('5m'), {
    description:
      'Longest silence in both directions; then the socket is closed with 1001. Pings count as well.',
    example: '5m',
  }),
  perSession: setting(z.int().min(1).max(10_000).prefault(16), {
    description: 'How many one session may have open at once on this route in one process. More are 429.',
    example: 16,
  }),
  keepsSession: setting(z.boolean().prefault(false), {
    description:
      'Whether messages that the browser sends count as use of the session and move its idle expiry, as requests do. Without ' +
      'it only the handshake does. What the browser answers by itself, such as pongs, never counts.',
    example: true,
  }),
});

const route = z
  .strictObject({
    path: setting(routePath, {
      description: 'Prefix of the paths that go to this upstream. The longest matching one wins.',
      example: '/api/',
    }),
    upstream: setting(z.union([upstream, upstreams]), {
      description:
        'Where they go. An origin only (`http://orders:8080`): the path is forwarded unchanged. With a path, which ' +
        "must end with `/`: the route's prefix is replaced by it. A list, with the same path in all: requests go to them in " +
        'turns, and one that cannot be connected to three times in a row rests for 5 s, up to 30 s when that goes on.',
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
    token: setting(z.enum(['user', 'none', 'user-or-none', 'client']).prefault('user'), {
      description:
        'Whose access token goes along. `user`: that of whoever is signed in; nobody else gets through. `none`: no token, and ' +
        'the session is not even looked for, so that everybody gets through. `user-or-none`: the token of whoever is signed ' +
        'in; requests without a session cookie go on without one. A cookie whose session is over is 401 there as well, so ' +
        'that nobody is served as a stranger while believing to be signed in. `client`: whoever is signed in gets through, and ' +
        'the token is the one of the application itself, by client credentials at the provider of the session.',
      example: 'user-or-none',
    }),
    ...routeToken,
    require: requirement,
    elevate,
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
        parallel: setting(z.int().min(1).max(100_000).prefault(128), {
          description:
            'How many requests of one session may be under way at once on this route in one process, open streams included. ' +
            'More are 429. Requests without a session are not counted. The default is what one HTTP/2 connection of a browser ' +
            'carries through most proxies.',
          example: 64,
        }),
        eventStreams: setting(z.int().min(1).max(100_000).prefault(16), {
          description:
            'How many of them may be event streams (`text/event-stream`). More are 429, for which `EventSource` does not try ' +
            'again by itself.',
          example: 8,
        }),
        bandwidth: setting(size('16KiB', '1024GiB').optional(), {
          description:
            'How many bytes a second one session may move on this route in one process: bodies of requests and answers and ' +
            'WebSockets together, and one second of it at once. More waits; nothing is refused. Requests without a session ' +
            'are not counted. Without it, as fast as they come. What waits for longer than `listen.idle` is cut all the same: with a ' +
            'small bandwidth, many requests at once can.',
          example: '10MiB',
        }),
        rate: z
          .strictObject(rateSettings)
          .optional()
          .meta({
            description:
              'How many requests one session may make on this route, over all processes; where nobody is signed in, one client ' +
              'address. More are 429. Without it, as many as it likes.',
          }),
      })
      .prefault({})
      .meta({ description: 'What one caller may ask for.' }),
    websocket: setting(z.union([z.boolean(), webSocketRules]).prefault(false), {
      description:
        'Whether WebSockets may be opened here; `true` is all its settings at their defaults. The `Origin` must be that of ' +
        '`publicUrl` or one of `cors.origins`, whatever `csrf` and `methods` are. The access token goes along in the ' +
        'handshake and nowhere else. The sockets of a session end with it (close code 4401).',
      example: true,
    }),
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
        security: pageSecurity,
      })
      .prefault({})
      .meta({ description: 'Headers that pass besides the standard ones, and those for pages.' }),
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
            'Longest silence of a sender inside a body, in either direction. A browser that pauses reading is not cut for it, but by `listen.idle`.',
          example: '60s',
        }),
      })
      .prefault({})
      .meta({ description: 'Time limits of this route.' }),
  })
  .meta({ description: 'One prefix and its upstream.' });

export const routes = z.array(route).min(1).meta({
  description: 'What is proxied, and where to. Nothing else is: a path without a route is 404.',
});
