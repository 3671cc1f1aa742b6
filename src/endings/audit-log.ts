import { randomUUID } from 'node:crypto';
import type { Logger } from '../observability/logger.js';
import type { ServerSeal } from '../store/server-seal.js';
import type { EndCause, SetName, Store } from '../store/store.js';

/** Who acts: a person at a terminal or the admin listener, a user, a provider, or the server by itself. */
export interface Actor {
  kind: 'user' | 'operator' | 'provider' | 'system';
  name: string;
  /** The address or machine that the act came from. */
  from?: string;
}

/** What ended without anybody's wish. */
export const SYSTEM: Actor = { kind: 'system', name: 'cloakroom' };

const QUEUE: SetName = { kind: 'queue', id: 'audit' };
/** Milliseconds an act at a terminal waits for a server that writes it down. */
const KEPT_FOR = 31 * 24 * 60 * 60 * 1000;
const AT_ONCE = 16;
const LEASE = 10_000;

interface Entry {
  event: string;
  fields: Record<string, unknown>;
  /** Somebody should look at once: an error of the log, and not only a line of the audit log. */
  alarm: boolean;
}

/**
 * Who ended what, why, from where and how many: one line an act. What somebody does at a terminal is handed to the servers
 * through the store, so that it stands in their log and not only on that screen.
 */
export class AuditLog {
  readonly #logger: Logger;
  readonly #store: Store;
  readonly #seal: ServerSeal;
  readonly #handsOver: boolean;
  readonly #handingOver: Promise<boolean>[] = [];
  readonly #ended = new Map<EndCause, number>();

  /** @param handsOver for a process whose own log nobody keeps: a server writes the entries down */
  constructor(logger: Logger, store: Store, seal: ServerSeal, handsOver = false) {
    this.#logger = logger;
    this.#store = store;
    this.#seal = seal;
    this.#handsOver = handsOver;
  }

  /** Sessions that this process ended, by cause. */
  get ended(): ReadonlyMap<EndCause, number> {
    return this.#ended;
  }

  count(cause: EndCause, sessions: number): void {
    this.#ended.set(cause, (this.#ended.get(cause) ?? 0) + sessions);
  }

  /** @param fields must hold no token and no cookie; whom an operator named stands there as it was named */
  record(event: string, actor: Actor, fields: Record<string, unknown>): void {
    this.#take({ event, fields: { ...actorFields(actor), ...fields }, alarm: false });
  }

  /** As {@link record}, for what somebody should look at now. */
  alarm(event: string, actor: Actor, fields: Record<string, unknown>): void {
    this.#take({ event, fields: { ...actorFields(actor), ...fields }, alarm: true });
  }

  /**
   * To be awaited before a process that hands over ends.
   * @returns false when some of it could not be handed over; it stands in this process's own log then
   */
  async handedOver(): Promise<boolean> {
    return (await Promise.all(this.#handingOver)).every((done) => done);
  }

  /** Writes down what was handed over; of all servers one gets each entry. */
  async collect(): Promise<void> {
    const ids = await this.#store.claimDue(QUEUE, AT_ONCE, LEASE);
    for (const id of ids) {
      const entry = this.#seal.open('audit', id, await this.#store.take('audit', id));
      await this.#store.removeFrom(QUEUE, [id]);
      if (entry === undefined) continue;
      const { at, ...rest } = entry as Entry & { at: string };
      this.#write({ ...rest, fields: { ...rest.fields, at } });
    }
  }

  #take(entry: Entry): void {
    if (this.#handsOver) this.#handingOver.push(this.#handOver(entry));
    else this.#write(entry);
  }

  #write({ event, fields, alarm }: Entry): void {
    if (alarm) this.#logger.error(event, fields);
    else this.#logger.audit(event, fields);
  }

  async #handOver(entry: Entry): Promise<boolean> {
    const id = randomUUID();
    const value = this.#seal.seal('audit', id, { ...entry, at: new Date().toISOString() });
    try {
      await this.#store.put('audit', id, value, KEPT_FOR);
      await this.#store.addTo(QUEUE, [{ member: id, score: await this.#store.now() }], KEPT_FOR);
      return true;
    } catch {
      this.#write(entry);
      return false;
    }
  }
}

function actorFields({ kind, name, from }: Actor): Record<string, unknown> {
  return { actor: kind, name, from };
}
