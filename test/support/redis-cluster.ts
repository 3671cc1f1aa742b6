import { randomBytes } from 'node:crypto';
import { closeLater, eventually } from './lifetime.js';
import { startRedis, type RedisServer, type RedisTarget } from './redis.js';
import { freePort } from './run-folder.js';

const SLOTS = 16384;
/** Milliseconds after which nodes take one another for dead. */
const NODE_TIMEOUT = 1000;

/** A Redis Cluster of masters, each with its share of the slots, that serves what it can while some are away. */
export class RedisCluster implements RedisTarget {
  readonly prefix = `t${randomBytes(5).toString('hex')}`;
  /** A user of its own for the replicas under test: the credentials are in the address only. */
  readonly user = 'cloakroom';
  private readonly forget: () => void;

  private constructor(
    readonly nodes: readonly RedisServer[],
    private readonly password: string,
  ) {
    this.forget = closeLater(() => this.close());
  }

  static async start(masters = 3): Promise<RedisCluster> {
    const password = randomBytes(16).toString('hex');
    const ports: number[] = [];
    while (ports.length < masters) {
      const port = await freePort();
      // Nodes talk to one another at a port 10000 higher.
      if (port < 22_000 && !ports.includes(port)) ports.push(port);
    }
    const args = [
      ...['--cluster-enabled', 'yes', '--cluster-node-timeout', String(NODE_TIMEOUT)],
      ...['--cluster-require-full-coverage', 'no', '--repl-diskless-sync-delay', '0'],
      ...['--user', 'cloakroom', 'on', `>${password}`, '~*', '&*', '+@all'],
    ];
    const nodes = await Promise.all(ports.map((port) => startRedis({ port, args, appendonly: true })));
    const cluster = new RedisCluster(nodes, password);
    await cluster.join();
    return cluster;
  }

  get host(): string {
    return this.node(0).host;
  }

  get port(): number {
    return this.node(0).port;
  }

  /** The first node: the client must find the others. */
  get url(): string {
    return `redis://${this.user}:${this.password}@${this.host}:${String(this.port)}`;
  }

  node(index: number): RedisServer {
    const node = this.nodes[index];
    if (node === undefined) throw new Error(`no node ${String(index)}`);
    return node;
  }

  /** Number of the node that holds a key as long as no slot has moved. */
  async ownerOf(key: string): Promise<number> {
    const running = this.nodes.find((node) => node.running);
    const slot = Number(await running?.command('CLUSTER', 'KEYSLOT', key));
    return this.nodes.findIndex((_, index) => slot < this.firstSlot(index + 1));
  }

  /** One command at the owner of its key. */
  async command(name: string, key: string, ...args: Array<string | number>): Promise<unknown> {
    return this.node(await this.ownerOf(key)).command(name, key, ...args);
  }

  /** Keys of each node. */
  async keys(pattern = `${this.prefix}:*`): Promise<string[][]> {
    return Promise.all(this.nodes.map((node) => node.keys(pattern)));
  }

  /** Milliseconds each key has to live, -1 for ever. */
  async lifetimes(): Promise<Map<string, number>> {
    const each = await Promise.all(this.nodes.map((node) => node.lifetimes(`${this.prefix}:*`)));
    return new Map(each.flatMap((found) => [...(found ?? [])]));
  }

  /** Users of the connections to a node other than the test's own. */
  async usersAt(index: number): Promise<string[]> {
    const list = String(await this.node(index).command('CLIENT', 'LIST', 'TYPE', 'normal'));
    const users = list
      .split('\n')
      .filter((line) => !line.includes('cmd=client'))
      .map((line) => /\buser=(\S+)/.exec(line)?.[1]);
    return users.filter((user) => user !== undefined);
  }

  /** Hands a slot and what is in it to another node, as resharding does; `meanwhile` runs while it is under way. */
  async moveSlot(slot: number, from: number, to: number, meanwhile: () => Promise<void>): Promise<void> {
    const [source, target] = [this.node(from), this.node(to)];
    const ids = await Promise.all([source, target].map((node) => node.command('CLUSTER', 'MYID')));
    const [sourceId, targetId] = ids.map(String);
    await target.command('CLUSTER', 'SETSLOT', slot, 'IMPORTING', sourceId ?? '');
    await source.command('CLUSTER', 'SETSLOT', slot, 'MIGRATING', targetId ?? '');
    for (const key of (await source.command('CLUSTER', 'GETKEYSINSLOT', slot, 1000)) as string[]) {
      await source.command('MIGRATE', target.host, target.port, key, 0, 5000);
    }
    await meanwhile();
    for (const node of [target, source, ...this.nodes]) {
      await node.command('CLUSTER', 'SETSLOT', slot, 'NODE', targetId ?? '');
    }
  }

  /** Every running node takes the cluster for whole, as far as it can be. */
  async settled(): Promise<void> {
    const running = this.nodes.filter((node) => node.running);
    await eventually(
      async () => {
        const states = await Promise.all(
          running.map(async (node) => String(await node.command('CLUSTER', 'INFO'))),
        );
        return states.every(
          (state) =>
            state.includes('cluster_state:ok') &&
            state.includes(`cluster_slots_assigned:${String(SLOTS)}`) &&
            state.includes(`cluster_known_nodes:${String(this.nodes.length)}`),
        );
      },
      { timeout: 20_000, what: 'the cluster to agree' },
    );
  }

  async close(): Promise<void> {
    this.forget();
    await Promise.all(this.nodes.map((node) => node.close()));
  }

  private firstSlot(index: number): number {
    return Math.floor((SLOTS * index) / this.nodes.length);
  }

  private async join(): Promise<void> {
    await Promise.all(
      this.nodes.map(async (node, index) => {
        const first = this.firstSlot(index);
        const slots = Array.from({ length: this.firstSlot(index + 1) - first }, (_, i) => first + i);
        await node.command('CLUSTER', 'ADDSLOTS', ...slots);
        // Each its own epoch from the start: nodes that must agree on one first take their time.
        await node.command('CLUSTER', 'SET-CONFIG-EPOCH', index + 1);
      }),
    );
    for (const node of this.nodes.slice(1)) await node.command('CLUSTER', 'MEET', this.host, this.port);
    await this.settled();
  }
}

export function startRedisCluster(masters?: number): Promise<RedisCluster> {
  return RedisCluster.start(masters);
}
