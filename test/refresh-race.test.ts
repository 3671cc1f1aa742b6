import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { inParallel, type BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import type { FaultProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { sleep } from './support/lifetime.js';
import { random } from './support/random.js';
import type { Hit } from './support/ledger.js';
import { StoredSession } from './support/stored-session.js';
import type { Echo } from './support/upstream.js';

const REPLICAS = 4;
const ROUNDS = 50;
const REQUESTS = 500;
/** So many rounds run at a time, each of a user of its own. */
const LANES = 2;
const USERS = 12;
const SLOWEST = 6000;
/** Seconds. Longer than a round takes to serve everybody, shorter than it takes until the same user's next round. */
const LIFETIME = 12;

let c: Cloakroom;
let provider: FaultProvider;
const dice = random('refresh-race');

beforeAll(async () => {
  // The time limit of the store is not what is tested, and this test loads every core there is.
  c = await startCloakroom({
    replicas: REPLICAS,
    config: { store: { redis: { commandTimeout: '5s' } } },
  });
  provider = c.provider;
  provider.modes.rotation = 'strict';
  provider.modes.accessTokenLifetime = 3600;
  const shortLived = (answer: Record<string, unknown>): Record<string, unknown> => ({
    ...answer,
    expires_in: LIFETIME,
  });
  provider.always('token', { mutate: (answer) => ({ ...answer, expires_in: 0.001 }) });
  // Six seconds at most, two on average, half of it before and half after the refresh token is spent.
  const half = (): number =>
    (SLOWEST / 2) * (provider.ledger.count('refresh') <= LANES ? 1 : dice.next() ** 2);
  provider.always('refresh', {
    get delay() {
      return half();
    },
    get delayAfter() {
      return half();
    },
    mutate: shortLived,
  });
}, 120_000);

afterAll(async () => {
  await expectLeftClean(c);
});

interface User {
  name: string;
  client: BrowserClient;
  stored: StoredSession;
  refreshedAt: number;
}

function refreshesOf({ name }: User): Hit[] {
  const { ledger } = provider;
  return ledger
    .hitsOf('refresh')
    .filter(({ params }) => ledger.refreshTokens.get(params.get('refresh_token') ?? '')?.sub === name);
}

async function round(user: User): Promise<void> {
  // Until the token of this user's round before is over for certain.
  await sleep(user.refreshedAt + LIFETIME * 1000 - Date.now());
  const generation = await user.stored.generation();
  const before = refreshesOf(user).length;
  const wrong: string[] = [];
  await inParallel(
    Array.from({ length: REQUESTS }, (_, i) => async () => {
      const answer = await user.client.api('/api/x', { replica: i % REPLICAS, timeout: 60_000 });
      if (answer.status !== 200 || answer.json<Echo>().user !== user.name) {
        wrong.push(`replica ${String(i % REPLICAS)}: ${String(answer.status)} ${answer.text.slice(0, 300)}`);
      }
    }),
  );
  expect(wrong).toEqual([]);
  const refreshes = refreshesOf(user);
  expect(refreshes.length - before).toBe(1);
  expect(await user.stored.generation()).toBe(generation + 1);
  user.refreshedAt = refreshes.at(-1)?.endedAt ?? Date.now();
}

test(`A-071 ${String(REQUESTS)} parallel requests on an expired token over ${String(REPLICAS)} replicas, ${String(ROUNDS)} rounds, strict rotation, answers after up to ${String(SLOWEST / 1000)} s: one refresh a round, every answer 200, nobody logged out`, async () => {
  const users = await inParallel(
    Array.from({ length: USERS }, (_, i) => async (): Promise<User> => {
      const name = `user${String(i)}`;
      const client = await c.signedIn({ user: name });
      return { name, client, stored: new StoredSession(c, client), refreshedAt: 0 };
    }),
    4,
  );
  const turns = Array.from({ length: ROUNDS }, (_, at) => users[at % USERS] as User);
  const lane = async (number: number): Promise<void> => {
    for (const user of turns.filter((_, at) => at % LANES === number)) await round(user);
  };
  await Promise.all(Array.from({ length: LANES }, (_, number) => lane(number)));

  expect(provider.ledger.count('refresh')).toBe(ROUNDS);
  expect(provider.ledger.doubleSpends).toEqual([]);
  const me = await inParallel(
    users.map(
      ({ client }) =>
        () =>
          client.me(),
    ),
    4,
  );
  expect(me.map(({ status }) => status)).toEqual(users.map(() => 200));
  expect(c.events('session_ended')).toEqual([]);
}, 400_000);
