import { formatDuration, parseDuration } from './duration.js';
import type { LocatedWrong } from './faults.js';
import { fallback, type Look, type Path } from './settings.js';

/** Rules about what routes require, and about session times by claim. */
export function requireRules(look: Look): LocatedWrong[] {
  return [
    ...needSignIn(look),
    ...oneToken(look),
    ...scopesAsked(look),
    ...elevatedScopes(look),
    ...sessionLifetimes(look),
  ];
}

function count(look: Look, ...path: Path): number {
  const list = look(...path);
  return Array.isArray(list) ? list.length : 0;
}

/** Where nobody needs to be signed in, a requirement would be met by leaving the cookie at home. */
function needSignIn(look: Look): LocatedWrong[] {
  const wrongs: LocatedWrong[] = [];
  for (let i = 0; i < count(look, 'routes'); i += 1) {
    const token = look('routes', i, 'token') ?? 'user';
    if (token !== 'none' && token !== 'user-or-none') continue;
    for (const key of ['require', 'elevate']) {
      if (look('routes', i, key) === undefined) continue;
      wrongs.push({
        path: ['routes', i, key],
        problem: `holds for a session, and with token: ${token} requests pass without one`,
        remedy: 'write token: user, or remove it',
      });
    }
  }
  return wrongs;
}

/** An elevated route has the elevated token and no other. */
function oneToken(look: Look): LocatedWrong[] {
  const wrongs: LocatedWrong[] = [];
  for (let i = 0; i < count(look, 'routes'); i += 1) {
    if (look('routes', i, 'elevate') === undefined) continue;
    const others = ['audience', 'exchange'].filter((key) => look('routes', i, key) !== undefined);
    if (look('routes', i, 'token') === 'client') others.push('token: client');
    if (others.length === 0) continue;
    wrongs.push({
      path: ['routes', i, 'elevate'],
      problem: `brings an access token of its own, and so does ${others.join(' and ')}`,
      remedy: 'write one of them',
    });
  }
  return wrongs;
}

/** The scopes that logins ask for; undefined where they cannot be told. */
function askedScopes(look: Look): Map<string, string> | undefined {
  const providers = look('providers');
  if (typeof providers !== 'object' || providers === null) return undefined;
  const asked = new Map<string, string>();
  for (const name of Object.keys(providers)) {
    const scopes = look('providers', name, 'scopes') ?? ['openid'];
    if (!Array.isArray(scopes)) return undefined;
    for (const scope of scopes) asked.set(String(scope), name);
  }
  return asked;
}

function scopesAsked(look: Look): LocatedWrong[] {
  const asked = askedScopes(look);
  if (asked === undefined) return [];
  const wrongs: LocatedWrong[] = [];
  for (let i = 0; i < count(look, 'routes'); i += 1) {
    for (let j = 0; j < count(look, 'routes', i, 'require', 'scopes'); j += 1) {
      const scope = look('routes', i, 'require', 'scopes', j);
      if (typeof scope !== 'string' || /\s/.test(scope) || asked.has(scope)) continue;
      wrongs.push({
        path: ['routes', i, 'require', 'scopes', j],
        problem: `${JSON.stringify(scope)} is asked for by no login, so nobody would get through`,
        remedy: 'add it to the scopes of a provider, or remove it',
      });
    }
  }
  return wrongs;
}

function elevatedScopes(look: Look): LocatedWrong[] {
  const asked = askedScopes(look);
  const first = new Map<string, { route: number; time: unknown }>();
  const wrongs: LocatedWrong[] = [];
  for (let i = 0; i < count(look, 'routes'); i += 1) {
    const scope = look('routes', i, 'elevate', 'scope');
    if (typeof scope !== 'string') continue;
    const provider = asked?.get(scope);
    if (provider !== undefined) {
      wrongs.push({
        path: ['routes', i, 'elevate', 'scope'],
        problem: `${JSON.stringify(scope)} is among the scopes of providers.${provider}, so every session holds it anyway`,
        remedy: 'remove it there, or write require: { scopes: […] } here instead',
      });
    }
    const time = look('routes', i, 'elevate', 'for') ?? '5m';
    const earlier = first.get(scope);
    if (earlier === undefined) first.set(scope, { route: i, time });
    else if (earlier.time !== time) {
      wrongs.push({
        path: ['routes', i, 'elevate', 'for'],
        problem: `differs from that of routes[${earlier.route}], which shares the scope`,
        remedy: 'write the same time for both',
      });
    }
  }
  return wrongs;
}

/** The shortest time counts, so a longer one than that of all sessions would never do anything. */
function sessionLifetimes(look: Look): LocatedWrong[] {
  const time = (...path: Path) => {
    const written = look(...path);
    return typeof written === 'string' ? parseDuration(written) : undefined;
  };
  const wrongs: LocatedWrong[] = [];
  for (const key of ['idle', 'absolute']) {
    const standard = fallback('session', key);
    const general =
      time('session', key) ?? (typeof standard === 'string' ? parseDuration(standard) : undefined);
    for (let i = 0; i < count(look, 'session', 'lifetimes'); i += 1) {
      const path = ['session', 'lifetimes', i, key];
      const own = time(...path);
      if (own === undefined || general === undefined || own < general) continue;
      wrongs.push({
        path,
        problem: `is not shorter than session.${key}, and the shortest counts`,
        remedy: `write less than ${formatDuration(general)}, or remove it`,
      });
    }
  }
  return wrongs;
}
