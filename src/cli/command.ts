import type { Config } from '../config/config.js';
import type { Administration } from './administration.js';
import { EX_CONFIG } from './exit-codes.js';
import { loadModule } from './load-module.js';

/** A command line that was understood. */
export interface Command {
  /** Only the usage is asked for. */
  readonly help: boolean;
  /** The configuration file that was named. */
  readonly file: string | undefined;
  /**
   * @param load reads the configuration, and tells what is wrong with it
   * @returns the exit code
   */
  readonly run: (load: () => Config | undefined) => number | Promise<number>;
}

/** For a command that works on the sessions of running servers. */
export function administering(work: (administration: Administration) => Promise<number>): Command['run'] {
  return async (load) => {
    const config = load();
    if (config === undefined) return EX_CONFIG;
    // Loaded late, so that a fault of the configuration is told without loading the rest.
    const { administer } = await loadModule<typeof import('./administration.js')>('./administration.js');
    return administer(config, work);
  };
}
