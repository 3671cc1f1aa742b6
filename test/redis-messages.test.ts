import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Logger } from '../src/observability/logger.js';
import { RedisLink } from '../src/store/redis-link.js';
import { eventually } from './support/lifetime.js';
import { ownRedis, startRedis, startRedisProxy, type RedisProxy, type RedisServer } from './support/redis.js';
import { startRedisCluster } from './support/redis-cluster.js';

interface Heard {
  messages: string[];
  gaps: number;
}

const quiet = new Logger('error', { write: () => undefined });
const limits = { connectTimeout: 500, commandTimeout: 250 };

function listen(link: RedisLink, channel: string): Heard {
  const heard: Heard = { messages: [], gaps: 0 };
  link.subscribe(
    channel,
    (message) => heard.messages.push(message),
    () => (heard.gaps += 1),
  );
  return heard;
}

describe('messages from one Redis', () => {
  let redis: RedisServer;
  let wire: RedisProxy;
  let link: RedisLink;
  let channel: string;

  beforeEach(async () => {
    redis = await startRedis();
    wire = await startRedisProxy(redis);
    link = new RedisLink({ url: wire.url, cluster: false, ...limits }, quiet);
    channel = `${redis.prefix}:announcements`;
  });

  afterEach(async () => {
    await link.close();
    await wire.close();
    await redis.close();
  });

  const publish = (text: string): Promise<unknown> => redis.command('PUBLISH', channel, text);

  test('each arrives once and in order, at every listener', async () => {
    const first = listen(link, channel);
    const second = listen(link, channel);
    await eventually(() => first.gaps === 1 && second.gaps === 1);
    const third = listen(link, `${channel}:other`);
    await eventually(() => third.gaps === 1);
    for (const text of ['a', 'b', 'c']) await publish(text);
    await eventually(() => second.messages.length === 3);
    expect([first.messages, second.messages, third.messages]).toEqual([['a', 'b', 'c'], ['a', 'b', 'c'], []]);
  });

  test.each<[string, () => Promise<void> | void, () => Promise<void> | void]>([
    ['cut', () => wire.cutAll(), () => undefined],
    ['refused for a while', () => wire.refuse(), () => wire.heal()],
    ['silent, with nobody to say so', () => wire.blackhole(), () => wire.heal()],
  ])('a connection that is %s is made anew, and the gap is told', async (_name, fault, heal) => {
    const heard = listen(link, channel);
    await eventually(() => heard.gaps === 1);
    const { connections } = wire.stats;
    await fault();
    await eventually(() => wire.stats.connections > connections || wire.stats.open === 0);
    await heal();
    await eventually(() => heard.gaps >= 2, { what: 'the subscription to be back' });
    await publish('after');
    await eventually(() => heard.messages.includes('after'));
  });

  test('a Redis that is not there at first is no fault: the subscription begins when it comes', async () => {
    await wire.refuse();
    const heard = listen(link, channel);
    expect(heard.gaps).toBe(0);
    await wire.heal();
    await eventually(() => heard.gaps === 1);
    await publish('x');
    await eventually(() => heard.messages.length === 1);
  });

  test('a listener that throws harms neither the others nor the connection', async () => {
    link.subscribe(
      channel,
      () => {
        throw new Error('broken listener');
      },
      () => {
        throw new Error('broken listener');
      },
    );
    const heard = listen(link, channel);
    await eventually(() => heard.gaps === 1);
    await publish('x');
    await publish('y');
    await eventually(() => heard.messages.length === 2);
    expect(heard.gaps).toBe(1);
  });

  test('after the end nothing is heard and no connection is left', async () => {
    const heard = listen(link, channel);
    await eventually(() => heard.gaps === 1);
    await link.close();
    await eventually(() => wire.stats.open === 0);
    await publish('late');
    listen(link, channel);
    expect(heard.messages).toEqual([]);
  });
});

// Only a Redis of the tests' own may be killed, frozen or configured; REDIS_URL may be somebody else's.
(ownRedis ? test : test.skip)(
  'messages from a Cluster: published at any node, heard; a node that goes is replaced by another',
  async () => {
    const cluster = await startRedisCluster();
    const link = new RedisLink({ url: cluster.url, cluster: true, ...limits }, quiet);
    link.connect();
    await eventually(() => link.redis.status === 'ready');
    const heard = listen(link, 'c');
    await eventually(() => heard.gaps === 1);
    for (const node of cluster.nodes) await node.command('PUBLISH', 'c', String(node.port));
    await eventually(() => heard.messages.length === 3);
    const listening = async (): Promise<number> => {
      for (const [index, node] of cluster.nodes.entries()) {
        const [, listeners] = node.running
          ? ((await node.command('PUBSUB', 'NUMSUB', 'c')) as unknown[])
          : [];
        if (Number(listeners) > 0) return index;
      }
      return -1;
    };
    const at = await listening();
    await cluster.node(at).kill();
    await eventually(() => heard.gaps >= 2, { what: 'the subscription at another node' });
    expect(await listening()).not.toBe(at);
    await cluster.node((at + 1) % 3).command('PUBLISH', 'c', 'after');
    await eventually(() => heard.messages.includes('after'));
    await link.close();
    await cluster.close();
  },
);
