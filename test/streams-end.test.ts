import { gunzipSync, gzipSync } from 'node:zlib';
import type { ServerResponse } from 'node:http';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import { AdminClient, adminConfig, adminToken } from './support/admin-client.js';
import { inParallel, type BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { ENDINGS } from './support/endings.js';
import { EventReader } from './support/event-reader.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';
import { deliver, logoutToken, person } from './support/logout-tokens.js';
import { random } from './support/random.js';
import { sessionPair } from './support/script-request.js';
import { StoredSession } from './support/stored-session.js';

const DAY = 24 * 3600 * 1000;
const REPLICAS = 4;
/** On each replica, for each session. */
const TABS = 8;
const PROXIED = 12;
const ROUNDS = 200;
const AT_A_TIME = 8;

const operator = adminToken('operator', 'end');
let c: Cloakroom;
let admin: AdminClient;
/** Answers of the upstream that are under way. */
const upstreamAnswers = new Set<ServerResponse>();

beforeAll(async () => {
  c = await startCloakroom({
    replicas: REPLICAS,
    tap: false,
    config: {
      admin: adminConfig([operator]),
      session: { freshLoginFor: '0s' },
      store: { redis: { commandTimeout: '2s' } },
    },
  });
  admin = new AdminClient(c, operator);
});

afterEach(() => {
  c.upstream.handler = undefined;
});

afterAll(async () => {
  await expectLeftClean(c, 32 * DAY);
});

/** A proxied stream that never ends by itself. */
const proxied = (client: BrowserClient, replica: number): Promise<EventReader> =>
  EventReader.open(client, '/api/sse/100000/300', { replica, headers: { 'x-csrf': '1' } });

interface Streams {
  tabs: EventReader[];
  proxied: EventReader[];
}

async function openMany(room: Cloakroom, client: BrowserClient): Promise<Streams> {
  const each = room.replicas.map((_, replica) => replica);
  const [tabs, streams] = await Promise.all([
    Promise.all(
      each.flatMap((replica) =>
        Array.from({ length: TABS }, () => EventReader.open(client, '/auth/events', { replica })),
      ),
    ),
    Promise.all(each.flatMap((replica) => Array.from({ length: PROXIED }, () => proxied(client, replica)))),
  ]);
  for (const { status } of [...tabs, ...streams]) expect(status).toBe(200);
  return { tabs, proxied: streams };
}

async function expectAllEnded(streams: Streams, reason: string): Promise<void> {
  for (const reader of streams.tabs) {
    await reader.end();
    expect([reader.complete, reader.events.at(-1)]).toEqual([true, { event: 'ended', data: { reason } }]);
  }
  for (const reader of streams.proxied) {
    await reader.end();
    const told = { event: 'session-ended', data: { reason } };
    expect([reader.complete, reader.events.at(-1)]).toEqual([true, told]);
  }
}

describe(`A-094 ${String(REPLICAS * (TABS + PROXIED))} streams of a session over ${String(REPLICAS)} replicas, own and proxied`, () => {
  test.each(ENDINGS)(
    'A-094 %s ends all of them with the reason %s, and nobody else’s',
    async (_, reason, act) => {
      const client = await c.signedIn({ user: 'ada' });
      const other = await proxied(await c.signedIn({ user: 'bob' }), 0);
      const streams = await openMany(c, client);
      await act(client, c, admin);
      await expectAllEnded(streams, reason);
      const seen = other.events.length;
      await eventually(() => other.events.length > seen);
      expect(other.over).toBe(false);
      other.leave();
    },
  );

  test('A-094 back-channel logout ends all of them', async () => {
    const { client, sub, sid } = await person(c);
    const streams = await openMany(c, client);
    expect((await deliver(c, await logoutToken(c.provider, { sub, sid }))).status).toBe(200);
    await expectAllEnded(streams, 'provider');
  });

  test('A-094 the absolute expiry ends all of them', async () => {
    const brief = await startCloakroom({
      replicas: REPLICAS,
      tap: false,
      config: { session: { idle: '6s', absolute: '6s', warnBefore: '1s' } },
    });
    const streams = await openMany(brief, await brief.signedIn());
    await expectAllEnded(streams, 'expired');
    await brief.close();
  }, 40_000);
});

describe('A-094 a proxied event stream', () => {
  /** The upstream writes what it is told, piece by piece. */
  function script(headers: Record<string, string>, ...pieces: (string | Buffer)[]): void {
    c.upstream.handler = async (_request, response) => {
      upstreamAnswers.add(response);
      response.once('close', () => upstreamAnswers.delete(response));
      response.writeHead(200, headers);
      response.flushHeaders();
      for (const piece of pieces) {
        response.write(piece);
        await sleep(20);
      }
      return true;
    };
  }

  const stream = { 'content-type': 'text/event-stream; charset=utf-8' };

  test.each([
    ['before the first event', [], true],
    ['after an event', ['data: 1\n\n'], true],
    ['after an event with CRLF', ['data: 1\r\n\r\n'], true],
    ['after an event that came in pieces', ['data: 1\n', '\n'], true],
    ['after a comment', [':\n\n'], true],
    ['in the middle of an event', ['data: 1\n\ndata: ha'], false],
    ['between two lines of an event', ['data: 1\n\ndata: half\n'], false],
  ] as [string, string[], boolean][])(
    'A-094 %s: nothing unfinished becomes an event, and the upstream is let go',
    async (_, pieces, told) => {
      script(stream, ...pieces);
      const client = await c.signedIn();
      const reader = await EventReader.open(client, '/api/x', { replica: 0, headers: { 'x-csrf': '1' } });
      await eventually(() => reader.text === pieces.join(''));
      await new StoredSession(c, client).delete();
      await reader.end();
      expect(reader.complete).toBe(true);
      const end = 'event: session-ended\ndata: {"reason":"operator"}\n\n';
      expect(reader.text).toBe(pieces.join('') + (told ? end : ''));
      await eventually(() => upstreamAnswers.size === 0);
    },
  );

  test('A-094 one that is encoded ends too, without a word inside', async () => {
    const body = gzipSync('data: 1\n\n');
    script({ ...stream, 'content-encoding': 'gzip' }, body);
    const client = await c.signedIn();
    const { stream: answer } = await client.open('/api/x', { replica: 0 });
    const chunks: Buffer[] = [];
    answer.on('data', (chunk: Buffer) => chunks.push(chunk));
    await eventually(() => Buffer.concat(chunks).length === body.length);
    await client.logout({ navigate: false });
    await eventually(() => answer.closed);
    expect(answer.complete).toBe(true);
    expect(gunzipSync(Buffer.concat(chunks)).toString()).toBe('data: 1\n\n');
    await eventually(() => upstreamAnswers.size === 0);
  });

  test('A-094 a reader that does not read is cut off', async () => {
    const event = `data: ${'x'.repeat(64 * 1024)}\n\n`;
    // More than the network holds between the two.
    script(stream, event.repeat(512));
    const client = await c.signedIn();
    const { stream: answer } = await client.open('/api/x', { replica: 0 });
    answer.pause();
    const connection = answer.socket;
    connection.pause();
    await sleep(500);
    await client.logout({ navigate: false });
    await eventually(() => upstreamAnswers.size === 0);
    // More than it is given for taking what is left.
    await sleep(1500);
    connection.resume();
    answer.resume();
    await eventually(() => answer.closed);
    expect(answer.complete).toBe(false);
  });

  test('A-094 an ordinary answer that is under way comes whole', async () => {
    const client = await c.signedIn();
    const answer = await client.open('/api/drip/40/50', { replica: 0 });
    await answer.until('..');
    expect((await client.logout({ navigate: false })).post.status).toBe(200);
    const reader = await EventReader.open(client, '/auth/events', { replica: 0 });
    expect(reader.status).toBe(401);
    expect(await answer.until('.'.repeat(40))).toBe('.'.repeat(40));
    answer.stream.resume();
    await eventually(() => answer.stream.closed);
    expect(answer.stream.complete).toBe(true);
  });

  test('A-094 the browser that leaves first: the upstream is let go, and the later end of the session disturbs nobody', async () => {
    script(stream, 'data: 1\n\n');
    const client = await c.signedIn();
    const reader = await EventReader.open(client, '/api/x', { replica: 0, headers: { 'x-csrf': '1' } });
    await reader.first('message');
    reader.leave();
    await eventually(() => upstreamAnswers.size === 0);
    const events = await EventReader.open(client, '/auth/events', { replica: 0 });
    await client.logout({ navigate: false });
    await events.end();
    expect(c.first.running).toBe(true);
  });
});

test(`A-058 a deletion beats every stream: none stays open, none brings the key back (${String(ROUNDS)} rounds)`, async () => {
  const dice = random('streams');
  const back: string[] = [];
  const open: string[] = [];
  await inParallel(
    Array.from({ length: ROUNDS }, () => async () => {
      const client = await c.signedIn();
      const stored = new StoredSession(c, client);
      const cookie = sessionPair(client);
      const replica = (): number => dice.int(0, REPLICAS - 1);
      const later = <T>(act: () => Promise<T>): Promise<T> => sleep(dice.int(0, 60)).then(act);
      const readers = [
        later(() => EventReader.open(client, '/auth/events', { replica: replica(), cookie })),
        later(() => EventReader.open(client, '/auth/events', { replica: replica(), cookie })),
        later(() =>
          EventReader.open(client, '/api/sse/100000/50', {
            replica: replica(),
            cookie,
            headers: { 'x-csrf': '1' },
          }),
        ),
      ];
      const using = later(() => client.me({ cookie, replica: replica() }));
      await later(() => stored.delete());
      for (const reader of await Promise.all(readers)) {
        expect([200, 401]).toContain(reader.status);
        await reader.end().catch(() => open.push(stored.handle));
        if (reader.status === 200) expect(reader.complete).toBe(true);
      }
      await using;
      if (await stored.exists()) back.push(stored.handle);
    }),
    AT_A_TIME,
  );
  expect([back, open]).toEqual([[], []]);
}, 120_000);
