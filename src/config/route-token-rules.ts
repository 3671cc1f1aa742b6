import type { LocatedWrong } from './faults.js';
import { isResourceUri } from './route-token-schema.js';
import type { Look } from './settings.js';

/** What a route may want of tokens, depending on whose they are; values as written. */
export function routeTokens(look: Look): LocatedWrong[] {
  const routes = look('routes');
  if (!Array.isArray(routes)) return [];
  return routes.flatMap((_, index) => [
    ...withoutUser(look, index),
    ...whichToken(look, index),
    ...audienceOf(look, index),
  ]);
}

/** A check that never takes place is worse than none: its reader believes in it. */
function withoutUser(look: Look, index: number): LocatedWrong[] {
  const token = look('routes', index, 'token');
  if (token !== 'none' && token !== 'client') return [];
  const wrongs: LocatedWrong[] = [];
  const remedy = 'remove it, or write token: user';
  for (const key of ['exchange', 'introspect']) {
    if (look('routes', index, key) === undefined) continue;
    wrongs.push({
      path: ['routes', index, key],
      problem: `is about the token of whoever is signed in, and token is ${token}`,
      remedy,
    });
  }
  if (token === 'none' && look('routes', index, 'audience') !== undefined) {
    wrongs.push({
      path: ['routes', index, 'audience'],
      problem: 'is that of a token, and with token: none there is none',
      remedy,
    });
  }
  return wrongs;
}

function whichToken(look: Look, index: number): LocatedWrong[] {
  const wrongs: LocatedWrong[] = [];
  const exchange = look('routes', index, 'exchange');
  if (exchange !== undefined && look('routes', index, 'audience') !== undefined) {
    wrongs.push({
      path: ['routes', index, 'exchange'],
      problem: 'stands beside audience, and only one token can go along',
      remedy: 'write exchange: { audience: … } alone, or audience alone',
    });
  }
  const members = ['audience', 'resource', 'scope'];
  if (
    typeof exchange === 'object' &&
    members.every((key) => look('routes', index, 'exchange', key) === undefined)
  ) {
    wrongs.push({
      path: ['routes', index, 'exchange'],
      problem: 'does not say what to exchange the token for',
      remedy: `write some of ${members.join(', ')}`,
    });
  }
  if (look('routes', index, 'clientScope') !== undefined && look('routes', index, 'token') !== 'client') {
    wrongs.push({
      path: ['routes', index, 'clientScope'],
      problem: 'is asked for with client credentials, and token is not client',
      remedy: "remove it, or write token: client; what users' tokens may do is in the provider's scopes",
    });
  }
  return wrongs;
}

/** Every provider whose users may come this way must be able to name the audience. */
function audienceOf(look: Look, index: number): LocatedWrong[] {
  const audience = look('routes', index, 'audience');
  const providers = look('providers');
  if (typeof audience !== 'string' || isResourceUri(audience)) return [];
  if (typeof providers !== 'object' || providers === null) return [];
  const byResource = Object.keys(providers).find(
    (name) => (look('providers', name, 'audienceParameter') ?? 'resource') === 'resource',
  );
  if (byResource === undefined) return [];
  return [
    {
      path: ['routes', index, 'audience'],
      problem: `${JSON.stringify(audience)} is not an absolute URI without a fragment, as the parameter resource must be`,
      remedy: `write one, such as https://orders.example.com, or set providers.${byResource}.audienceParameter: audience`,
    },
  ];
}
