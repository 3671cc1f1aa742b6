import { CallbackService } from './auth/callback.service.js';
import { LoginAttempts } from './auth/login-attempts.js';
import { LoginService } from './auth/login.service.js';
import { LogoutService } from './auth/logout.service.js';
import type { Config } from './config/schema.js';
import { HealthService } from './health/health.service.js';
import { TrustedProxies } from './http/client-address.js';
import type { Logger } from './observability/logger.js';
import { Providers } from './oidc/providers.js';
import { Proxy } from './proxy/proxy.js';
import { SessionCookie } from './session/session-cookie.js';
import { SessionCreation } from './session/session-creation.js';
import { SessionsService } from './session/sessions.service.js';
import { MemoryStore } from './store/memory-store.js';
import { OnceRecords } from './store/once-records.js';
import { RedisLink } from './store/redis-link.js';
import { RedisStore } from './store/redis-store.js';
import { Sealer } from './store/sealer.js';
import { SessionRecords } from './store/session-records.js';
import type { Store } from './store/store.js';
import { Refresh } from './tokens/refresh.js';
import { TokensService } from './tokens/tokens.service.js';

export type Services = ReturnType<typeof composeServices>;

/** Everything the server is made of, each part given what it needs: the only place that knows all of them. */
export function composeServices(config: Config, logger: Logger) {
  const store = openStore(config, logger);
  const sealer = new Sealer(config.secrets.seal, store.prefix);
  const records = new SessionRecords(store, sealer, logger);
  const onceRecords = new OnceRecords(store, sealer);
  const trusted = new TrustedProxies(config.listen.trustedProxies);
  const providers = new Providers(config, logger);
  const tokens = new TokensService(providers, new Refresh(records, logger));
  const cookie = new SessionCookie(config);
  const creation = new SessionCreation(config, records);
  const sessions = new SessionsService({ config, records, cookie, creation, tokens, providers, logger });
  const attempts = new LoginAttempts(config, onceRecords);
  const parts = { config, attempts, onceRecords, providers, sessions, cookie, trusted, logger };
  return {
    store,
    trusted,
    providers,
    tokens,
    cookie,
    sessions,
    login: new LoginService(parts),
    callback: new CallbackService(parts),
    logout: new LogoutService(parts),
    health: new HealthService(store, providers),
    proxy: new Proxy(parts),
  };
}

export function openStore(config: Config, logger: Logger): Store {
  if (config.store.kind === 'memory') return new MemoryStore();
  const link = new RedisLink(config.store, logger);
  link.connect();
  return new RedisStore(link, config.store.prefix);
}
