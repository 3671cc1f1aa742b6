import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { AdminClient, adminConfig, adminToken } from './support/admin-client.js';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { EventReader } from './support/event-reader.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';
import { deliver, logoutToken, person } from './support/logout-tokens.js';
import { loginsNeedRefresh } from './support/over-at-once.js';
import { startRedis, startRedisProxy } from './support/redis.js';
import { scriptRequest, sessionPair } from './support/script-request.js';
import { RawConnection } from './support/raw.js';
import { StoredSession } from './support/stored-session.js';

const DAY = 24 * 3600 * 1000;
const REPLICAS = 4;

/** A tab on each replica. */
async function tabs(room: Cloakroom, client: BrowserClient): Promise<EventReader[]> {
  const readers = await Promise.all(
    room.replicas.map((_, replica) => EventReader.open(client, '/auth/events', { replica })),
  );
  expect(readers.map(({ status }) => status)).toEqual(room.replicas.map(() => 200));
  return readers;
}

/** Every tab was told why, and then its stream ended in order. */
async function expectEnded(readers: EventReader[], reason: string): Promise<void> {
  for (const reader of readers) {
    await reader.end();
    expect(reader.named('ended')).toEqual([{ reason }]);
    expect(reader.complete).toBe(true);
  }
}

const operator = adminToken('operator', 'end');
let c: Cloakroom;
let admin: AdminClient;
let quiet: EventReader;

beforeAll(async () => {
  c = await startCloakroom({
    replicas: REPLICAS,
    config: {
      admin: adminConfig([operator]),
      session: { freshLoginFor: '0s' },
      store: { redis: { commandTimeout: '2s' } },
    },
  });
  admin = new AdminClient(c, operator);
  quiet = await EventReader.open(await c.signedIn({ user: 'quiet' }));
});

afterAll(async () => {
  await expectLeftClean(c, 32 * DAY);
});

describe('A-094 /auth/events', () => {
  test('A-094 is an event stream that nobody caches or collects, and says when to come back', async () => {
    const client = await c.signedIn();
    const reader = await EventReader.open(client);
    expect(reader.status).toBe(200);
    expect(reader.headers).toMatchObject({
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      'x-accel-buffering': 'no',
      'x-content-type-options': 'nosniff',
    });
    await eventually(() => reader.retries.length > 0);
    expect(reader.retries[0]).toBeGreaterThanOrEqual(500);
    reader.leave();
  });

  test.each<[string, number, Record<string, string>]>([
    ['EventSource of our own page', 200, { 'sec-fetch-site': 'same-origin' }],
    ['our own Origin', 200, { origin: 'https://app.example.test' }],
    ['the CSRF header', 200, { 'x-csrf': '1' }],
    ['nothing', 403, {}],
    ['a navigation', 403, { 'sec-fetch-site': 'none' }],
    ['a sibling site', 403, { 'sec-fetch-site': 'same-site' }],
    ['another site', 403, { 'sec-fetch-site': 'cross-site' }],
    ['another origin', 403, { origin: 'https://evil.example' }],
    ['no origin', 403, { origin: 'null', 'sec-fetch-site': 'same-origin' }],
    ['the header from another site', 403, { 'x-csrf': '1', 'sec-fetch-site': 'cross-site' }],
    ['the header from another origin', 403, { 'x-csrf': '1', origin: 'https://evil.example' }],
    ['another value of the header', 403, { 'x-csrf': '0' }],
  ])('A-095 %s: %i', async (_, status, headers) => {
    const client = await c.signedIn();
    const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}`);
    const connection = await RawConnection.open(c.first.clientPort);
    const without = ['x-csrf', 'origin'];
    connection.write(scriptRequest(client, { target: '/auth/events', headers: lines, without }));
    await eventually(() => connection.received.includes('\r\n\r\n'));
    expect(connection.received.toString('latin1')).toMatch(new RegExp(`^HTTP/1.1 ${String(status)} `));
    connection.close();
  });

  test('A-094 without a session, and with one that has ended: 401 as a problem, so that EventSource gives up', async () => {
    const client = await c.signedIn();
    const cookie = sessionPair(client);
    expect((await client.logout({ navigate: false })).post.status).toBe(200);
    const dead = await client.api('/auth/events', { cookie });
    expect([dead.status, dead.problem]).toEqual([401, 'session-required']);
    expect(dead.json()).toMatchObject({ reason: 'user' });
    expect((await c.client().api('/auth/events')).problem).toBe('session-required');
    expect((await client.api('/auth/events', { method: 'HEAD' })).status).toBe(405);
  });

  test('A-094 a logout in one tab is seen in all others, on every replica; other sessions see nothing', async () => {
    const client = await c.signedIn({ user: 'ada' });
    const other = await EventReader.open(await c.signedIn({ user: 'ada' }));
    const readers = await tabs(c, client);
    expect((await client.logout({ navigate: false })).post.status).toBe(200);
    await expectEnded(readers, 'user');
    expect(other.events).toEqual([]);
    other.leave();
  });

  test.each<[string, string, (client: BrowserClient) => Promise<unknown>]>([
    [
      'is ended by its owner elsewhere',
      'elsewhere',
      async (client) => {
        const other = await c.signedIn({ user: 'bo' });
        const { handle } = new StoredSession(c, client);
        const answer = await other.api(`/auth/sessions/${handle}`, { method: 'DELETE' });
        expect(answer.status).toBe(204);
      },
    ],
    [
      'is replaced by a new login',
      'replaced',
      async (client) => {
        expect((await client.login({ as: 'bo' })).status).toBe(303);
      },
    ],
    [
      'is ended by an operator',
      'operator',
      async (client) => {
        const { handle } = new StoredSession(c, client);
        const answer = await admin.post('/v1/endings', { filter: { handle }, reason: 'test' });
        expect(answer.status).toBeLessThan(300);
      },
    ],
    [
      'loses its key by hand',
      'operator',
      async (client) => {
        await new StoredSession(c, client).delete();
      },
    ],
  ])('A-094 a session that %s: every tab on every replica is told %s', async (_, reason, act) => {
    const client = await c.signedIn({ user: 'bo' });
    const readers = await tabs(c, client);
    await act(client);
    await expectEnded(readers, reason);
  });

  test('A-094 ended by the provider, by back-channel logout: every tab on every replica is told', async () => {
    const { client, sub, sid } = await person(c);
    const readers = await tabs(c, client);
    const answer = await deliver(c, await logoutToken(c.provider, { sub, sid }));
    expect([answer.status, answer.text]).toEqual([200, '']);
    await expectEnded(readers, 'provider');
  });

  test('A-094 a refresh that the provider refuses: every tab on every replica is told', async () => {
    loginsNeedRefresh(c.provider);
    const client = await c.signedIn({ user: 'cy' });
    const readers = await tabs(c, client);
    c.provider.next('refresh', { error: 'invalid_grant', status: 400 });
    const answer = await client.api('/api/x');
    expect([answer.status, answer.problem]).toEqual([401, 'session-ended']);
    await expectEnded(readers, 'refresh-refused');
    c.provider.reset();
  });

  test('A-094 sixteen streams of a session in a process; the next is told to wait, and room is made by leaving', async () => {
    const client = await c.signedIn({ user: 'many' });
    const open = (replica: number): Promise<EventReader> =>
      EventReader.open(client, '/auth/events', { replica });
    const readers = await Promise.all(Array.from({ length: 16 }, () => open(0)));
    expect(new Set(readers.map(({ status }) => status))).toEqual(new Set([200]));
    const refused = await client.api('/auth/events', { replica: 0 });
    expect([refused.status, refused.problem]).toEqual([429, 'too-many-requests']);
    expect(Number(refused.headers['retry-after'])).toBeGreaterThan(0);
    const other = await EventReader.open(await c.signedIn({ user: 'many' }), '/auth/events', { replica: 0 });
    expect([(await open(1)).status, other.status]).toEqual([200, 200]);
    readers[0]?.leave();
    const late = await eventually(async () => {
      const reader = await open(0);
      return reader.status === 200 && reader;
    });
    await client.logout({ navigate: false });
    await expectEnded([...readers.slice(1), late], 'user');
    other.leave();
  });
});

describe('A-094 /auth/events and the times of a session', () => {
  test.concurrent(
    'A-094 warns before a session that is not used runs out, tells of an extension, warns again, and tells of the end: being open is no use',
    async () => {
      const c = await startCloakroom({ replicas: 2, config: { session: { idle: '5s', warnBefore: '3s' } } });
      const client = await c.signedIn();
      const readers = await tabs(c, client);
      for (const reader of readers) {
        expect(await reader.first('expiring')).toMatchObject({ kind: 'idle' });
        expect(reader.events.map(({ event }) => event)).toEqual(['expiring']);
      }
      const me = (await client.me({ replica: 0 })).json<{ session: { idleExpiresAt: string } }>();
      for (const reader of readers) {
        const { idleExpiresAt } = (await reader.first('extended')) as { idleExpiresAt: string };
        // Said by /auth/me before it was written.
        expect(Math.abs(Date.parse(idleExpiresAt) - Date.parse(me.session.idleExpiresAt))).toBeLessThan(2000);
      }
      await expectEnded(readers, 'expired');
      for (const reader of readers) {
        expect(reader.events.map(({ event }) => event)).toEqual([
          'expiring',
          'extended',
          'expiring',
          'ended',
        ]);
        for (const data of reader.named('expiring')) {
          const left = (data as { in: number }).in;
          expect(Number.isInteger(left) && left > 0 && left <= 3).toBe(true);
        }
      }
      await c.close();
    },
    40_000,
  );

  test.concurrent(
    'A-094 warns of the end in any case, and no use puts it off',
    async () => {
      const c = await startCloakroom({
        replicas: 2,
        config: { session: { idle: '5s', absolute: '5s', warnBefore: '3s' } },
      });
      const client = await c.signedIn();
      const readers = await tabs(c, client);
      for (const reader of readers)
        expect(await reader.first('expiring')).toMatchObject({ kind: 'absolute' });
      await client.me();
      await expectEnded(readers, 'expired');
      for (const reader of readers) {
        expect(reader.events.map(({ event }) => event)).toEqual(['expiring', 'ended']);
      }
      await c.close();
    },
    40_000,
  );

  test.concurrent(
    'A-094 who comes back is warned again, and looking at the time with slide=false extends nothing',
    async () => {
      const c = await startCloakroom({ replicas: 1, config: { session: { idle: '4s', warnBefore: '4s' } } });
      const client = await c.signedIn();
      const first = await EventReader.open(client);
      await first.first('expiring');
      first.leave();
      const second = await EventReader.open(client);
      await second.first('expiring');
      await client.me({ slide: false });
      await expectEnded([second], 'expired');
      expect(second.named('extended')).toEqual([]);
      await c.close();
    },
    40_000,
  );
});

describe('A-094 /auth/events and the process it runs in', () => {
  test('A-094 works with the memory store', async () => {
    const c = await startCloakroom({
      redis: 'memory',
      config: { session: { idle: '3s', warnBefore: '1s' } },
    });
    const leaving = await c.signedIn();
    const staying = await c.signedIn();
    const [one, other] = [await EventReader.open(leaving), await EventReader.open(staying)];
    await leaving.logout({ navigate: false });
    await expectEnded([one], 'user');
    expect(await other.first('expiring')).toMatchObject({ kind: 'idle' });
    await expectEnded([other], 'expired');
    await c.close();
  }, 40_000);

  test('B-35 a shutdown sends the readers away with a word about when to come back; the session lives on', async () => {
    const c = await startCloakroom({ replicas: 2 });
    const client = await c.signedIn();
    const readers = await Promise.all(
      Array.from({ length: 8 }, () => EventReader.open(client, '/auth/events', { replica: 0 })),
    );
    const other = await EventReader.open(client, '/auth/events', { replica: 1 });
    expect(await c.first.stop()).toBe(0);
    for (const reader of readers) {
      await reader.end();
      expect([reader.complete, reader.retries.length, reader.events]).toEqual([true, 2, []]);
    }
    expect(other.over).toBe(false);
    expect((await client.me({ replica: 1 })).status).toBe(200);
    await c.close();
  }, 40_000);

  test('A-094 while Redis is away streams stay open, and what happened meanwhile is told once it is back', async () => {
    const redis = await startRedis();
    const proxy = await startRedisProxy(redis);
    const c = await startCloakroom({ replicas: 2, redis: proxy });
    const [gone, alive] = [await c.signedIn(), await c.signedIn()];
    const [ending, staying] = [await tabs(c, gone), await tabs(c, alive)];
    await proxy.refuse();
    await c.waitForEvent('store_unavailable');
    expect((await alive.me()).status).toBe(503);
    await new StoredSession(c, gone).delete();
    // Two looks at the sessions of open streams, which learn nothing.
    await sleep(2500);
    expect([...ending, ...staying].map(({ over }) => over)).toEqual([false, false, false, false]);
    await proxy.heal();
    await expectEnded(ending, 'operator');
    expect(staying.map(({ over, events }) => [over, events])).toEqual([
      [false, []],
      [false, []],
    ]);
    await c.close();
    await redis.close();
  }, 60_000);
});

describe('A-094 /auth/events after a while', () => {
  test('A-094 a stream with nothing to say shows a sign of life', async () => {
    await eventually(() => quiet.text.includes('\n:\n\n'), { timeout: 25_000 });
    expect([quiet.over, quiet.events]).toEqual([false, []]);
    quiet.leave();
  }, 30_000);

  test('A-094 the end of everybody, by the policy epoch: every tab on every replica is told, and who signs in again is not', async () => {
    const clients = [await c.signedIn({ user: 'eva' }), await c.signedIn({ user: 'finn' })];
    const readers = (await Promise.all(clients.map((client) => tabs(c, client)))).flat();
    const answer = await admin.confirmed('/v1/epoch', { kind: 'end', reason: 'test' });
    expect(answer.status).toBe(200);
    await expectEnded(readers, 'epoch');
    const after = await tabs(c, await c.signedIn({ user: 'eva' }));
    expect(after.map(({ over, events }) => [over, events])).toEqual(c.replicas.map(() => [false, []]));
    for (const reader of after) reader.leave();
  });
});
