import type { Logger } from '../observability/logger.js';
import { Upstream, type UpstreamTimes } from './upstream.js';

/** Connections in a row that could not be made. */
const FAILURES = 3;
/** Milliseconds. */
const FIRST_REST = 5000;
const LONGEST_REST = 30_000;

interface Member {
  upstream: Upstream;
  /** In a row. */
  failures: number;
  /** Milliseconds of the present rest; 0: it does not rest. */
  rest: number;
  /** Until when nothing more goes there, by `performance.now()`. */
  until: number;
  /** Whether the one request that follows a rest is under way. */
  isTried: boolean;
}

/**
 * The servers of a route, taken in turns. Whether one is there is learned from the connections that requests need anyway:
 * one that could not be connected to several times in a row rests for a while, then gets one request. The book is never a
 * reason to refuse: where all rest, the one whose rest ends first is tried.
 */
export class Upstreams {
  readonly #members: readonly Member[];
  readonly #route: string;
  readonly #times: UpstreamTimes;
  readonly #logger: Logger;
  #next = 0;

  constructor(
    origins: readonly string[],
    { route, times, logger }: { route: string; times: UpstreamTimes; logger: Logger },
  ) {
    this.#route = route;
    this.#times = times;
    this.#logger = logger;
    this.#members = origins.map((origin) => {
      const listener = {
        connected: () => {
          this.#connected(member);
        },
        unreachable: () => {
          this.#unreachable(member);
        },
      };
      const upstream = new Upstream(origin, times, listener);
      const member: Member = { upstream, failures: 0, rest: 0, until: 0, isTried: false };
      return member;
    });
  }

  /** The one whose turn it is. */
  pick(): Upstream {
    return (this.#members.length === 1 ? this.#members[0] : this.#pickBut())?.upstream as Upstream;
  }

  /** The one whose turn it is among the others; undefined where there are none. */
  pickOther(than: Upstream): Upstream | undefined {
    return this.#pickBut(than)?.upstream;
  }

  async destroy(): Promise<void> {
    await Promise.all(this.#members.map(({ upstream }) => upstream.destroy()));
  }

  #pickBut(excluded?: Upstream): Member | undefined {
    const now = performance.now();
    let least: Member | undefined;
    for (let step = 0; step < this.#members.length; step += 1) {
      const at = (this.#next + step) % this.#members.length;
      const member = this.#members[at];
      if (member === undefined || member.upstream === excluded) continue;
      if (member.until <= now) {
        this.#next = at + 1;
        if (member.rest > 0) this.#tryOnce(member, now);
        return member;
      }
      if (least === undefined || member.until < least.until) least = member;
    }
    return least;
  }

  /** Others stay away until it is known how that went; a connection that was still open may never tell. */
  #tryOnce(member: Member, now: number): void {
    member.isTried = true;
    member.until = now + this.#times.connect;
  }

  #connected(member: Member): void {
    member.failures = 0;
    if (member.rest === 0) return;
    Object.assign(member, { rest: 0, until: 0, isTried: false });
    this.#logger.info('upstream_back', { route: this.#route, upstream: member.upstream.url.origin });
  }

  #unreachable(member: Member): void {
    member.failures += 1;
    if (this.#members.length === 1 || member.failures < FAILURES) return;
    const begins = member.rest === 0;
    // Many connections fail at once: only the one that follows a rest makes the next one longer.
    if (!begins && !member.isTried) return;
    member.rest = begins ? FIRST_REST : Math.min(2 * member.rest, LONGEST_REST);
    member.until = performance.now() + member.rest;
    member.isTried = false;
    if (!begins) return;
    this.#logger.warn('upstream_resting', { route: this.#route, upstream: member.upstream.url.origin });
  }
}
