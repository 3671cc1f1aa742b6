import { z } from 'zod';
import { checked, duration, quote, setting, type Wrong } from './setting.js';

const SCOPE = /^[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*$/;
const NAME = /^[\x21-\x7e]+$/;

/** RFC 8707 section 2: an absolute URI without a fragment. */
export function isResourceUri(text: string): boolean {
  return /^[A-Za-z][A-Za-z0-9+.-]*:[\x21\x23-\x5b\x5d-\x7e]+$/.test(text) && !text.includes('#');
}

const audienceName = checked(z.string(), (text) => {
  const remedy = 'write it as the provider knows it, such as https://orders.example.com';
  return NAME.test(text) ? undefined : { problem: `${quote(text)} names no audience`, remedy };
});

const resourceUri = checked(z.string(), (text) =>
  isResourceUri(text)
    ? undefined
    : {
        problem: `${quote(text)} is not an absolute URI without a fragment`,
        remedy: 'write one, such as https://orders.example.com',
      },
);

const scope = checked(z.string(), (text): Wrong | undefined =>
  SCOPE.test(text)
    ? undefined
    : {
        problem: `${quote(text)} is no list of scopes`,
        remedy: 'write scopes with one space between them, such as "orders:read orders:write"',
      },
);

/** Settings of a route about the token that goes along with it. */
export const routeToken = {
  audience: setting(audienceName.optional(), {
    description:
      'Whom the access token is for (RFC 8707): it is fetched for this audience alone, with the refresh token of the session ' +
      "or, where `token` is `client`, with the client's own credentials, and renewed on its own. How the provider is told is " +
      "its `audienceParameter`. Without this setting the session's plain access token goes along.",
    example: 'https://orders.example.com',
  }),
  clientScope: setting(scope.optional(), {
    description: 'Scopes to ask for where `token` is `client`, with a space between them.',
    example: 'orders:read orders:write',
  }),
  exchange: z
    .strictObject({
      audience: setting(audienceName.optional(), {
        description: 'Logical name of the service that the exchanged token is for.',
        example: 'orders',
      }),
      resource: setting(resourceUri.optional(), {
        description: 'Address of the service that the exchanged token is for.',
        example: 'https://orders.example.com',
      }),
      scope: setting(scope.optional(), {
        description: 'Scopes of the exchanged token, with a space between them.',
        example: 'orders:read',
      }),
    })
    .optional()
    .meta({
      description:
        'The access token of whoever is signed in is exchanged for another (RFC 8693), and only that one goes along. It is kept ' +
        'sealed with the session until it, or the token it was made from, is renewed. Name at least one of the members.',
    }),
  introspect: setting(duration('1s', '1h').optional(), {
    description:
      'The provider is asked whether the token that goes along is still active (RFC 7662), at most once in this time for each ' +
      'session in each process, and nothing passes without its yes. While the provider is away, that is 503.',
    example: '5s',
  }),
};
