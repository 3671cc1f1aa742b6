import type { IncomingMessage } from 'node:http';
import type { Config } from '../config/config.js';
import { CloakroomError } from '../errors.js';
import type { TrustedProxies } from '../http/client-address.js';
import type { Logger } from '../observability/logger.js';

/**
 * Refuses to begin or finish a login over plain http when the public URL is https: the browser would not keep the Secure
 * cookie, and the person would be sent round in circles.
 *
 * @throws {CloakroomError} `insecure-transport`
 */
export function requireSecureTransport(
  request: IncomingMessage,
  config: Config,
  trusted: TrustedProxies,
  logger: Logger,
): void {
  if (!config.secureCookies || trusted.saysHttps(request)) return;
  const peer = request.socket.remoteAddress ?? '';
  logger.warn('insecure_transport', {
    peer,
    remedy: trusted.trusts(peer)
      ? 'the proxy in front must send "X-Forwarded-Proto: https" for requests that came over TLS'
      : 'list the address of the proxy that ends TLS in listen.trustedProxies',
  });
  throw new CloakroomError('insecure-transport');
}
