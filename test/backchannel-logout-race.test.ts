import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { startProvider, type FaultProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { sleep } from './support/lifetime.js';
import { deliver, logoutToken, statuses, type Whose } from './support/logout-tokens.js';
import { random, seed } from './support/random.js';
import { sessionCount } from './support/refused-login.js';

const ROUNDS = 120;

let room: Cloakroom;
let provider: FaultProvider;

beforeAll(async () => {
  provider = await startProvider();
  room = await startCloakroom({ provider, replicas: 4, tap: false });
});

beforeEach(() => {
  provider.reset();
});

afterAll(async () => {
  await expectLeftClean(room, 26 * 3600 * 1000);
  await room.close();
});

interface Round {
  sub: string;
  sid: string;
  whose: Whose;
  /** Milliseconds from the start of the callback. */
  deliverAfter: number;
}

/** One login and one logout token that meet somewhere; returns what is left. */
async function meet({ sub, sid, whose, deliverAfter }: Round, draw: () => number): Promise<number[]> {
  const client = room.client({ replica: Math.floor(draw() * 4) });
  const attempt = await client.beginLogin();
  await attempt.authorize(sub);
  provider.next('token', {
    claims: (all) => ({ ...all, sid }),
    delay: Math.floor(draw() * 4),
    delayAfter: Math.floor(draw() * 8),
  });
  const finished = attempt.finish();
  await sleep(deliverAfter);
  const token = await logoutToken(provider, whose);
  const answer = await deliver(room, token, { replica: Math.floor(draw() * 4) });
  expect(answer.status).toBe(200);
  await finished;
  return client.sessionCookie === undefined ? [] : await statuses(room, { client });
}

test.each<[string, (sub: string, sid: string) => Whose]>([
  ['sid', (_sub, sid) => ({ sid })],
  ['sid and sub', (sub, sid) => ({ sub, sid })],
])(
  `A-106 a logout token with %s that arrives while that login is being stored leaves no live session (SEED=${String(seed)})`,
  async (name, pick) => {
    const r = random(`logout during login: ${name}`);
    const left: [number, number[]][] = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      const [sub, sid] = [`racer-${r.string(8)}`, `sid-${r.string(12)}`];
      const deliverAfter = r.next() * 24;
      const seen = await meet({ sub, sid, whose: pick(sub, sid), deliverAfter }, () => r.next());
      if (seen.some((status) => status === 200)) left.push([round, seen]);
    }
    expect(left).toEqual([]);
    expect(await sessionCount(room)).toBe(0);
  },
);

test(`A-106 a logout token with sub alone ends what was signed in before it, and not what is signed in after it (SEED=${String(seed)})`, async () => {
  const r = random('logout of a person during login');
  const left: number[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const [sub, sid] = [`racer-${r.string(8)}`, `sid-${r.string(12)}`];
    let issuedAt = 0;
    const client = room.client({ replica: r.int(0, 3) });
    const attempt = await client.beginLogin();
    await attempt.authorize(sub);
    provider.next('token', {
      claims: (all) => {
        issuedAt = Number(all['iat']);
        return { ...all, sid };
      },
      delay: r.int(0, 4),
      delayAfter: r.int(0, 8),
    });
    const finished = attempt.finish();
    await sleep(r.next() * 24);
    let saidAt = 0;
    const token = await logoutToken(
      provider,
      { sub },
      { claims: (all) => ((saidAt = Number(all['iat'])), all) },
    );
    expect((await deliver(room, token, { replica: r.int(0, 3) })).status).toBe(200);
    await finished;
    const alive =
      client.sessionCookie !== undefined &&
      (await statuses(room, { client })).some((status) => status === 200);
    // Times in tokens are whole seconds: only a later second is known to be after the logout.
    if (alive && issuedAt <= saidAt) left.push(round);
  }
  expect(left).toEqual([]);
});

test('A-106 a session of the provider that has ended begins no session here afterwards either', async () => {
  expect((await deliver(room, await logoutToken(provider, { sid: 'ended-first' }))).status).toBe(200);
  const client = room.client();
  const attempt = await client.beginLogin();
  provider.next('token', { claims: (all) => ({ ...all, sid: 'ended-first' }) });
  await attempt.finish();
  if (client.sessionCookie !== undefined) expect(await statuses(room, { client })).not.toContain(200);
});
