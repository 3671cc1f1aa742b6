import { z } from 'zod';
import { isListenHost } from './addresses.js';
import { checked, quote, setting, type Wrong } from './setting.js';

const ROLE = setting(z.enum(['read', 'end']), {
  description: '`read` may look at sessions, `end` may also end them.',
  example: 'read',
});

// The value is never repeated: it is most likely the token itself.
const NOT_TOKEN_HASH: Wrong = {
  problem: 'is not the SHA-256 of a token, in 64 lower-case hexadecimal digits',
  remedy: '`cloakroom admin-token` makes a token and prints the hash to write here',
};

const listener = z.strictObject({
  host: setting(
    checked(z.string(), (host) =>
      isListenHost(host)
        ? undefined
        : { problem: `${quote(host)} is not an address`, remedy: 'write 127.0.0.1, ::1 or 10.1.2.3' },
    ).prefault('127.0.0.1'),
    {
      description: 'Address to listen on. Any that is not a loopback address needs `tls`.',
      example: '127.0.0.1',
    },
  ),
  port: setting(z.int().min(0).max(65535).prefault(3010), {
    description: 'Port to listen on; 0 takes a free one, which the log names.',
    example: 3010,
  }),
  tokens: z
    .array(
      z
        .strictObject({
          name: setting(z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$/), {
            description: 'Who holds the token, as the audit log will say.',
            example: 'alice',
          }),
          role: ROLE,
          sha256: setting(
            checked(z.string(), (text) => (/^[0-9a-f]{64}$/.test(text) ? undefined : NOT_TOKEN_HASH)),
            {
              description:
                'SHA-256 of the token in 64 lower-case hexadecimal digits. `cloakroom admin-token` makes both; the token ' +
                'itself never stands here.',
              example: '<64 digits, as `cloakroom admin-token` prints them>',
              secret: true,
            },
          ),
        })
        .meta({ description: 'One token.' }),
    )
    .prefault([])
    .meta({ description: 'Tokens that may be shown as `Authorization: Bearer …`.' }),
  tls: z
    .strictObject({
      certificate: setting(z.string().min(1), {
        description: 'PEM file of the certificate and its chain, relative to the configuration file.',
        example: './admin-certificate.pem',
      }),
      key: setting(z.string().min(1), {
        description: 'PEM file of its private key, relative to the configuration file.',
        example: '/run/secrets/admin-key.pem',
      }),
      clientAuthority: setting(z.string().min(1).optional(), {
        description:
          'PEM file of the authority whose client certificates are accepted, relative to the configuration file. It should ' +
          'issue for this purpose only.',
        example: './operators-ca.pem',
      }),
    })
    .optional()
    .meta({ description: 'TLS of the admin listener.' }),
  clients: z
    .array(
      z
        .strictObject({
          name: setting(z.string().regex(/^[\x20-\x7e]{1,64}$/), {
            description: 'Common name (CN) of the client certificate.',
            example: 'incident-bot',
          }),
          role: ROLE,
        })
        .meta({ description: 'One holder of a client certificate.' }),
    )
    .prefault([])
    .meta({ description: 'Client certificates that are accepted instead of a token.' }),
  requestsPerMinute: setting(z.int().min(1).max(100_000).prefault(120), {
    description: 'How many requests each operator, and each address, may make in a minute.',
    example: 120,
  }),
});

export const admin = listener.optional().meta({
  description:
    'A second listener by which operators list and end sessions over HTTP: [admin-api.md](admin-api.md). Without this ' +
    'block there is none. Everybody who calls it shows a token or a client certificate.',
});
