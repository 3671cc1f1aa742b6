import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { inParallel } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { startProvider, type FaultProvider, type KeyAlg } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';
import { random } from './support/random.js';

let room: Cloakroom;
let provider: FaultProvider;
const draw = random('key rotation');

beforeAll(async () => {
  // Keys of elliptic curves are made in no time.
  provider = await startProvider({ alg: 'ES256' });
  room = await startCloakroom({ provider });
  await Promise.all([room.signedIn({ replica: 0 }), room.signedIn({ replica: 1 })]);
});

beforeEach(() => {
  provider.reset();
  provider.ledger.resetCounts();
});

afterAll(async () => {
  expect(room.events('id_token_rejected')).toEqual([]);
  expect(room.events('identity_changed')).toEqual([]);
  await expectLeftClean(room);
  await room.close();
});

/** One login on a replica; what it was answered. */
async function login(replica: number): Promise<number> {
  return (await room.client({ replica }).login()).status;
}

test('A-044 oidcc-client-test-signing-key-rotation: the first login after it succeeds on every replica', async () => {
  await provider.rotateKeys();
  expect([await login(0), await login(1)]).toEqual([303, 303]);
});

test('A-044 oidcc-client-test-signing-key-rotation-just-before-signing: the login under way succeeds', async () => {
  for (const replica of [0, 1]) {
    const attempt = await room.client({ replica }).beginLogin();
    await attempt.authorize();
    await provider.rotateKeys({ dropOld: true });
    expect((await attempt.finish()).status).toBe(303);
  }
});

test('B-21 a provider that drops the old key at once: the first login after it succeeds', async () => {
  await provider.rotateKeys({ dropOld: true });
  expect([await login(0), await login(1)]).toEqual([303, 303]);
  expect(provider.ledger.count('jwks')).toBe(2);
});

test('A-044 a kid that is used again for a new key: the first login after it succeeds', async () => {
  await provider.rotateKeys({ reuseKid: true });
  expect([await login(0), await login(1)]).toEqual([303, 303]);
  await provider.rotateKeys({ reuseKid: true });
  expect([await login(1), await login(0)]).toEqual([303, 303]);
});

test('A-044 a third rotation within 30 s, to another algorithm each time: every first login succeeds', async () => {
  for (const alg of ['ES256', 'PS256', 'EdDSA', 'RS256'] as KeyAlg[]) {
    await provider.rotateKeys({ alg, dropOld: true });
    expect([await login(0), await login(1)]).toEqual([303, 303]);
  }
});

test('A-044 keys rotate each second for a while: every login succeeds at the first try', async () => {
  const outcomes: number[] = [];
  let over = false;
  const logins = [0, 1, 0, 1].map(async (replica) => {
    while (!over) {
      outcomes.push(await login(replica));
      await sleep(draw.int(20, 120));
    }
  });
  for (let rotation = 0; rotation < 10; rotation += 1) {
    // The old key stays published: a token signed a moment before the rotation must still be read.
    await provider.rotateKeys({ reuseKid: false });
    for (const old of provider.keys.slice(0, -2)) old.published = false;
    await sleep(1000);
  }
  over = true;
  await Promise.all(logins);
  expect(outcomes.length).toBeGreaterThan(40);
  expect(outcomes.filter((status) => status !== 303)).toEqual([]);
});

test('A-044 80 logins at once after a rotation share the reading of the keys, and all succeed', async () => {
  await provider.rotateKeys({ dropOld: true });
  provider.always('jwks', { delay: 300 });
  const outcomes = await inParallel(
    Array.from({ length: 80 }, (_, index) => () => login(index % 2)),
    80,
  );
  expect(outcomes.filter((status) => status !== 303)).toEqual([]);
  // Two replicas; each may read once more for those whose token came while a reading was under way.
  expect(provider.ledger.count('jwks')).toBeLessThanOrEqual(6);
  expect(provider.ledger.highWater('jwks')).toBeLessThanOrEqual(2);
});

test('A-044 a reading of the keys that was under way at the rotation is not taken for the newest', async () => {
  for (let round = 0; round < 5; round += 1) {
    await provider.rotateKeys({ dropOld: true });
    // The first reading sees the keys as they are now and arrives late.
    provider.next('jwks', { delayAfter: 400 });
    const seen = provider.ledger.count('jwks');
    const early = login(0);
    await eventually(() => provider.ledger.count('jwks') > seen, { what: 'the keys to be read' });
    await sleep(draw.int(20, 60));
    await provider.rotateKeys({ dropOld: true });
    const outcomes = await Promise.all([early, login(0), login(0)]);
    expect(outcomes).toEqual([303, 303, 303]);
  }
});

test('A-044 a rotation while many sessions refresh ends none of them', async () => {
  provider.modes.accessTokenLifetime = 2;
  const clients = await inParallel(
    Array.from({ length: 40 }, (_, index) => () => room.signedIn({ replica: index % 2 })),
    8,
  );
  await sleep(2100);
  await provider.rotateKeys({ dropOld: true });
  provider.always('jwks', { delay: 300 });
  const answers = await inParallel(
    clients.map((client) => async () => (await client.api('/api/echo')).status),
    40,
  );
  expect(answers.filter((status) => status !== 200)).toEqual([]);
  expect(room.events('session_ended')).toEqual([]);
});

test('A-044 keys that cannot be read just now: 503, and the next login succeeds', async () => {
  await provider.rotateKeys({ dropOld: true });
  provider.next('jwks', { status: 500, body: '' });
  expect(await login(0)).toBe(503);
  expect(await login(0)).toBe(303);
});
