import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { BrowserClient, Me } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { sleep } from './support/lifetime.js';
import { StoredSession } from './support/stored-session.js';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

async function signInWithKey(room: Cloakroom): Promise<{ client: BrowserClient; key: string }> {
  const client = await room.signedIn();
  const { key } = new StoredSession(room, client);
  expect(await room.redis?.client.exists(key)).toBe(1);
  return { client, key };
}

const pttl = async (room: Cloakroom, key: string): Promise<number> =>
  Number(await room.redis?.client.pttl(key));

function times(me: Me): { created: number; idle: number; absolute: number } {
  const { createdAt, idleExpiresAt, absoluteExpiresAt } = me.session;
  return {
    created: Date.parse(createdAt),
    idle: Date.parse(idleExpiresAt),
    absolute: Date.parse(absoluteExpiresAt),
  };
}

describe('A-053 by default', () => {
  let c: Cloakroom;
  beforeAll(async () => {
    c = await startCloakroom({ replicas: 2 });
  });
  afterAll(async () => {
    await expectLeftClean(c);
  });

  test('A-053 a session idles 30 minutes and lives 12 hours at most, in Redis as in /auth/me', async () => {
    const { client, key } = await signInWithKey(c);
    const me = await client.me();
    expect(me.headers['cache-control']).toBe('no-store');
    const { created, idle, absolute } = times(me.json<Me>());
    expect(absolute - created).toBe(12 * HOUR);
    expect(Math.abs(created - Date.now())).toBeLessThan(10_000);
    expect(idle - created).toBeGreaterThanOrEqual(30 * MINUTE);
    expect(idle - created).toBeLessThan(31 * MINUTE);
    const left = await pttl(c, key);
    expect(left).toBeGreaterThan(29 * MINUTE);
    expect(left).toBeLessThanOrEqual(30 * MINUTE);
  });

  test('A-053 fresh activity writes nothing: the expiry is moved at most once a minute', async () => {
    const { client, key } = await signInWithKey(c);
    const written = async (): Promise<string> => String(await c.redis?.client.hget(key, 'touched'));
    const before = await written();
    expect(before).toMatch(/^\d+$/);
    const left = await pttl(c, key);
    for (let n = 0; n < 20; n += 1) expect((await client.api('/api/x')).status).toBe(200);
    expect(await written()).toBe(before);
    expect(await pttl(c, key)).toBeLessThanOrEqual(left);
  });
});

describe('A-053 with short times', () => {
  let c: Cloakroom;
  const IDLE = 2500;
  const ABSOLUTE = 6000;
  beforeAll(async () => {
    c = await startCloakroom({
      replicas: 2,
      config: { session: { idle: `${IDLE}ms`, absolute: `${ABSOLUTE}ms` } },
    });
  });
  afterAll(async () => {
    await expectLeftClean(c, ABSOLUTE);
  });

  /** Calls until the answer is no longer 200; how long that took since `from`, and the answer. */
  async function until401(
    from: number,
    call: () => Promise<{ status: number }>,
  ): Promise<{ lived: number; status: number }> {
    for (;;) {
      const { status } = await call();
      if (status !== 200 || Date.now() - from > ABSOLUTE + 8000) return { lived: Date.now() - from, status };
      await sleep(100);
    }
  }

  test.concurrent(
    'A-053 activity on any replica keeps it alive past its idle time, but never past the absolute one',
    async () => {
      const { client, key } = await signInWithKey(c);
      const { created, absolute } = times((await client.me()).json<Me>());
      expect(absolute - created).toBe(ABSOLUTE);
      const samples: { left: number; at: number }[] = [];
      const { lived, status } = await until401(created, async () => {
        samples.push({ at: Date.now(), left: await pttl(c, key) });
        return client.api('/api/x');
      });
      expect(status).toBe(401);
      expect(lived).toBeGreaterThan(IDLE * 1.5);
      expect(lived).toBeGreaterThanOrEqual(ABSOLUTE - 200);
      for (const { at, left } of samples) {
        expect(left).toBeLessThanOrEqual(IDLE);
        // Another 50 ms for the command itself.
        expect(left).toBeLessThanOrEqual(Math.max(-2, absolute - at + 50));
      }
      expect(await pttl(c, key)).toBe(-2);
    },
  );

  test.concurrent(
    'A-053 without activity it ends after its idle time, and a look with slide=false is no activity',
    async () => {
      const { client, key } = await signInWithKey(c);
      const first = times((await client.me({ slide: false })).json<Me>());
      let last = first.idle;
      const { lived, status } = await until401(first.created, async () => {
        const me = await client.me({ slide: false });
        if (me.status === 200) last = times(me.json<Me>()).idle;
        return me;
      });
      expect(status).toBe(401);
      expect(last).toBe(first.idle);
      expect(lived).toBeGreaterThanOrEqual(IDLE - 200);
      expect(lived).toBeLessThan(ABSOLUTE - 200);
      expect(await pttl(c, key)).toBe(-2);
      expect((await client.api('/api/x')).status).toBe(401);
    },
  );

  test.concurrent('A-053 me counts as activity unless told otherwise, and says so', async () => {
    const { client, key } = await signInWithKey(c);
    const first = times((await client.me()).json<Me>());
    await sleep(IDLE / 2);
    const second = times((await client.me()).json<Me>());
    expect(second.idle).toBeGreaterThan(first.idle);
    expect(second.absolute).toBe(first.absolute);
    await sleep(IDLE * 0.7);
    expect(await pttl(c, key)).toBeGreaterThan(0);
    expect((await client.api('/api/x')).status).toBe(200);
  });
});

test('A-053 a session whose absolute time is nearer than its idle time idles no longer than that', async () => {
  const c = await startCloakroom({ replicas: 1, config: { session: { idle: '1h', absolute: '90m' } } });
  const { client, key } = await signInWithKey(c);
  expect(await pttl(c, key)).toBeLessThanOrEqual(HOUR);
  const { created, idle, absolute } = times((await client.me()).json<Me>());
  expect(absolute - created).toBe(90 * MINUTE);
  expect(idle).toBeLessThanOrEqual(absolute);
  await expectLeftClean(c);
  await c.close();
});
