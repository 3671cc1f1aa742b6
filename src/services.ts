import { BackchannelLogoutService } from './auth/backchannel-logout.service.js';
import { CallbackService } from './auth/callback.service.js';
import { ElevationService } from './auth/elevation.service.js';
import { EventsService } from './auth/events.service.js';
import { FrontchannelLogoutService } from './auth/frontchannel-logout.service.js';
import { LoginAttempts } from './auth/login-attempts.js';
import { LoginService } from './auth/login.service.js';
import { LogoutService } from './auth/logout.service.js';
import { SessionStart } from './auth/session-start.js';
import { UserSessionsService } from './auth/user-sessions.service.js';
import type { Config } from './config/config.js';
import { AuditLog, SYSTEM } from './endings/audit-log.js';
import { EndingJobs } from './endings/ending-jobs.js';
import { EndingsService } from './endings/endings.service.js';
import { Housekeeping } from './endings/housekeeping.js';
import { IdentityMarks } from './endings/identity-marks.js';
import { LiveSessions } from './endings/live-sessions.js';
import { RevocationQueue } from './endings/revocation-queue.js';
import { SessionDirectory } from './endings/session-directory.js';
import { HealthService } from './health/health.service.js';
import { TrustedProxies } from './http/client-address.js';
import { RateLimits } from './limits/rate-limits.js';
import type { Logger } from './observability/logger.js';
import { Providers } from './oidc/providers.js';
import { Proxy } from './proxy/proxy.js';
import { SessionCookie } from './session/session-cookie.js';
import { SessionCreation } from './session/session-creation.js';
import { SessionsService } from './session/sessions.service.js';
import { MemoryStore } from './store/memory-store.js';
import { OnceRecords } from './store/once-records.js';
import { PolicyEpoch } from './store/policy-epoch.js';
import { RedisLink } from './store/redis-link.js';
import { RedisStore } from './store/redis-store.js';
import { RevocationEnvelopes } from './store/revocation-envelope.js';
import { Sealer } from './store/sealer.js';
import { indexKeys, ServerSeal } from './store/server-seal.js';
import { SessionIndex } from './store/session-index.js';
import { SessionRecords } from './store/session-records.js';
import type { Store } from './store/store.js';
import { ClientTokens } from './tokens/client-tokens.js';
import { Introspection } from './tokens/introspection.js';
import { Refresh } from './tokens/refresh.js';
import { TokensService } from './tokens/tokens.service.js';

export type Services = ReturnType<typeof composeServices>;
export type SessionAdministration = ReturnType<typeof composeAdministration>;

/** Everything the server is made of, each part given what it needs: the only place that knows all of them. */
export function composeServices(config: Config, logger: Logger) {
  const administration = composeAdministration(config, logger);
  const { store, sealer, records, providers, epoch, audit, directory, endings, marks, revocations } =
    administration;
  const onceRecords = new OnceRecords(store, sealer);
  const trusted = new TrustedProxies(config.listen.trustedProxies);
  const refresh = new Refresh(records, epoch, logger, {
    ended: ({ handle, contents }, cause) => {
      endings.noteEnded(handle, contents, { cause, reason: cause, actor: SYSTEM });
    },
    stray: ({ handle, contents }, refreshToken) => {
      const { provider, issuer } = contents;
      void revocations.revokeStray(handle, { provider, issuer, refreshToken });
    },
  });
  const tokens = new TokensService(providers, refresh, new ClientTokens(epoch, logger), epoch);
  const cookie = new SessionCookie(config);
  const creation = new SessionCreation(config, records);
  const live = new LiveSessions(config, store, epoch);
  const shared = { config, store, records, providers, epoch, directory, endings, revocations, logger };
  const sessions = new SessionsService({ ...shared, cookie, creation, tokens });
  const limits = new RateLimits(shared);
  const attempts = new LoginAttempts(config, onceRecords);
  const elevations = new ElevationService(shared);
  const start = new SessionStart({ ...shared, sessions, marks, elevations, trusted });
  const userSessions = new UserSessionsService({ ...shared, sessions, cookie, trusted });
  const longest = Math.max(0, ...config.routes.map(({ introspect = 0 }) => introspect));
  const introspection = new Introspection(longest, logger);
  const parts = {
    ...shared,
    ...{ introspection, userSessions, attempts, start, elevations, onceRecords },
    ...{ sessions, cookie, trusted, live, limits },
  };
  return {
    ...administration,
    trusted,
    tokens,
    cookie,
    sessions,
    live,
    housekeeping: new Housekeeping(endings, audit, directory),
    login: new LoginService(parts),
    callback: new CallbackService(parts),
    logout: new LogoutService(parts),
    userSessions,
    events: new EventsService(parts),
    backchannelLogout: new BackchannelLogoutService(parts),
    frontchannelLogout: new FrontchannelLogoutService(parts),
    health: new HealthService(store, providers),
    proxy: new Proxy(parts),
  };
}

/**
 * What ends and lists sessions, without anything that serves browsers: all that the command line needs.
 * @param handsOver whether acts are handed to the servers to be written down
 */
export function composeAdministration(config: Config, logger: Logger, handsOver = false) {
  const store = openStore(config, logger);
  const sealer = new Sealer(config.secrets.seal, store.prefix);
  const serverSeal = new ServerSeal(sealer);
  const index = new SessionIndex(
    store,
    indexKeys(config.secrets.seal, store.prefix),
    config.session.absolute,
  );
  const envelopes = new RevocationEnvelopes({
    secrets: config.secrets.revocation,
    publicKey: config.revocation.publicKey,
    prefix: store.prefix,
  });
  const records = new SessionRecords({ store, sealer, serverSeal, index, envelopes, logger });
  const providers = new Providers(config, logger);
  const epoch = new PolicyEpoch(store, serverSeal, logger);
  const audit = new AuditLog(logger, store, serverSeal, handsOver);
  const issuers = config.providers.map(({ issuer }) => issuer);
  const directory = new SessionDirectory(records, index, epoch, issuers);
  const marks = new IdentityMarks(store, index, serverSeal);
  const jobs = new EndingJobs(store, serverSeal);
  const revocations = new RevocationQueue({ store, envelopes, providers, config, logger });
  const parts = { config, records, index, directory, marks, jobs, revocations, audit, logger };
  const endings = new EndingsService(parts);
  return { store, sealer, records, providers, epoch, audit, directory, marks, revocations, endings };
}

export function openStore(config: Config, logger: Logger): Store {
  if (config.store.kind === 'memory') return new MemoryStore();
  const link = new RedisLink(config.store, logger);
  link.connect();
  return new RedisStore(link, config.store.prefix);
}
