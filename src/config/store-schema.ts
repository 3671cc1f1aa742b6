import { z } from 'zod';
import { parseUrl } from './addresses.js';
import { secretPlace } from './secret-schema.js';
import { checked, duration, setting, type Wrong } from './setting.js';

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

const place = z.union([
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

export const store = setting(place, {
  description:
    'Where sessions live: `memory` (this process only; for trying things out on a loopback host), ' +
    '`{ memory: { singleProcess: true } }` to say so anywhere else, or `{ redis: { url: … } }`.',
  example: { redis: { url: 'redis://redis:6379' } },
});
