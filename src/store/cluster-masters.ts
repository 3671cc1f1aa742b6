import type { Cluster, Redis } from 'ioredis';

export interface MasterEvents {
  /** Every master that can be reached is connected. */
  onOpen(): void;
  /** A connection to one of them is gone. */
  onLost(): void;
  /** One master went (once, however often it is tried) or is back. */
  onMaster(address: string, available: boolean, error?: Error): void;
}

/**
 * Connects to the masters of a Cluster before anybody waits for them: by itself the client library does so at the first
 * command and, without an offline queue, refuses those that come meanwhile.
 */
export class ClusterMasters {
  readonly #cluster: Cluster;
  readonly #events: MasterEvents;
  readonly #away = new Set<string>();

  constructor(cluster: Cluster, events: MasterEvents) {
    this.#cluster = cluster;
    this.#events = events;
    cluster.on('+node', (node: Redis) => {
      this.#watch(node);
      // Not in the same moment: a command may be on its way to it, which may then wait for the connection it asks for.
      setImmediate(() => {
        if (cluster.status === 'ready') void connected(node);
      });
    });
    cluster.on('-node', () => {
      events.onLost();
    });
    cluster.on('ready', () => {
      void Promise.all(this.#masters().map(connected)).then(() => {
        if (cluster.status === 'ready') events.onOpen();
      });
    });
  }

  get allConnected(): boolean {
    return this.#masters().every(({ status }) => status === 'ready');
  }

  #masters(): Redis[] {
    return this.#cluster.nodes('master');
  }

  #watch(node: Redis): void {
    const address = `${String(node.options.host)}:${String(node.options.port)}`;
    node.on('ready', () => {
      if (this.#away.delete(address)) this.#events.onMaster(address, true);
    });
    node.on('error', (error: Error) => {
      if (node.options.readOnly === true || this.#away.has(address)) return;
      this.#away.add(address);
      this.#events.onMaster(address, false, error);
    });
  }
}

/** Resolves when it is known whether the node can be reached. */
async function connected(node: Redis): Promise<void> {
  if (node.options.readOnly === true) return;
  if (node.status === 'wait') {
    await node.connect().catch(() => undefined);
  } else if (node.status === 'connecting' || node.status === 'connect') {
    await new Promise<void>((resolve) => {
      const verdict = (): void => {
        node.off('ready', verdict).off('end', verdict);
        resolve();
      };
      node.on('ready', verdict).on('end', verdict);
    });
  }
}
