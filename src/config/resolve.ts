import { resolve } from 'node:path';
import type {
  AdminConfig,
  Config,
  FrontendConfig,
  ProviderConfig,
  RouteConfig,
  WantedOfProvider,
} from './config.js';
import { webSocketRules } from './route-schema.js';
import type { FileConfig } from './schema.js';
import type { SecretPlace } from './secret-schema.js';
import { secretRef, type SecretSources } from './secrets.js';

/** From what was written to what the server uses. Called only for a configuration without faults. */
export function resolveConfig(file: FileConfig, sources: SecretSources): Config {
  const { origin, protocol } = new URL(file.publicUrl);
  const wanted = wantedOfProviders(file.routes);
  const key = (place: SecretPlace) => Buffer.from(secretRef(place, sources).read(), 'utf8');
  return deepFreeze({
    publicUrl: origin,
    secureCookies: protocol === 'https:',
    listen: file.listen,
    store: resolveStore(file.store, sources),
    secrets: {
      cookie: file.secrets.cookie.map(key),
      seal: file.secrets.seal.map(key),
      revocation: file.secrets.revocation.map(key),
    },
    revocation: { publicKey: file.revocation.publicKey, retryFor: file.revocation.retryFor },
    providers: Object.entries(file.providers).map(([name, written]): ProviderConfig => {
      const { rotation, clientSecret, ...rest } = written;
      return {
        ...rest,
        name,
        wanted,
        endpointHosts: written.endpointHosts.map((host) => new URL(`https://${host}`).host),
        clientSecret: secretRef(clientSecret, sources),
        rotation: typeof rotation === 'string' ? { policy: rotation } : { policy: 'leeway', ...rotation },
      };
    }),
    session: file.session,
    me: file.me,
    cors: file.cors,
    rateLimits: file.rateLimits,
    routes: file.routes.map(({ upstream, ...route }): RouteConfig => ({
      ...route,
      upstreams: [upstream].flat().map(resolveUpstream),
      websocket: resolveWebSocket(route.websocket),
    })),
    frontend: file.frontend && resolveFrontend(file.frontend, sources.folder),
    forwardAuth: file.forwardAuth,
    admin: file.admin && resolveAdmin(file.admin, sources.folder),
    log: file.log,
    shutdown: file.shutdown,
  });
}

function wantedOfProviders(routes: FileConfig['routes']): WantedOfProvider {
  const audiences = routes.flatMap(({ token, audience }) =>
    audience === undefined || token === 'client' ? [] : [audience],
  );
  return {
    audiences: [...new Set(audiences)],
    introspection: routes.some(({ introspect }) => introspect !== undefined),
    clientCredentials: routes.some(({ token }) => token === 'client'),
    tokenExchange: routes.some(({ exchange }) => exchange !== undefined),
  };
}

function resolveStore(store: FileConfig['store'], sources: SecretSources): Config['store'] {
  if (store === 'memory' || !store.redis) return { kind: 'memory' };
  const { url, ...rest } = store.redis;
  return { kind: 'redis', url: typeof url === 'string' ? url : secretRef(url, sources).read(), ...rest };
}

function resolveFrontend(
  { folder, devServer, fallback, immutable, csp }: NonNullable<FileConfig['frontend']>,
  base: string,
): FrontendConfig {
  if (devServer !== undefined) return { kind: 'devServer', origin: new URL(devServer).origin };
  return {
    kind: 'folder',
    folder: resolve(base, folder ?? '.'),
    fallback: fallback === 'none' ? undefined : fallback,
    immutable,
    csp,
  };
}

function resolveAdmin(written: NonNullable<FileConfig['admin']>, folder: string): AdminConfig {
  const { tls, ...rest } = written;
  return {
    ...rest,
    tls: tls && {
      certificate: resolve(folder, tls.certificate),
      key: resolve(folder, tls.key),
      clientAuthority: tls.clientAuthority === undefined ? undefined : resolve(folder, tls.clientAuthority),
    },
  };
}

function resolveWebSocket(written: FileConfig['routes'][number]['websocket']): RouteConfig['websocket'] {
  if (written === false) return undefined;
  return written === true ? webSocketRules.parse({}) : written;
}

/** The final slash decides whether the prefix is replaced, so none may be added to a bare origin. */
function resolveUpstream(written: string): string {
  const { origin, pathname } = new URL(written);
  return written.slice(written.indexOf('://') + 3).includes('/') ? `${origin}${pathname}` : origin;
}

function deepFreeze<T>(value: T): T {
  // A view on memory cannot be frozen; keys are kept in such.
  if (typeof value !== 'object' || value === null || ArrayBuffer.isView(value)) return value;
  for (const inner of Object.values(value)) deepFreeze(inner);
  return Object.freeze(value);
}
