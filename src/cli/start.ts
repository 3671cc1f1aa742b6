import type { Server } from 'node:http';
import { createApp } from '../app.js';
import type { AdminConfig, Config, ForwardAuthConfig } from '../config/config.js';
import { Logger } from '../observability/logger.js';
import { createForwardAuthServer } from '../proxy/forward-auth-server.js';
import { ForwardAuth } from '../proxy/forward-auth.js';
import type { Services } from '../services.js';
import { loadModule } from './load-module.js';

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
  const admin = config.admin && {
    address: config.admin,
    server: await loadAdmin(config.admin, services, logger),
  };
  const forwardAuth = config.forwardAuth && {
    address: config.forwardAuth,
    server: createForwardAuth(config, config.forwardAuth, services, logger),
  };
  const refused =
    (await listen(server, config.listen, 'listen.port')) ??
    (admin && (await listen(admin.server, admin.address, 'admin.port'))) ??
    (forwardAuth && (await listen(forwardAuth.server, forwardAuth.address, 'forwardAuth.port')));
  if (refused !== undefined) {
    process.stderr.write(`cloakroom: ${refused}\n`);
    server.close();
    await services.store.close();
    await services.providers.close();
    return 1;
  }
  services.housekeeping.start();
  services.revocations.start();
  if (admin !== undefined) logger.info('admin_listening', { port: portOf(admin.server) });
  if (forwardAuth !== undefined) logger.info('forward_auth_listening', { port: portOf(forwardAuth.server) });
  logger.info('listening', { port: portOf(server), publicUrl: config.publicUrl });

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
  services.proxy.sockets.restart();
  services.events.close();
  await close(server, config.shutdown.drain, () => {
    services.proxy.sockets.cut();
  });
  if (admin !== undefined) await close(admin.server, config.shutdown.drain);
  if (forwardAuth !== undefined) await close(forwardAuth.server, config.shutdown.drain);
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

/** Loaded only where it is configured: the description of its endpoints takes time and memory to make. */
async function loadAdmin(config: AdminConfig, services: Services, logger: Logger): Promise<Server> {
  const { createAdmin } = await loadModule<typeof import('../admin/admin-app.js')>('../admin/admin-app.js');
  return createAdmin(config, services, logger);
}

function createForwardAuth(
  config: Config,
  forwardAuth: ForwardAuthConfig,
  { proxy, cookie, health }: Services,
  logger: Logger,
): Server {
  const { routes, admission } = proxy;
  return createForwardAuthServer({
    config,
    forwardAuth: new ForwardAuth({ config, forwardAuth, routes, admission, logger }),
    cookie,
    isDraining: () => health.draining,
    logger,
  });
}

/** @returns why the address cannot be listened on, and what to do about it */
function listen(
  server: Server,
  { host, port }: { host: string; port: number },
  setting: string,
): Promise<string | undefined> {
  return new Promise((resolve) => {
    server.once('error', ({ code }: NodeJS.ErrnoException) => {
      const address = `${host}:${String(port)}`;
      resolve(
        code === 'EADDRINUSE'
          ? `${address} is already in use; stop what uses it or change ${setting}`
          : `cannot listen on ${address} (${String(code)})`,
      );
    });
    server.listen(port, host, () => {
      server.removeAllListeners('error');
      resolve(undefined);
    });
  });
}

function portOf(server: Server): number | undefined {
  const address = server.address();
  return typeof address === 'object' ? address?.port : undefined;
}

/**
 * Lets running requests finish, then cuts what is left.
 *
 * @param cutOthers for connections that the server has handed over, and does not know any more
 */
async function close(server: Server, drain: number, cutOthers?: () => void): Promise<void> {
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
    cutOthers?.();
  }, drain);
  await closed;
  clearInterval(sweep);
  clearTimeout(cut);
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds).unref());
}
