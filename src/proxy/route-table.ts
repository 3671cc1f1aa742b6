import { Agent } from 'undici';
import type { RouteConfig } from '../config/schema.js';

/** A route as the proxy uses it: everything that can be computed before the first request is. */
export interface Route {
  path: string;
  /** Scheme, host and port; nothing of a request ever changes it. */
  origin: string;
  /** Put in the place of the route's path; undefined: the path is forwarded unchanged. */
  prefix: string | undefined;
  cache: RouteConfig['cache'];
  requestAllow: ReadonlySet<string>;
  responseAllow: ReadonlySet<string>;
  cookies: ReadonlySet<string>;
  /** Milliseconds without a byte in either direction. */
  idle: number;
  agent: Agent;
}

/** The routes of the configuration, longest path first. */
export class RouteTable {
  readonly #routes: readonly Route[];

  constructor(routes: readonly RouteConfig[]) {
    this.#routes = routes.map(toRoute).sort((a, b) => b.path.length - a.path.length);
  }

  /** @param path in canonical form */
  match(path: string): Route | undefined {
    for (const route of this.#routes) if (path.startsWith(route.path)) return route;
    return undefined;
  }

  async close(): Promise<void> {
    await Promise.all(this.#routes.map((route) => route.agent.destroy()));
  }
}

function toRoute(config: RouteConfig): Route {
  const upstream = new URL(config.upstream);
  const { connect, firstByte, idle } = config.timeouts;
  return {
    path: config.path,
    origin: upstream.origin,
    prefix: upstream.pathname === '/' && !config.upstream.endsWith('/') ? undefined : upstream.pathname,
    cache: config.cache,
    requestAllow: new Set(config.headers.requestAllow.map((name) => name.toLowerCase())),
    responseAllow: new Set(config.headers.responseAllow.map((name) => name.toLowerCase())),
    cookies: new Set(config.cookies),
    idle,
    agent: new Agent({ connect: { timeout: connect }, headersTimeout: firstByte, bodyTimeout: idle }),
  };
}
