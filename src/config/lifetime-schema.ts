import { z } from 'zod';
import { wantedClaims } from './route-require-schema.js';
import { checked, duration, setting } from './setting.js';

const lifetime = checked(
  z.strictObject({
    claims: setting(wantedClaims, {
      description:
        'Whose sessions: those with these claims of the ID token or of userinfo at login, read as in `routes[].require.claims`.',
      example: { roles: ['admin'] },
    }),
    idle: setting(duration('1s', '30d').optional(), {
      description: 'Such a session ends after this long without a request.',
      example: '5m',
    }),
    absolute: setting(duration('1s', '30d').optional(), {
      description: 'Such a session ends this long after login, whatever happens.',
      example: '1h',
    }),
  }),
  ({ idle, absolute }) =>
    idle !== undefined || absolute !== undefined
      ? undefined
      : { problem: 'shortens nothing', remedy: 'write idle or absolute, or remove it' },
).meta({ description: 'Shorter times for some.' });

export const lifetimes = z
  .array(lifetime)
  .prefault([])
  .meta({
    description:
      'Shorter times for the sessions of some, by what the provider says about them at login. Of all that apply, ' +
      '`session.idle` and `session.absolute` included, the shortest counts.',
  });
