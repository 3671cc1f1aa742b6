import { z } from 'zod';
import { checked, duration, setting } from './setting.js';

const requests = z.int().min(1).max(1_000_000);
// Counted in Redis, whose keys of old versions live for whole seconds.
const per = checked(duration('1s', '24h'), (time) =>
  time % 1000 === 0
    ? undefined
    : { problem: 'is not a whole number of seconds', remedy: 'write whole seconds, such as 1s or 2s' },
);

const REQUESTS = { description: 'How many.', example: 100 };
const PER = { description: 'In which time. Whole seconds.', example: '1s' };

/** A rate that is written in full. */
export const rateSettings = { requests: setting(requests, REQUESTS), per: setting(per, PER) };

function endpoint(most: number, description: string) {
  return setting(
    z
      .union([
        z.literal('off'),
        z.strictObject({
          requests: setting(requests.prefault(most), REQUESTS),
          per: setting(per.prefault('1m'), { ...PER, example: '1m' }),
        }),
      ])
      .prefault({}),
    { description: `${description} \`off\`: no limit.`, example: { requests: most, per: '1m' } },
  );
}

export const rateLimits = z
  .strictObject({
    login: endpoint(600, 'Logins begun at `/auth/login`.'),
    callback: endpoint(600, 'Answers of providers that browsers bring to `/auth/callback`.'),
    backchannelLogout: endpoint(
      60,
      'Logout tokens at `/auth/backchannel-logout` that were refused; good ones are not counted.',
    ),
    frontchannelLogout: endpoint(600, 'Requests for `/auth/frontchannel-logout`.'),
  })
  .prefault({})
  .meta({
    description:
      'How often one client address (of IPv6, one /64) may use our own endpoints, over all processes. More are 429 with ' +
      '`Retry-After`. While Redis is away each process counts for itself.',
  });
