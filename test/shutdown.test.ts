import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Agent, request as httpRequest } from 'node:http';
import { afterAll, describe, expect, test } from '@jest/globals';
import { program, startCloakroom, type Cloakroom, type Replica } from './support/cloakroom.js';
import { startProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, guard, sleep } from './support/lifetime.js';
import { random } from './support/random.js';
import { sessionPair } from './support/script-request.js';
import { StoredSession } from './support/stored-session.js';

const rooms: Cloakroom[] = [];

afterAll(async () => {
  for (const room of rooms) await expectLeftClean(room);
});

async function start(options: Parameters<typeof startCloakroom>[0]): Promise<Cloakroom> {
  const room = await startCloakroom(options);
  rooms.push(room);
  return room;
}

async function readiness(replica: Replica): Promise<number> {
  const answer = await fetch(`http://127.0.0.1:${replica.port}/readyz`).catch(() => undefined);
  await answer?.text();
  return answer?.status ?? 0;
}

describe('B-35 SIGTERM', () => {
  test('B-35 readyz turns 503 at once while calls are still served, running ones finish, and the exit code is 0', async () => {
    const c = await start({ replicas: 1, config: { shutdown: { delay: '1500ms', drain: '15s' } } });
    const client = await c.signedIn();
    // One with a connection of its own that was opened long before, and stays busy until after the delay.
    const running = [
      client.api('/api/delay/2500'),
      client.api('/api/drip/40/60'),
      client.api('/api/sse/20/120'),
    ];
    await eventually(() => c.upstream.requests.length === 3);
    const { first } = c;
    const mark = first.mark();
    first.kill('SIGTERM');
    await first.waitForEvent('draining', { from: mark });
    expect(await readiness(first)).toBe(503);
    const during = await client.api('/api/x');
    expect(during.status).toBe(200);
    expect(during.headers.connection).toBe('close');
    expect((await client.fetch('/livez')).status).toBe(200);

    const [delayed, dripped, events] = await Promise.all(running);
    expect([delayed?.status, dripped?.text.length, events?.text.match(/data:/g)?.length]).toEqual([
      200, 40, 20,
    ]);
    // Not at the end of the drain time: an idle connection must not hold the process.
    expect(await first.exited(12_000)).toBe(0);
    expect(first.events('stopped', mark)).toHaveLength(1);
    expect(client.staleRetries).toBe(0);
  });

  test('B-35 an endless answer is cut at the end of the drain time, and the exit code is 0 all the same', async () => {
    const c = await start({ replicas: 1, config: { shutdown: { delay: '100ms', drain: '1s' } } });
    const client = await c.signedIn();
    const stream = await client.open('/api/sse/100000/20');
    await stream.until('"n":3');
    c.first.kill('SIGTERM');
    await expect(stream.until('never comes', 20_000)).rejects.toThrow(/ended/);
    expect(await c.first.exited(10_000)).toBe(0);
    await eventually(() => c.upstream.last?.aborted);
  });

  test('B-35 the reader of an event stream is told when to come back before the stream is cut', async () => {
    const c = await start({ replicas: 1, config: { shutdown: { delay: '100ms', drain: '2s' } } });
    const client = await c.signedIn();
    const stream = await client.open('/api/sse/100000/20');
    await stream.until('"n":3');
    c.first.kill('SIGTERM');
    expect(await stream.until('retry: ', 10_000)).toMatch(/\n\nretry: /);
    expect(await c.first.exited(10_000)).toBe(0);
  });

  test('B-35 a refresh in flight finishes and is stored, so that another replica goes on with it', async () => {
    const provider = await startProvider({ modes: { rotation: 'strict', accessTokenLifetime: 2 } });
    const c = await start({ replicas: 2, provider, config: { shutdown: { delay: '100ms', drain: '10s' } } });
    for (let round = 0; round < 2; round += 1) {
      const client = await c.signedIn({ replica: 0 });
      const stored = new StoredSession(c, client);
      await sleep(2100);
      provider.next('refresh', { delayAfter: 1200 });
      const before = provider.ledger.count('refresh');
      const waiting = client.api('/api/x', { replica: 0 });
      await eventually(() => provider.ledger.count('refresh') > before);
      await sleep(random(`signal ${round}`).int(0, 300));
      c.first.kill('SIGTERM');
      expect((await waiting).status).toBe(200);
      expect(await c.first.exited(12_000)).toBe(0);
      expect(await stored.generation()).toBe(2);
      expect((await client.api('/api/x', { replica: 1 })).status).toBe(200);
      await c.first.start();
    }
    expect(provider.ledger.doubleSpends).toHaveLength(0);
  }, 60_000);

  test('B-35 a refresh in the background, which no request waits for, is stored as well', async () => {
    const provider = await startProvider({ modes: { rotation: 'strict', accessTokenLifetime: 30 } });
    const c = await start({ replicas: 2, provider, config: { shutdown: { delay: '100ms', drain: '10s' } } });
    provider.modes.accessTokenLifetime = 4;
    const client = await c.signedIn({ replica: 0 });
    const stored = new StoredSession(c, client);
    provider.always('refresh', { delayAfter: 2000 });
    await eventually(
      async () => {
        expect((await client.api('/api/x', { replica: 0 })).status).toBe(200);
        return provider.ledger.count('refresh') > 0;
      },
      { timeout: 10_000, interval: 50 },
    );
    c.first.kill('SIGTERM');
    expect(await c.first.exited(12_000)).toBe(0);
    expect(await stored.generation()).toBe(2);
    provider.always('refresh', undefined);
    expect((await client.api('/api/x', { replica: 1 })).status).toBe(200);
    expect(provider.ledger.doubleSpends).toHaveLength(0);
  });

  test('B-35 it ends as well when whoever read the log has gone, and its last lines cannot be written', async () => {
    const c = await start({ replicas: 1, config: { shutdown: { delay: '0s', drain: '5s' } } });
    await c.first.stop();
    // From the signal on every write waits for its turn, so that lines are still under way when the process is about to exit.
    const busy = `import { pbkdf2 } from 'node:crypto'; const again = () => pbkdf2('', '', 1e6, 32, 'sha256', again); process.on('SIGTERM', again);`;
    // Not through the rig, which reads the log to its end.
    const child = spawn(
      process.execPath,
      ['--import', `data:text/javascript,${busy}`, program, 'start', '--config', c.first.configFile],
      { env: { ...c.first.environment, UV_THREADPOOL_SIZE: '1' }, stdio: ['ignore', 'pipe', 'ignore'] },
    );
    guard(child);
    const ended = once(child, 'exit');
    let log = '';
    child.stdout.on('data', (chunk: Buffer) => {
      log += chunk.toString();
    });
    await eventually(() => log.includes('"listening"'), { timeout: 20_000 });
    child.stdout.destroy();
    child.kill('SIGTERM');
    expect(await ended).toEqual([0, null]);
  });

  test('B-35 with nothing to do it ends by itself, also on SIGINT, and a second signal does no harm', async () => {
    const c = await start({ replicas: 2, config: { shutdown: { delay: '200ms', drain: '5s' } } });
    await Promise.all(c.replicas.map((replica) => fetch(`http://127.0.0.1:${replica.port}/livez`)));
    c.replica(0).kill('SIGINT');
    c.replica(1).kill('SIGTERM');
    await sleep(50);
    expect(await c.replica(0).exited(4000)).toBe(0);
    expect(await c.replica(1).exited(4000)).toBe(0);
  });
});

/** A load balancer with a readiness probe: it sends each request to one of those that answered 200 last. */
class Balancer {
  readonly #agents = new Map<Replica, Agent>();
  #ready = new Set<Replica>();
  #turn = 0;
  #watching = true;
  readonly #watch: Promise<void>;

  constructor(private readonly replicas: readonly Replica[]) {
    for (const replica of replicas) {
      this.#ready.add(replica);
      this.#agents.set(replica, new Agent({ keepAlive: true }));
    }
    this.#watch = this.#probe();
  }

  async #probe(): Promise<void> {
    while (this.#watching) {
      const states = await Promise.all(this.replicas.map(readiness));
      this.#ready = new Set(this.replicas.filter((_, at) => states[at] === 200));
      await sleep(50);
    }
  }

  isReady(replica: Replica): boolean {
    return this.#ready.has(replica);
  }

  async close(): Promise<void> {
    this.#watching = false;
    await this.#watch;
    for (const agent of this.#agents.values()) agent.destroy();
  }

  /** The status, or what went wrong. */
  send(path: string, headers: Record<string, string>): Promise<number | string> {
    const choice = [...this.#ready];
    const replica = choice[(this.#turn += 1) % Math.max(1, choice.length)];
    if (replica === undefined) return Promise.resolve('nobody is ready');
    return new Promise((resolve) => {
      const agent = this.#agents.get(replica);
      const request = httpRequest({
        port: replica.port,
        host: '127.0.0.1',
        path,
        headers,
        ...(agent === undefined ? {} : { agent }),
      });
      request.once('error', (error: NodeJS.ErrnoException) => {
        resolve(
          `replica ${replica.index}: ${String(error.code)}${request.reusedSocket ? ' on a kept connection' : ''}`,
        );
      });
      request.once('response', (response) => {
        response.resume();
        response.once('end', () => resolve(response.statusCode ?? 0));
        response.once('error', (error) => resolve(`broke off: ${error.message}`));
      });
      request.end();
    });
  }
}

test('B-35 a rolling restart of four replicas under load loses no request', async () => {
  const c = await start({ replicas: 4, tap: false, config: { shutdown: { delay: '1500ms', drain: '10s' } } });
  const clients = await Promise.all(Array.from({ length: 8 }, () => c.signedIn()));
  const balancer = new Balancer(c.replicas);
  const outcomes = new Map<number | string, number>();
  const draw = random('rolling');
  let working = true;
  const workers = Array.from({ length: 24 }, async (_, at) => {
    const client = clients[at % clients.length];
    if (client === undefined) return;
    const headers = { host: 'app.example.test', cookie: sessionPair(client), 'x-csrf': '1' };
    while (working) {
      const outcome = await balancer.send(
        draw.chance(0.1) ? `/api/delay/${draw.int(10, 700)}` : '/api/x',
        headers,
      );
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
      await sleep(draw.int(0, 30));
    }
  });
  for (const replica of c.replicas) {
    expect(await replica.stop()).toBe(0);
    await replica.start();
    await eventually(() => balancer.isReady(replica), { timeout: 10_000 });
  }
  await sleep(300);
  working = false;
  await Promise.all(workers);
  await balancer.close();
  const served = outcomes.get(200) ?? 0;
  expect(Object.fromEntries(outcomes)).toEqual({ 200: served });
  expect(served).toBeGreaterThan(500);
}, 90_000);
