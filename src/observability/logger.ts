import { pino, type DestinationStream } from 'pino';
import { isSecretName, redactError } from './redact.js';

type Level = 'debug' | 'info' | 'warn' | 'error';
type Fields = Record<string, unknown>;

/**
 * Structured log: one JSON object a line, an `event` name first, UTC times. Values are encoded by the JSON writer, so no
 * input can begin a line of its own.
 */
export class Logger {
  readonly #pino;
  readonly #audit;

  constructor(level: string, destination?: DestinationStream) {
    this.#pino = pino(
      {
        level,
        base: null,
        messageKey: 'message',
        timestamp: () => `,"time":"${new Date().toISOString()}"`,
        formatters: { level: (label) => ({ level: label }) },
      },
      // Each line is written at once. With a minimum of 0 `flush` would not wait for it, and at the exit a line that is
      // still waiting is tried again for ever when whoever read the log has gone.
      destination ?? pino.destination({ dest: 1, sync: false, minLength: 1 }),
    );
    this.#audit = this.#pino.child({ log: 'audit' }, { level: 'info' });
  }

  get isDebug(): boolean {
    return this.#pino.isLevelEnabled('debug');
  }

  debug(event: string, fields?: Fields): void {
    if (this.isDebug) this.#write('debug', event, fields);
  }

  info(event: string, fields?: Fields): void {
    this.#write('info', event, fields);
  }

  warn(event: string, fields?: Fields): void {
    this.#write('warn', event, fields);
  }

  error(event: string, fields?: Fields): void {
    this.#write('error', event, fields);
  }

  /** A line of the audit log: written whatever the level is, and marked as such. */
  audit(event: string, fields: Fields): void {
    this.#audit.info(safeFields(event, fields));
  }

  /** Waits until everything written so far has left the process, or nobody reads it any more. */
  flush(): Promise<void> {
    return new Promise((resolve) => {
      this.#pino.flush(() => {
        resolve();
      });
    });
  }

  #write(level: Level, event: string, fields: Fields = {}): void {
    this.#pino[level](safeFields(event, fields));
  }
}

function safeFields(event: string, fields: Fields = {}): Fields {
  const safe: Fields = { event };
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    if (value instanceof Error) safe[name] = redactError(value);
    else safe[name] = isSecretName(name) ? '[secret]' : value;
  }
  return safe;
}
