import type { Server } from 'node:http';
import { createApp } from '../app.js';
import type { Config } from '../config/schema.js';
import { Logger } from '../observability/logger.js';

/**
 * Runs the server until a signal ends it.
 * @returns the exit code
 */
export async function start(config: Config): Promise<number> {
  const logger = new Logger(config.log.level);
  const { server, services } = await createApp(config, logger);
  services.providers.start();
  services.epoch.start();
  services.live.start();
  try {
    await listen(server, config.listen);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const address = `${config.listen.host}:${String(config.listen.port)}`;
    process.stderr.write(
      code === 'EADDRINUSE'
        ? `cloakroom: ${address} is already in use; stop what uses it or change listen.port\n`
        : `cloakroom: cannot listen on ${address} (${String(code)})\n`,
    );
    await services.store.close();
    await services.providers.close();
    return 1;
  }
  const address = server.address();
  services.housekeeping.start();
  services.revocations.start();
  logger.info('listening', {
    port: typeof address === 'object' ? address?.port : undefined,
    publicUrl: config.publicUrl,
  });

  const signal = await new Promise<string>((resolve) => {
    process.once('SIGTERM', resolve);
    process.once('SIGINT', resolve);
  });
  logger.info('draining', { signal });
  // First the readiness answer, while connections are still accepted: load balancers need a moment to see it.
  services.health.drain();
  await sleep(config.shutdown.delay);
  // Event streams never end by themselves: their readers are told when to come back, which is then another replica.
  services.proxy.streams.hint();
  services.events.close();
  await close(server, config.shutdown.drain);
  await Promise.race([services.tokens.idle(), sleep(config.shutdown.drain)]);
  await services.proxy.routes.close();
  services.live.stop();
  services.epoch.stop();
  services.housekeeping.stop();
  await services.revocations.stop();
  await services.providers.close();
  await services.store.close();
  logger.info('stopped');
  await logger.flush();
  return 0;
}

function listen(server: Server, address: { host: string; port: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(address.port, address.host, () => {
      server.removeListener('error', reject);
      resolve();
    });
  });
}

/** Lets running requests finish, then cuts what is left. */
async function close(server: Server, drain: number): Promise<void> {
  const closed = new Promise<void>((resolve) => {
    server.close(() => {
      resolve();
    });
  });
  // Again and again: a connection whose last request was answered since is kept alive for the next one, which is not wanted.
  const sweep = setInterval(() => {
    server.closeIdleConnections();
  }, 100);
  const cut = setTimeout(() => {
    server.closeAllConnections();
  }, drain);
  await closed;
  clearInterval(sweep);
  clearTimeout(cut);
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds).unref());
}
