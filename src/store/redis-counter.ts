import { RateLimiterRedis, RateLimiterRes } from 'rate-limiter-flexible';
import { keys } from './keys.js';
import type { RedisClient } from './redis-clients.js';
import type { RedisLink, ScriptDefinition } from './redis-link.js';
import type { SharedCounter } from './store.js';

/** Commands under way at once; past it this process counts by itself. */
const MAX_UNDER_WAY = 1000;

type Increment = (args: string[]) => Promise<unknown>;

/** Counts what all processes let through, in one key of Redis for each caller, which goes after its period. */
export class RedisCounter implements SharedCounter {
  readonly #limiter: RateLimiterRedis;
  readonly #key: (caller: string) => string;
  #underWay = 0;

  /**
   * @param limit names what is limited
   * @param rate `per` in milliseconds, of which whole seconds count
   */
  constructor(
    link: RedisLink,
    prefix: string,
    limit: string,
    { requests, per }: { requests: number; per: number },
  ) {
    this.#key = (caller) => keys.rate(prefix, limit, caller);
    this.#limiter = new RateLimiterRedis({
      storeClient: sideways(link),
      keyPrefix: '',
      points: requests,
      duration: Math.ceil(per / 1000),
    });
  }

  async add(caller: string): Promise<{ count: number; endsIn: number } | undefined> {
    if (this.#underWay >= MAX_UNDER_WAY) return undefined;
    this.#underWay += 1;
    try {
      const { consumedPoints, msBeforeNext } = await this.#limiter.consume(this.#key(caller));
      return { count: consumedPoints, endsIn: msBeforeNext };
    } catch (result) {
      if (!(result instanceof RateLimiterRes)) return undefined;
      return { count: result.consumedPoints, endsIn: result.msBeforeNext };
    } finally {
      this.#underWay -= 1;
    }
  }
}

/** What the library takes for a client: its one command, beside those that requests wait for. */
function sideways(link: RedisLink) {
  return {
    defineCommand(name: string, definition: ScriptDefinition): void {
      link.defineCommand(name, definition);
    },
    rlflxIncr: (args: string[]): Promise<unknown> =>
      link.sideways((redis) => (redis as RedisClient & { rlflxIncr: Increment }).rlflxIncr(args)),
  };
}
