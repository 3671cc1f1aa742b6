import { beforeAll, beforeEach, expect, test } from '@jest/globals';
import { Redis } from 'ioredis';
import { ownRedis, startRedis, startRedisProxy, type RedisProxy, type RedisServer } from './redis.js';

let redis: RedisServer;
let proxy: RedisProxy;

function connection(): Redis {
  const client = new Redis(proxy.url, {
    commandTimeout: 200,
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    retryStrategy: () => 20,
    disableClientInfo: true,
  });
  client.on('error', () => undefined);
  return client;
}

beforeAll(async () => {
  redis = await startRedis({ appendonly: true });
  proxy = await startRedisProxy(redis);
});

beforeEach(() => proxy.heal());

const key = (name: string): string => `${redis.prefix}:${name}`;

test('a dropped reply: the command was executed and the client sees an error', async () => {
  const client = connection();
  await client.set(key('a'), '1');
  const dropped = proxy.dropNextReply(/incr/i);
  await expect(client.incr(key('a'))).rejects.toThrow();
  await expect(dropped).resolves.toMatch(/incr/i);
  expect(await redis.command('GET', key('a'))).toBe('2');
  client.disconnect();
});

test('a black hole times out, healing delivers', async () => {
  const client = connection();
  await client.set(key('b'), '1');
  proxy.blackhole();
  await expect(client.get(key('b'))).rejects.toThrow(/timed out/i);
  await proxy.heal();
  await expect(client.get(key('b'))).resolves.toBe('1');
  client.disconnect();
});

test('delay, refusal and a cut in the middle of a reply', async () => {
  const client = connection();
  await client.set(key('c'), 'x'.repeat(500));
  proxy.delay(100);
  const began = Date.now();
  await client.get(key('c'));
  expect(Date.now() - began).toBeGreaterThanOrEqual(95);
  proxy.delay(0);
  proxy.cutAfter(100);
  await expect(client.get(key('c'))).rejects.toThrow();
  const { port } = proxy;
  await proxy.refuse();
  await expect(client.get(key('c'))).rejects.toThrow();
  await proxy.heal();
  expect(proxy.port).toBe(port);
  client.disconnect();
  const again = connection();
  await expect(again.get(key('c'))).resolves.toHaveLength(500);
  again.disconnect();
});

// Only a Redis of the tests' own may be killed, frozen or configured; REDIS_URL may be somebody else's.
(ownRedis ? test : test.skip)(
  'killed and restarted it has its data and its port; frozen it waits',
  async () => {
    await redis.command('SET', key('d'), '1');
    const { pid } = redis;
    await redis.kill();
    expect(redis.running).toBe(false);
    await redis.restart();
    expect(redis.pid).not.toBe(pid);
    expect(await redis.command('GET', key('d'))).toBe('1');
    redis.pause();
    const answer = redis.command('PING');
    const first = await Promise.race([answer, new Promise((resolve) => setTimeout(resolve, 100, 'nothing'))]);
    expect(first).toBe('nothing');
    redis.resume();
    await expect(answer).resolves.toBe('PONG');
    expect(await redis.keys()).toContain(key('d'));
  },
);
