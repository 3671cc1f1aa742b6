import { hostname, userInfo } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Config } from '../config/config.js';
import type { Actor } from '../endings/audit-log.js';
import { CloakroomError } from '../errors.js';
import { Logger } from '../observability/logger.js';
import { composeAdministration, type SessionAdministration } from '../services.js';
import { EX_CONFIG, EX_UNAVAILABLE, EX_USAGE } from './exit-codes.js';
import { describe, redisPlace } from './probes.js';
import { tell } from './terminal.js';

/** What every command that works on the sessions of running servers has in common. */

export interface Administration extends SessionAdministration {
  readonly config: Config;
  readonly actor: Actor;
}

/** Milliseconds for which a connection that is being made is waited for; more where the configuration allows a slower one. */
const PATIENCE = 2500;
const LOOK_EVERY = 25;

/**
 * Opens the store, lets the command work, and closes everything again.
 * @returns the exit code
 */
export async function administer(
  config: Config,
  work: (administration: Administration) => Promise<number>,
): Promise<number> {
  if (config.store.kind === 'memory') {
    tell(
      'cloakroom: store is memory: sessions live inside the server process, where no other process reaches them; ' +
        'use its admin listener (docs/admin-api.md), or restart it to end all of them\n',
    );
    return EX_CONFIG;
  }
  const log = new CommandLog();
  const services = composeAdministration(config, log, true);
  const place = redisPlace(config.store.url);
  try {
    const patience = Math.max(PATIENCE, 2 * (config.store.connectTimeout + config.store.commandTimeout));
    if (!(await reached(services.store, patience))) {
      tell(`cloakroom: Redis at ${place} cannot be used: ${log.trouble}; nothing was done\n`);
      return EX_UNAVAILABLE;
    }
    const code = await work({ ...services, config, actor: actor() });
    if (!(await services.audit.handedOver())) {
      tell(
        'cloakroom: the lines above are for the audit log, and could not be handed to the servers: keep them\n',
      );
    }
    return code;
  } catch (error) {
    if (!(error instanceof CloakroomError)) throw error;
    if (error.code === 'bad-request') {
      const { reason, detail = error.message } = error.public;
      tell(
        `cloakroom: ${reason === 'cursor' ? "'--cursor' is not one that a list of these sessions gave" : detail}\n`,
      );
      return EX_USAGE;
    }
    if (error.code !== 'store-unavailable') throw error;
    tell(`cloakroom: Redis at ${place} stopped answering: ${log.trouble}\n`);
    return EX_UNAVAILABLE;
  } finally {
    await Promise.all([services.providers.close(), services.store.close()]);
    await log.flush();
  }
}

/** A connection is refused for as long as it is not there; servers answer that at once, a command can wait a moment. */
async function reached(store: SessionAdministration['store'], patience: number): Promise<boolean> {
  const until = performance.now() + patience;
  for (;;) {
    try {
      await store.ping();
      return true;
    } catch (error) {
      if (!(error instanceof CloakroomError) || performance.now() > until) return false;
      await sleep(LOOK_EVERY);
    }
  }
}

/** What is wrong goes to standard error, where it does not mix with the result. Trouble with the store is told in words. */
class CommandLog extends Logger {
  #trouble: unknown;

  constructor() {
    super('warn', { write: (line: string) => process.stderr.write(line) });
  }

  /** The reason last heard of. */
  get trouble(): string {
    return this.#trouble === undefined ? 'no answer in time' : describe(this.#trouble);
  }

  override error(event: string, fields?: Record<string, unknown>): void {
    if (!event.startsWith('store_')) super.error(event, fields);
    else this.#trouble = fields?.['error'] ?? this.#trouble;
  }
}

function actor(): Actor {
  return { kind: 'operator', name: userName(), from: hostname() };
}

/** In containers a user may have a number and no name. */
function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return `uid ${String(process.getuid?.() ?? 'unknown')}`;
  }
}
