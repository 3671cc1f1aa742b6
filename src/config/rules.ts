import { isLoopbackHost, parseUrl } from './addresses.js';
import { parseDuration } from './duration.js';
import type { LocatedWrong } from './faults.js';
import { adminRules } from './admin-rules.js';
import { frontendRules } from './frontend-rules.js';
import { listenerPorts } from './listener-rules.js';
import { requireRules } from './require-rules.js';
import { routeTokens } from './route-token-rules.js';
import { fallback, type Look, type Path } from './settings.js';

/**
 * Rules between settings. They read the values as written, so that they speak even while another setting of the
 * same block is faulty: all faults are told at once.
 */

export function crossCheck(valueAt: (path: Path) => unknown, folder: string): LocatedWrong[] {
  const look: Look = (...path) => valueAt(path);
  return [
    ...memoryStore(look),
    ...sessionTimes(look),
    ...routePaths(look),
    ...routeSettings(look),
    ...requireRules(look),
    ...routeTokens(look),
    ...ownOrigin(look),
    ...sameProvider(look),
    ...frontendRules(look, folder),
    ...listenerPorts(look),
    ...revocationKeys(look),
    ...clusterDatabase(look),
    ...adminRules(look, folder),
  ];
}

/** Settings of the process that would undo what Cloakroom promises. */
export function checkProcess(env: NodeJS.ProcessEnv): (LocatedWrong & { readonly variable: string })[] {
  const wrongs: (LocatedWrong & { readonly variable: string })[] = [];
  if (env['NODE_TLS_REJECT_UNAUTHORIZED'] === '0') {
    wrongs.push({
      path: [],
      variable: 'NODE_TLS_REJECT_UNAUTHORIZED',
      problem: 'switches off the verification of certificates',
      remedy: 'unset it; NODE_EXTRA_CA_CERTS names a file with further authorities',
    });
  }
  if (/--insecure-http-parser\b/.test(env['NODE_OPTIONS'] ?? '')) {
    wrongs.push({
      path: [],
      variable: 'NODE_OPTIONS',
      problem: 'makes the HTTP parser lenient, which lets requests be smuggled',
      remedy: 'remove --insecure-http-parser',
    });
  }
  return wrongs;
}

function memoryStore(look: Look): LocatedWrong[] {
  const url = look('publicUrl');
  const parsed = typeof url === 'string' ? parseUrl(url) : undefined;
  if (look('store') !== 'memory' || !parsed || isLoopbackHost(parsed.hostname)) return [];
  return [
    {
      path: ['store'],
      problem: 'memory keeps sessions in one process only, and publicUrl is not a loopback host',
      remedy:
        'write store: { redis: { url: … } }, or store: { memory: { singleProcess: true } } if there is one process only',
    },
  ];
}

function sessionTimes(look: Look): LocatedWrong[] {
  const time = (key: string) => {
    const written = look('session', key) ?? fallback('session', key);
    return typeof written === 'string' ? parseDuration(written) : undefined;
  };
  const idle = time('idle');
  const absolute = time('absolute');
  if (idle === undefined || absolute === undefined || idle <= absolute) return [];
  return [
    {
      path: ['session', 'idle'],
      problem: 'is longer than session.absolute, so it would never be reached',
      remedy: 'write an idle time of at most the absolute one, such as idle: 30m and absolute: 12h',
    },
  ];
}

function routePaths(look: Look): LocatedWrong[] {
  const routes = look('routes');
  if (!Array.isArray(routes)) return [];
  const first = new Map<string, number>();
  return routes.flatMap((_, index) => {
    const path = look('routes', index, 'path');
    if (typeof path !== 'string') return [];
    const earlier = first.get(path);
    if (earlier === undefined) first.set(path, index);
    return earlier === undefined
      ? []
      : [
          {
            path: ['routes', index, 'path'],
            problem: `${JSON.stringify(path)} is also the path of routes[${earlier}]`,
            remedy: 'remove one of the two, or give it another path',
          },
        ];
  });
}

/** A setting that would never count is worse than none: its reader believes in it. */
function routeSettings(look: Look): LocatedWrong[] {
  const routes = look('routes');
  if (!Array.isArray(routes)) return [];
  return routes.flatMap((_, index) => {
    const at = (...path: string[]): unknown => look('routes', index, ...path);
    return [...ofNobody(index, at), ...outOfReach(index, at), ...uncached(index, at)];
  });
}

type LookInRoute = (...path: string[]) => unknown;

const OF_A_SESSION = [
  ['limits', 'parallel'],
  ['limits', 'eventStreams'],
  ['limits', 'bandwidth'],
  ['websocket', 'perSession'],
  ['websocket', 'keepsSession'],
];

function ofNobody(index: number, at: LookInRoute): LocatedWrong[] {
  if (at('token') !== 'none') return [];
  return OF_A_SESSION.filter((path) => at(...path) !== undefined).map((path) => ({
    path: ['routes', index, ...path],
    problem: 'is about a session, and with token: none there is no session',
    remedy: 'remove it, or write token: user or token: user-or-none',
  }));
}

function outOfReach(index: number, at: LookInRoute): LocatedWrong[] {
  const [parallel, eventStreams] = [at('limits', 'parallel') ?? 128, at('limits', 'eventStreams')];
  if (typeof eventStreams !== 'number' || typeof parallel !== 'number' || eventStreams <= parallel) return [];
  return [
    {
      path: ['routes', index, 'limits', 'eventStreams'],
      problem: `${eventStreams} is more than parallel, which is ${parallel} and counts them too`,
      remedy: 'write less, or more for parallel',
    },
  ];
}

const CACHING = new Set(['cache-control', 'expires', 'pragma']);

function uncached(index: number, at: LookInRoute): LocatedWrong[] {
  const names = at('headers', 'responseAllow');
  if (!Array.isArray(names) || at('cache') === 'upstream') return [];
  return names.flatMap((name, place) =>
    CACHING.has(String(name).toLowerCase())
      ? [
          {
            path: ['routes', index, 'headers', 'responseAllow', place],
            problem: `${JSON.stringify(name)} passes with cache: upstream alone`,
            remedy: 'write cache: upstream, or remove it',
          },
        ]
      : [],
  );
}

function ownOrigin(look: Look): LocatedWrong[] {
  const origins = look('cors', 'origins');
  const publicUrl = look('publicUrl');
  if (!Array.isArray(origins)) return [];
  const own = typeof publicUrl === 'string' ? parseUrl(publicUrl)?.origin : undefined;
  const written = origins.map((_, index) => look('cors', 'origins', index));
  return written.flatMap((origin, index) => {
    const path = ['cors', 'origins', index];
    const earlier = written.indexOf(origin);
    if (typeof origin !== 'string') return [];
    if (origin === own)
      return [{ path, problem: 'is publicUrl itself', remedy: 'remove it: it needs no leave' }];
    return earlier === index
      ? []
      : [{ path, problem: `is also cors.origins[${earlier}]`, remedy: 'remove one of the two' }];
  });
}

function sameProvider(look: Look): LocatedWrong[] {
  const providers = look('providers');
  if (typeof providers !== 'object' || providers === null) return [];
  const first = new Map<string, string>();
  return Object.keys(providers).flatMap((name) => {
    const issuer = look('providers', name, 'issuer');
    const clientId = look('providers', name, 'clientId');
    if (typeof issuer !== 'string' || typeof clientId !== 'string') return [];
    const identity = JSON.stringify([issuer, clientId]);
    const earlier = first.get(identity);
    if (earlier === undefined) first.set(identity, name);
    return earlier === undefined
      ? []
      : [
          {
            path: ['providers', name],
            problem: `has the issuer and the client id of providers.${earlier}`,
            remedy: 'remove one of the two, or register another client',
          },
        ];
  });
}

function revocationKeys(look: Look): LocatedWrong[] {
  const secrets = look('secrets', 'revocation');
  if (!Array.isArray(secrets) || secrets.length === 0 || look('revocation', 'publicKey') === undefined)
    return [];
  return [
    {
      path: ['revocation', 'publicKey'],
      problem: 'stands beside secrets.revocation, from which the public key follows',
      remedy: 'remove one of the two: the secret where tokens are revoked, the public key everywhere else',
    },
  ];
}

function clusterDatabase(look: Look): LocatedWrong[] {
  const url = look('store', 'redis', 'url');
  if (look('store', 'redis', 'cluster') !== true || typeof url !== 'string') return [];
  const database = parseUrl(url)?.pathname ?? '';
  if (!/^\/[0-9]*[1-9][0-9]*$/.test(database)) return [];
  return [
    {
      path: ['store', 'redis', 'url'],
      problem: `names the database ${database.slice(1)}, and a Redis Cluster has only database 0`,
      remedy: 'leave the number away; prefix keeps the keys of several applications apart',
    },
  ];
}
