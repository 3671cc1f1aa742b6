import { z } from 'zod';
import { isListenHost, parseAddressRange } from './addresses.js';
import { checked, duration, quote, setting } from './setting.js';

export const trustedProxy = checked(z.string(), (text) => {
  const range = parseAddressRange(text);
  const remedy = 'write the addresses of your own proxies, such as 10.0.0.0/8 or 127.0.0.1';
  if (!range) return { problem: `${quote(text)} is not an IP address or CIDR range`, remedy };
  return range.bits === 0 ? { problem: `${quote(text)} would believe everybody`, remedy } : undefined;
});

export const listen = z
  .strictObject({
    host: setting(
      checked(z.string(), (host) =>
        isListenHost(host)
          ? undefined
          : { problem: `${quote(host)} is not an address`, remedy: 'write 0.0.0.0, 127.0.0.1 or ::' },
      ).prefault('0.0.0.0'),
      { description: 'Address to listen on.', example: '127.0.0.1' },
    ),
    port: setting(z.int().min(0).max(65535).prefault(3000), {
      description: 'Port to listen on; 0 takes a free one, which the log names.',
      example: 3000,
    }),
    trustedProxies: setting(z.array(trustedProxy).prefault([]), {
      description:
        'Addresses or CIDR ranges of the proxies in front. `X-Forwarded-For` and `X-Forwarded-Proto` are believed ' +
        'from these only.',
      example: ['10.0.0.0/8'],
    }),
    idle: setting(duration('1s', '48h').prefault('10m'), {
      description:
        'A connection on which no byte moves in either direction for this long in the middle of a request or an answer is ' +
        'closed: a browser that stopped reading, a body that never came. Where a route or its WebSockets may be silent for ' +
        'longer, that counts.',
      example: '10m',
    }),
  })
  .prefault({})
  .meta({ description: 'Where Cloakroom listens. Plain HTTP: TLS ends in front of it.' });
