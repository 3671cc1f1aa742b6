import { z } from 'zod';
import { isAgreementKey } from './agreement-key.js';
import { checked, duration, setting, type Wrong } from './setting.js';

/** `{ file }` or `{ env }`: the place of a secret, never the secret. */
export const secretPlace = checked(
  z.strictObject({
    file: setting(z.string().min(1).optional(), {
      description: 'Path of a file that holds the secret, relative to the configuration file.',
      example: '/run/secrets/name',
    }),
    env: setting(
      z
        .string()
        .regex(/^[A-Za-z_][A-Za-z0-9_]*$/)
        .optional(),
      {
        description: 'Name of an environment variable that holds the secret.',
        example: 'MY_SECRET',
      },
    ),
  }),
  (value) => {
    const given = Object.keys(value).length;
    if (given === 1) return undefined;
    return {
      problem: given === 0 ? 'names neither a file nor a variable' : 'names both a file and a variable',
      remedy: 'write { file: /run/secrets/name } or { env: NAME }',
    };
  },
).meta({ kind: 'secret', oneOf: true, minProperties: 1, maxProperties: 1 });

export type SecretPlace = z.output<typeof secretPlace>;

const keyList = z.array(secretPlace).min(1);

export const secrets = z
  .strictObject({
    cookie: setting(keyList, {
      description: 'Keys that sign cookies. The first signs, all are accepted.',
      example: [{ file: '/run/secrets/cookie' }],
      secret: true,
    }),
    seal: setting(keyList, {
      description: 'Keys that seal what is stored. The first seals, all open.',
      example: [{ env: 'CLOAKROOM_SEAL' }],
      secret: true,
    }),
    revocation: setting(z.array(secretPlace).prefault([]), {
      description:
        'Keys by which this process can read the refresh token of an ended session, to revoke it at the provider while ' +
        "nobody's cookie is at hand. The first is written to, all open. Without any, and without `revocation.publicKey`, " +
        'a forced end leaves the refresh token to expire. Give it to as few processes as possible.',
      example: [{ file: '/run/secrets/revocation' }],
      secret: true,
    }),
  })
  .meta({
    description:
      'Lists, so that each can be rotated. Every secret has at least 32 bytes and all differ; make one with ' +
      '`openssl rand -base64 48`. They are read at start.',
  });

const NOT_PUBLIC_KEY: Wrong = {
  problem: 'is not an X25519 public key, 32 bytes in base64url',
  remedy: 'write the 43 characters that `cloakroom check` prints where secrets.revocation is given',
};

export const revocation = z
  .strictObject({
    publicKey: setting(
      checked(z.string(), (text) => (isAgreementKey(text) ? undefined : NOT_PUBLIC_KEY)).optional(),
      {
        description:
          'Public key (X25519, 32 bytes in base64url) for processes without `secrets.revocation`: they can put refresh ' +
          'tokens away for revocation, and only a process that has the secret can read them. Where the secret is given ' +
          'the key follows from it, and `cloakroom check` prints it.',
        example: '77v3ctzAwThnYAuZOQwVJARiJJlCqoJQ1I33Jo1VJHA',
        secret: true,
      },
    ),
    retryFor: setting(duration('1m', '7d').prefault('24h'), {
      description: 'How long revocation is tried again while the provider cannot be reached.',
      example: '24h',
    }),
  })
  .prefault({})
  .meta({
    description:
      'Revocation of refresh tokens at the provider when a session is ended by an operator or the provider.',
  });
