import type { Config, RouteConfig } from '../config/config.js';
import { routeAccess, type CrossOriginAccess } from '../http/cross-origin.js';
import { proxiedSecurityHeaders } from '../http/security-headers.js';
import { devServerRoute } from './dev-server.js';
import { Bandwidth } from './bandwidth.js';
import type { RateLimit } from '../limits/rate-limit.js';
import type { RateLimits } from '../limits/rate-limits.js';
import type { Logger } from '../observability/logger.js';
import { toElevation, type Elevation } from '../session/elevation.js';
import { toRequirement, type Requirement } from '../session/requirements.js';
import { tokenWish, type TokenWish } from '../tokens/token-wish.js';
import { requestHeaderNames } from './headers.js';
import { Parallel } from './parallel.js';
import { Upstreams } from './upstreams.js';

export interface WebSocketRules {
  /** Milliseconds without a byte in either direction. */
  idle: number;
  perSession: Parallel;
  /** Whether data that the browser sends counts as use of its session. */
  keepsSession: boolean;
}

/** A route as the proxy uses it: everything that can be computed before the first request is. */
export interface Route {
  path: string;
  upstreams: Upstreams;
  /** Put in the place of the route's path; undefined: the path is forwarded unchanged. */
  prefix: string | undefined;
  methods: ReadonlySet<string>;
  token: RouteConfig['token'];
  /** Which access token goes along; undefined: the session's plain one. */
  wish: TokenWish | undefined;
  /** Milliseconds: how old the provider's word may be that the token is active; undefined: nobody asks. */
  introspect: number | undefined;
  /** undefined: being signed in is enough. */
  requirement: Requirement | undefined;
  /** undefined: the session's own access token goes along. */
  elevation: Elevation | undefined;
  /** `own-host`: the development server, where nobody is signed in and every page of ours may ask. */
  csrf: RouteConfig['csrf'] | 'own-host';
  /** Bytes. */
  requestBody: number;
  parallel: Parallel;
  /** Of the requests under way, those whose answer is an event stream. */
  eventStreams: Parallel;
  /** undefined: bytes move as fast as they come. */
  bandwidth: Bandwidth | undefined;
  /** undefined: as many requests as anybody likes. */
  rate: RateLimit | undefined;
  cache: RouteConfig['cache'];
  /** Names of request headers that our part of an answer depends on. */
  vary: readonly string[];
  requestAllow: ReadonlySet<string>;
  responseAllow: ReadonlySet<string>;
  cookies: ReadonlySet<string>;
  /** Header lines of every answer. */
  security: readonly (readonly [string, string])[];
  /** Milliseconds without a byte in either direction. */
  idle: number;
  /** Milliseconds from the connection to the head of the answer. */
  firstByte: number;
  /** undefined: none are opened here. */
  websocket: WebSocketRules | undefined;
  crossOrigin: CrossOriginAccess;
}

/** The routes of the configuration, longest path first. */
export class RouteTable {
  /** Where everything goes that is neither a route nor an endpoint of ours, during development. */
  readonly devServer: Route | undefined;
  /** Whether any WebSocket may be opened. */
  readonly opensWebSockets: boolean;
  readonly #routes: readonly Route[];

  constructor({ routes, cors, secureCookies, frontend }: Config, limits: RateLimits, logger: Logger) {
    const vary = cors.origins.length > 0 ? ['Origin'] : [];
    const shared = { vary, secure: secureCookies, limits, logger };
    this.#routes = routes
      .map((route) => toRoute(route, shared))
      .sort((a, b) => b.path.length - a.path.length);
    this.devServer =
      frontend?.kind === 'devServer'
        ? { ...toRoute(devServerRoute(frontend.origin), { ...shared, vary: [] }), csrf: 'own-host' }
        : undefined;
    this.opensWebSockets =
      this.devServer !== undefined || routes.some(({ websocket }) => websocket !== undefined);
  }

  /** @param path in canonical form */
  match(path: string): Route | undefined {
    for (const route of this.#routes) if (path.startsWith(route.path)) return route;
    return undefined;
  }

  async close(): Promise<void> {
    const all = this.devServer === undefined ? this.#routes : [...this.#routes, this.devServer];
    await Promise.all(all.map((route) => route.upstreams.destroy()));
  }
}

/** What all routes are made with. */
interface Shared {
  vary: readonly string[];
  secure: boolean;
  limits: RateLimits;
  logger: Logger;
}

function toRoute(config: RouteConfig, { vary, secure, limits, logger }: Shared): Route {
  // The path is the same in all of them.
  const [upstream = ''] = config.upstreams;
  const { pathname } = new URL(upstream);
  return {
    path: config.path,
    upstreams: new Upstreams(config.upstreams, { route: config.path, times: config.timeouts, logger }),
    prefix: pathname === '/' && !upstream.endsWith('/') ? undefined : pathname,
    methods: new Set(config.methods),
    token: config.token,
    wish: tokenWish(config),
    introspect: config.introspect,
    requirement: toRequirement(config.require),
    elevation: toElevation(config.elevate),
    csrf: config.csrf,
    requestBody: config.limits.requestBody ?? Infinity,
    parallel: new Parallel(config.limits.parallel),
    eventStreams: new Parallel(config.limits.eventStreams),
    bandwidth: config.limits.bandwidth === undefined ? undefined : new Bandwidth(config.limits.bandwidth),
    rate: config.limits.rate && limits.ofRoute(config.path, config.limits.rate),
    cache: config.cache,
    vary: config.cache === 'upstream' ? ['Cookie', ...vary] : vary,
    requestAllow: new Set(config.headers.requestAllow.map((name) => name.toLowerCase())),
    responseAllow: new Set(config.headers.responseAllow.map((name) => name.toLowerCase())),
    cookies: new Set(config.cookies),
    security: proxiedSecurityHeaders(secure, config.headers.security),
    idle: config.timeouts.idle,
    firstByte: config.timeouts.firstByte,
    websocket: config.websocket && {
      idle: config.websocket.idle,
      perSession: new Parallel(config.websocket.perSession),
      keepsSession: config.websocket.keepsSession,
    },
    crossOrigin: routeAccess({
      methods: config.methods,
      requestHeaders: requestHeaderNames(config.headers.requestAllow),
      responseHeaders: config.headers.responseAllow,
    }),
  };
}
