import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { inParallel, type BrowserClient, type BrowserResponse } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { faults, type Behaviour, type FaultProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';
import { loginsLast, loginsNeedRefresh } from './support/over-at-once.js';
import { StoredSession } from './support/stored-session.js';

/** Milliseconds between two tries to refresh one session, after an answer that leaves it open what happened. */
const TRY_EVERY = 5000;

let c: Cloakroom;
let provider: FaultProvider;

beforeAll(async () => {
  c = await startCloakroom({
    config: {
      providers: { main: { timeout: '2s', metadataTimeout: '1s', rotation: { leeway: '60s' } } },
      store: { redis: { commandTimeout: '2s' } },
    },
  });
  provider = c.provider;
});

beforeEach(async () => {
  await provider.start();
  await healthy();
});

afterAll(async () => {
  await expectLeftClean(c);
});

/** Lets a refresh succeed at every replica, so that none of them holds back because of the test before. */
async function healthy(): Promise<void> {
  loginsNeedRefresh(provider, { rotation: { leeway: 60_000 } });
  for (const replica of c.replicas) {
    const client = await eventually(() => c.signedIn({ replica: replica.index }).catch(() => undefined), {
      timeout: 45_000,
      interval: 200,
      what: 'a login',
    });
    await eventually(async () => (await client.api('/api/x')).status === 200, {
      timeout: 45_000,
      interval: 200,
      what: 'a refresh',
    });
  }
  provider.ledger.resetCounts();
}

/** 503, to be tried again, and the browser keeps what it has. */
function expectProviderUnavailable(answer: BrowserResponse): void {
  expect([answer.status, answer.problem]).toEqual([503, 'idp-unavailable']);
  expect(answer.headers['retry-after']).toMatch(/^[1-9]\d*$/);
  expect(answer.setCookies).toEqual([]);
}

const signIn = (count: number, name: string): Promise<BrowserClient[]> =>
  inParallel(
    Array.from({ length: count }, (_, i) => () => c.signedIn({ user: `${name}${String(i)}` })),
    6,
  );

const refreshesOf = async (client: BrowserClient): Promise<number> => {
  const { tokens } = await new StoredSession(c, client).contents();
  return provider.ledger
    .hitsOf('refresh')
    .filter((hit) => hit.params.get('refresh_token') === tokens.refreshToken).length;
};

function servedAgain(client: BrowserClient, timeout = 20_000): Promise<true> {
  return eventually(
    async () => {
      const answer = await client.api('/api/x');
      if (answer.status === 200) return true as const;
      expectProviderUnavailable(answer);
      return undefined;
    },
    { timeout, interval: 250, what: 'the session to be served again' },
  );
}

test('B-17 the provider is down: valid tokens are served, expired ones get 503, nobody is logged out, it heals by itself', async () => {
  const expired = await signIn(150, 'expired');
  loginsLast(provider, 3600, { rotation: { leeway: 60_000 } });
  const valid = await signIn(20, 'valid');
  await provider.stop();
  const ask = (clients: BrowserClient[]): Promise<BrowserResponse[]> =>
    inParallel(
      clients.map((client) => () => client.api('/api/x')),
      50,
    );
  for (let i = 0; i < 4; i += 1) {
    (await ask(expired)).forEach(expectProviderUnavailable);
    expect((await ask(valid)).map(({ status }) => status)).toEqual(valid.map(() => 200));
    await sleep(500);
  }
  const ready = await c.client().fetch('/readyz');
  expect(ready.status).toBe(200);
  await provider.start();
  provider.ledger.resetCounts();
  await inParallel(expired.map((client) => () => servedAgain(client, 45_000)));
  expect(provider.ledger.count('refresh')).toBe(expired.length);
  expect(provider.ledger.doubleSpends).toEqual([]);
  expect(c.events('session_ended')).toEqual([]);
}, 120_000);

test('B-18 the provider hangs: the call ends, waiters are let go, everybody else is served', async () => {
  const [stuck, other] = await signIn(2, 'slow');
  if (stuck === undefined || other === undefined) throw new Error('no sessions');
  provider.next('refresh', faults.hang);
  const waiting = inParallel(
    Array.from({ length: 40 }, (_, i) => () => stuck.api('/api/x', { replica: i % 2, timeout: 15_000 })),
  );
  await eventually(() => provider.ledger.count('refresh') === 1);
  expect((await other.api('/api/x')).status).toBe(200);
  expect((await c.client().fetch('/livez')).status).toBe(200);
  (await waiting).forEach(expectProviderUnavailable);
  // The time limit, not the provider, ended the call; and nobody asked a second time.
  expect(provider.ledger.count('refresh')).toBe(2);
  await servedAgain(stuck);
  expect(await new StoredSession(c, stuck).exists()).toBe(true);
});

const FAULTS: [string, Behaviour][] = [
  ['B-19 429', faults.tooMany],
  ['B-19 429 with a long Retry-After', { ...faults.tooMany, headers: { 'retry-after': '120' } }],
  ['B-19 500', faults.serverError],
  ['B-19 500 after the token was spent', faults.serverErrorAfterCommit],
  ['B-19 502 with a page of a gateway', faults.badGateway],
  ['B-19 503', faults.unavailable],
  ['B-20 HTML with 200', faults.html],
  ['B-20 HTML with 200 after the token was spent', { ...faults.html, commit: true }],
  ['B-20 an empty body', { status: 200, body: '' }],
  ['B-20 a redirect', { redirect: 'http://127.0.0.1:9/elsewhere' }],
  ['B-20 half a JSON', faults.halfJson],
  ['B-20 more than 1 MiB', faults.hugeBody],
  [
    'B-20 a wrong length',
    { raw: 'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{}' },
  ],
  ['B-20 no HTTP', { raw: 'SSH-2.0-OpenSSH_9.6\r\n' }],
  ['B-20 a reset', faults.reset],
  ['B-20 a reset after the token was spent', faults.resetAfterCommit],
  ['B-20 another token type', { mutate: (answer) => ({ ...answer, token_type: 'MAC' }) }],
  ['B-20 no access token', { mutate: (answer) => ({ ...answer, access_token: undefined }) }],
  ['B-22 invalid_client', faults.invalidClient],
  ['B-22 invalid_client as 400', faults.invalidClient400],
  ['A-077 404', faults.notFound],
];

describe('A-077 what is no refusal never ends a session', () => {
  const hurt = new Map<string, { client: BrowserClient; at: number }>();

  test.each(FAULTS)('%s at a refresh: 503 and the session stays', async (name, fault) => {
    const [client] = await signIn(1, 'hurt');
    if (client === undefined) throw new Error('no session');
    const stored = new StoredSession(c, client);
    provider.next('refresh', fault);
    const answer = await client.api('/api/x');
    const at = Date.now();
    expectProviderUnavailable(answer);
    expect(answer.text).not.toMatch(/Welcome|gateway|slow_down|server_error|invalid_client|OpenSSH/);
    expect(provider.ledger.count('refresh')).toBe(1);
    expect(await stored.generation()).toBe(1);
    // Not again at once, whoever asks.
    for (let i = 0; i < 6; i += 1) expectProviderUnavailable(await client.api('/api/x'));
    if (Date.now() - at < TRY_EVERY) expect(await refreshesOf(client)).toBe(1);
    hurt.set(name, { client, at });
  });

  test('and a refusal to renew in the background is not noticed while the token is good', async () => {
    loginsLast(provider, 12, { rotation: { leeway: 60_000 } });
    const [client] = await signIn(1, 'early');
    if (client === undefined) throw new Error('no session');
    const stored = new StoredSession(c, client);
    provider.always('refresh', faults.serverError);
    // Past the moment to renew, by the record's own word; not past the token's end.
    const { refreshAt, expiresAt } = (await stored.contents()).tokens;
    expect((refreshAt - (expiresAt - 12_000)) / 12_000).toBeGreaterThanOrEqual(0.75);
    expect((refreshAt - (expiresAt - 12_000)) / 12_000).toBeLessThanOrEqual(0.85);
    await sleep(refreshAt - Date.now());
    expect(provider.ledger.count('refresh')).toBe(0);
    for (let i = 0; i < 10; i += 1) expect((await client.api('/api/x')).status).toBe(200);
    await eventually(() => provider.ledger.count('refresh') === 1, { what: 'a try in the background' });
    expect(await stored.generation()).toBe(1);
  });

  test('and once the provider is well, every one of them is served again: the old token is good within the leeway', async () => {
    const served = [...hurt].filter(([name]) => name !== 'B-19 429 with a long Retry-After');
    await inParallel(
      served.map(
        ([, { client }]) =>
          () =>
            servedAgain(client),
      ),
    );
    // Retry-After is obeyed, whatever our own patience is.
    const patient = hurt.get('B-19 429 with a long Retry-After');
    if (patient === undefined) throw new Error('the test before did not run');
    const answer = await patient.client.api('/api/x');
    expectProviderUnavailable(answer);
    expect(Number(answer.headers['retry-after'])).toBeGreaterThan(30);
    expect(provider.ledger.doubleSpends.filter(({ accepted }) => !accepted)).toEqual([]);
    expect(c.events('session_ended')).toEqual([]);
    await c.logged('client_misconfigured', 1);
    expect(c.events('client_misconfigured').length).toBeGreaterThan(0);
  });
});

test('A-077 the provider is left alone after it failed five times in a row, and asked again by one at a time', async () => {
  const clients = await signIn(60, 'gate');
  provider.always('refresh', { ...faults.unavailable, delay: 50 });
  // Long enough for every session's own pause to be over once.
  const until = Date.now() + TRY_EVERY + 3000;
  await Promise.all(
    clients.map(async (client) => {
      while (Date.now() < until) {
        expectProviderUnavailable(await client.api('/api/x', { replica: 0 }));
        await sleep(100);
      }
    }),
  );
  // Those that were under way when it closed, and a probe after each pause.
  const asked = provider.ledger.count('refresh');
  expect(asked).toBeLessThan(clients.length + 10);
  const late = provider.ledger.hitsOf('refresh').filter((hit) => hit.at > until - 3000);
  expect(late.length).toBeLessThanOrEqual(4);
  provider.always('refresh', undefined);
  await inParallel(clients.map((client) => () => servedAgain(client, 30_000)));
  expect(c.events('session_ended')).toEqual([]);
}, 90_000);

test('A-077 sessions that hold back by themselves do not count as success of the provider', async () => {
  const clients = await signIn(20, 'trickle');
  provider.always('refresh', faults.unavailable);
  for (const client of clients) {
    for (let i = 0; i < 2; i += 1) expectProviderUnavailable(await client.api('/api/x', { replica: 0 }));
  }
  expect(provider.ledger.count('refresh')).toBeLessThan(clients.length / 2);
});
