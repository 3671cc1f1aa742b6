import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { Logger } from '../src/observability/logger.js';
import { RedisLink } from '../src/store/redis-link.js';
import { eventually, sleep } from './support/lifetime.js';
import { ownRedis, startRedis, startRedisProxy, type RedisProxy, type RedisServer } from './support/redis.js';

// Only a Redis of the tests' own may be killed, frozen or configured; REDIS_URL may be somebody else's.
const withReplicas = ownRedis ? describe : describe.skip;

withReplicas('whether a write has a second copy', () => {
  let master: RedisServer;
  let wire: RedisProxy;
  let link: RedisLink;
  let written = 0;

  beforeEach(async () => {
    master = await startRedis({ args: ['--repl-diskless-sync-delay', '0'] });
    wire = await startRedisProxy(master);
    const logger = new Logger('error', { write: () => undefined });
    const settings = { url: wire.url, cluster: false, connectTimeout: 500, commandTimeout: 250 };
    link = new RedisLink(settings, logger);
    link.connect();
    await eventually(() => link.redis.status === 'ready', { what: 'the connection' });
  });

  afterEach(async () => {
    await link.close();
    await wire.close();
    await master.close();
  });

  const write = async (): Promise<void> => {
    written += 1;
    await link.sideways((redis) => redis.set(`${master.prefix}:k`, written, 'PX', 60_000));
  };

  const inStep = async (): Promise<boolean> => {
    await write();
    return (await link.confirm()) === 'replicated';
  };

  async function addReplica(): Promise<RedisServer> {
    const replica = await startRedis({ args: ['--replicaof', master.host, String(master.port)] });
    await eventually(
      async () =>
        String(await replica.command('INFO', 'replication')).includes('master_link_status:up') &&
        String(await master.command('INFO', 'replication')).includes('state=online'),
      { timeout: 20_000, what: 'the replica to be in step' },
    );
    // A new replica says what it has once a second, until it has been sent something.
    await eventually(inStep, { what: 'the replica to answer at once' });
    return replica;
  }

  test('no replica: unreplicated, at once', async () => {
    await write();
    expect(await link.confirm()).toBe('unreplicated');
  });

  test('a replica that keeps up: replicated, and it has what was written', async () => {
    const replica = await addReplica();
    let confirmed = 0;
    for (let i = 0; i < 20; i += 1) {
      // A busy machine may be too late for the question: then nothing is claimed.
      if (!(await inStep())) continue;
      confirmed += 1;
      expect(await replica.command('GET', `${master.prefix}:k`)).toBe(String(written));
    }
    expect(confirmed).toBeGreaterThan(0);
    await replica.close();
  });

  test('a replica that stands still: unconfirmed, and replicated again when it goes on', async () => {
    const replica = await addReplica();
    replica.pause();
    await write();
    expect(await link.confirm()).toBe('unconfirmed');
    // Requests do not wait behind the question.
    await link.run((redis) => redis.ping());
    replica.resume();
    await eventually(async () => (await link.confirm()) === 'replicated', {
      what: 'the replica to catch up',
    });
    await replica.close();
  });

  test('a connection lost after the write: unconfirmed, though the next one sees a replica', async () => {
    const replica = await addReplica();
    replica.pause();
    await write();
    wire.cutAll();
    expect(await link.confirm()).toBe('unconfirmed');
    replica.resume();
    await write();
    expect(await link.confirm()).toBe('unconfirmed');
    await replica.close();
  });

  test('a Redis that is away or stands still: unconfirmed', async () => {
    await write();
    wire.blackhole();
    expect(await link.confirm()).toBe('unconfirmed');
    await wire.heal();
    await eventually(
      () =>
        write().then(
          () => true,
          () => false,
        ),
      { what: 'writes to be taken' },
    );
    await master.kill();
    expect(await link.confirm()).toBe('unconfirmed');
    await master.restart();
  });

  test('slow work at the side keeps nobody waiting', async () => {
    const slow = link.sideways((redis) => redis.blpop(`${master.prefix}:nothing`, 1));
    await sleep(20);
    for (let i = 0; i < 20; i += 1) await link.run((redis) => redis.ping());
    expect(await slow).toBeNull();
  });
});
