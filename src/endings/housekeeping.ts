import type { AuditLog } from './audit-log.js';
import type { EndingsService } from './endings.service.js';
import type { SessionDirectory } from './session-directory.js';

const EVERY = 1000;
/** Milliseconds between two sweeps of this process; several processes sweep more often, which does no harm. */
const SWEEP_EVERY = 600_000;

/** What has to be done now and then by any process: finish endings, write down acts of terminals, tidy the index. */
export class Housekeeping {
  readonly #work: readonly { every: number; run: () => Promise<void> }[];
  readonly #timers: NodeJS.Timeout[] = [];

  constructor(endings: EndingsService, audit: AuditLog, directory: SessionDirectory) {
    this.#work = [
      { every: EVERY, run: () => endings.resume() },
      { every: EVERY, run: () => audit.collect() },
      { every: SWEEP_EVERY, run: () => directory.sweep() },
    ];
  }

  start(): void {
    for (const { every, run } of this.#work) {
      let running = false;
      const timer = setInterval(
        () => {
          if (running) return;
          running = true;
          run()
            // A store that does not answer is told of elsewhere; the work waits.
            .catch(() => undefined)
            .finally(() => {
              running = false;
            });
        },
        // Spread, so that processes that began together do not all knock at once.
        every * (0.9 + Math.random() / 5),
      );
      this.#timers.push(timer.unref());
    }
  }

  stop(): void {
    for (const timer of this.#timers) clearInterval(timer);
  }
}
