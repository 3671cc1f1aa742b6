import type { Config } from '../config/config.js';
import { RevocationQueue } from '../endings/revocation-queue.js';
import { Logger } from '../observability/logger.js';
import { Providers } from '../oidc/providers.js';
import { openStore } from '../services.js';
import { RevocationEnvelopes } from '../store/revocation-envelope.js';

const EX_CONFIG = 78;

/**
 * Revokes what sessions left behind, and nothing else: for those who keep the private key away from the servers that
 * browsers reach. Runs until a signal ends it.
 * @returns the exit code
 */
export async function revoker(config: Config): Promise<number> {
  const fault = unfit(config);
  if (fault !== undefined) {
    process.stderr.write(`cloakroom: ${fault}\n`);
    return EX_CONFIG;
  }
  const logger = new Logger(config.log.level);
  const store = openStore(config, logger);
  const providers = new Providers(config, logger);
  const envelopes = new RevocationEnvelopes({
    secrets: config.secrets.revocation,
    publicKey: undefined,
    prefix: store.prefix,
  });
  const queue = new RevocationQueue({ store, envelopes, providers, config, logger });
  const signal = new Promise<string>((resolve) => {
    process.once('SIGTERM', resolve);
    process.once('SIGINT', resolve);
  });
  providers.start();
  queue.start();
  logger.info('revoking', { publicKey: envelopes.publicKey });
  logger.info('draining', { signal: await signal });
  await queue.stop();
  await providers.close();
  await store.close();
  logger.info('stopped');
  await logger.flush();
  return 0;
}

/** What a server can do without, and this process cannot. */
function unfit(config: Config): string | undefined {
  if (config.secrets.revocation.length === 0) {
    return 'secrets.revocation is missing: without the private key nothing can be revoked';
  }
  if (config.store.kind === 'memory') {
    return 'store is memory, which no other process can read: a revoker needs the Redis of its servers';
  }
  return undefined;
}
