import { z } from 'zod';
import { isListenHost } from './addresses.js';
import { trustedProxy } from './listen-schema.js';
import { checked, quote, setting } from './setting.js';

export const forwardAuth = z
  .strictObject({
    gateway: setting(z.enum(['nginx', 'traefik', 'caddy', 'envoy']), {
      description:
        'Who asks, which says where the method and the path stand that the question is about. `nginx`: in `X-Original-Method` ' +
        'and `X-Original-URI`. `traefik`, `caddy`: in `X-Forwarded-Method` and `X-Forwarded-Uri`. `envoy`: the method is that of ' +
        'the question itself, and the path stands behind `/auth/verify`.',
      example: 'nginx',
    }),
    peers: setting(z.array(trustedProxy).min(1), {
      description:
        'Addresses or CIDR ranges of the gateways. Only the address of the connection counts; for everybody else there is ' +
        'nothing here (404).',
      example: ['10.0.0.0/8'],
    }),
    host: setting(
      checked(z.string(), (host) =>
        isListenHost(host)
          ? undefined
          : { problem: `${quote(host)} is not an address`, remedy: 'write 0.0.0.0, 127.0.0.1 or ::' },
      ).prefault('0.0.0.0'),
      { description: 'Address to listen on.', example: '127.0.0.1' },
    ),
    port: setting(z.int().min(0).max(65535).prefault(3020), {
      description:
        'Port of `GET /auth/verify`, another than that of `listen`: its answers carry access tokens, and no way of a browser may ' +
        'lead here. 0 takes a free one, which the log names.',
      example: 3020,
    }),
  })
  .optional()
  .meta({
    description:
      'A second listener, by which a gateway asks whether a request may pass, and with which token. Without it there is none.',
  });
