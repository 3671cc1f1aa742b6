import { ClientSecretBasic, ClientSecretPost, type ClientAuth } from 'openid-client';
import type { ProviderConfig } from '../config/config.js';
import type { Logger } from '../observability/logger.js';

/**
 * How we prove to the provider who we are. The secret is read at each use, so that one that was replaced in place counts
 * at once; while it is being replaced, the last one does.
 */
export function clientAuthentication(config: ProviderConfig, logger: Logger): ClientAuth {
  let last: string | undefined;
  const secret = (): string => {
    try {
      last = config.clientSecret.read();
    } catch (error) {
      if (last === undefined) throw error;
      logger.warn('client_secret_unreadable', { provider: config.name, error });
    }
    return last;
  };
  return (server, client, body, headers) => withSecret(config, secret())(server, client, body, headers);
}

function withSecret(config: ProviderConfig, secret: string): ClientAuth {
  if (config.clientAuth === 'client_secret_post') return ClientSecretPost(secret);
  if (config.clientAuth === 'client_secret_basic') return ClientSecretBasic(secret);
  // RFC 6749 section 2.3.1 asks for form encoding before Base64; some providers decode Base64 alone.
  const credentials = Buffer.from(`${config.clientId}:${secret}`).toString('base64');
  return (_server, _client, _body, headers) => {
    headers.set('authorization', `Basic ${credentials}`);
  };
}
