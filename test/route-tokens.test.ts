import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { inParallel, type BrowserClient, type BrowserResponse } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { faults, type FaultProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { random } from './support/random.js';
import { withRoutes } from './support/routes.js';
import { StoredSession } from './support/stored-session.js';
import { startRawUpstream, startUpstream, type RawUpstream } from './support/upstream.js';

const ORDERS = 'https://orders.example';
const STOCK = 'https://stock.example';

let c: Cloakroom;
let provider: FaultProvider;
let orders: RawUpstream;
let stock: RawUpstream;

beforeAll(async () => {
  [orders, stock] = [await startRawUpstream(), await startRawUpstream()];
  c = await startCloakroom({
    replicas: 2,
    upstream: await startUpstream({}),
    config: withRoutes((upstream) => [
      { path: '/api/', upstream },
      { path: '/orders/', upstream: orders.url, audience: ORDERS },
      { path: '/stock/', upstream: stock.url, audience: STOCK },
      { path: '/billing/', upstream, exchange: { audience: 'billing', scope: 'invoices:read' } },
      { path: '/other-billing/', upstream, exchange: { resource: 'https://billing.example' } },
      { path: '/machine/', upstream, token: 'client', audience: ORDERS, clientScope: 'orders:read' },
      ...['a', 'b', 'c', 'd', 'e'].map((scope) => {
        return { path: `/machine-${scope}/`, upstream, token: 'client', clientScope: scope };
      }),
    ]),
  });
  ({ provider } = c);
});

beforeEach(() => {
  provider.reset();
  provider.ledger.resetCounts();
  for (const upstream of [c.upstream, orders, stock]) upstream.clear();
});

afterAll(async () => {
  await expectLeftClean(c);
});

function manyAtOnce(client: BrowserClient, path: string, count = 100): Promise<BrowserResponse[]> {
  return inParallel(
    Array.from({ length: count }, (_, i) => () => client.api(path, { replica: i % 2 })),
    50,
  );
}

function statuses(answers: BrowserResponse[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { status } of answers) counts[status] = (counts[status] ?? 0) + 1;
  return counts;
}

/** What the provider knows of the token that came with the last request. */
const lastToken = () => provider.ledger.validAccessToken(c.upstream.last?.bearer ?? '');

const resources = (): (string | null)[] =>
  provider.ledger.hitsOf('refresh').map(({ params }) => params.get('resource'));

describe('audience', () => {
  test('A-067 each upstream gets the token of its audience, and the bytes of no other token', async () => {
    const client = await c.signedIn();
    for (const path of ['/api/x', '/orders/x', '/stock/x', '/billing/x']) {
      expect((await client.api(path)).status).toBe(200);
    }
    const of = (audience: string | undefined): string[] =>
      [...provider.ledger.accessTokens.values()]
        .filter((record) => record.audience === audience)
        .map(({ token }) => token);
    const [bytesOfOrders, bytesOfStock] = [orders.received.toString(), stock.received.toString()];
    const bearers = [orders, stock].map(({ requests }) => requests[0]?.header('authorization'));
    expect(bearers).toEqual([`Bearer ${String(of(ORDERS)[0])}`, `Bearer ${String(of(STOCK)[0])}`]);
    for (const token of provider.ledger.accessTokens.keys()) {
      expect(bytesOfOrders.includes(token)).toBe(of(ORDERS).includes(token));
      expect(bytesOfStock.includes(token)).toBe(of(STOCK).includes(token));
    }
    for (const token of provider.ledger.refreshTokens.keys()) {
      expect(bytesOfOrders + bytesOfStock).not.toContain(token);
    }
    expect(of(undefined)).toContain(c.upstream.requests[0]?.bearer);
  });

  test('A-067 the login asks for the audiences (RFC 8707 section 2.1), the plain refresh for none', async () => {
    const { authorizationUrl } = await c.client().beginLogin();
    expect(authorizationUrl?.searchParams.getAll('resource')).toEqual([ORDERS, STOCK]);
    provider.always('token', { mutate: (answer) => ({ ...answer, expires_in: 0.001 }) });
    const client = await c.signedIn();
    await client.api('/api/x');
    expect(resources()).toEqual([null]);
  });

  test('A-067 100 calls at two replicas cause one refresh, and the plain token stays as it was', async () => {
    const client = await c.signedIn();
    const stored = new StoredSession(c, client);
    const before = (await stored.contents()).tokens;
    provider.always('refresh', { delay: 100 });
    expect(statuses(await manyAtOnce(client, '/orders/x'))).toEqual({ 200: 100 });
    expect(resources()).toEqual([ORDERS]);
    const { tokens } = await stored.contents();
    expect(tokens.accessToken).toBe(before.accessToken);
    expect(tokens.expiresAt).toBe(before.expiresAt);
    // It was rotated by that refresh: the old one would be a second use.
    expect(tokens.refreshToken).not.toBe(before.refreshToken);
  });

  test('A-067 A-071 calls for several tokens at once take turns with the refresh token', async () => {
    const dice = random('route tokens');
    const paths = ['/api/x', '/orders/x', '/stock/x', '/billing/x', '/other-billing/x'];
    for (let round = 0; round < 20; round += 1) {
      provider.always('token', { mutate: (answer) => ({ ...answer, expires_in: 0.001 }) });
      provider.always('refresh', { delay: dice.int(0, 30) });
      const client = await c.signedIn();
      const { accessToken } = (await new StoredSession(c, client).contents()).tokens;
      const jobs = Array.from({ length: 20 }, (_, i) => () => {
        return client.api(dice.pick(paths), { replica: i % 2 });
      });
      expect(statuses(await inParallel(jobs))).toEqual({ 200: 20 });
      expect(provider.ledger.doubleSpends).toEqual([]);
      // It was over from the beginning: a record that has moved on for another token's sake brings no newer one.
      expect(c.upstream.requests.map(({ bearer }) => bearer)).not.toContain(accessToken);
      const exchanged = provider.ledger.hitsOf('token_exchange');
      expect(exchanged.map(({ params }) => params.get('subject_token'))).not.toContain(accessToken);
    }
    const hits = provider.ledger.hitsOf('refresh');
    expect(hits.length).toBeLessThanOrEqual(20 * 3);
    expect(provider.ledger.count('token_exchange')).toBeLessThanOrEqual(20 * 2);
  });

  test('A-067 each is renewed on its own, by its own lifetime', async () => {
    provider.modes.accessTokenLifetime = 300;
    const client = await c.signedIn();
    provider.next('refresh', { mutate: (answer) => ({ ...answer, expires_in: 0.001 }) });
    await client.api('/orders/x');
    await client.api('/stock/x');
    await client.api('/orders/x');
    await client.api('/orders/x');
    await client.api('/api/x');
    expect(resources()).toEqual([ORDERS, STOCK, ORDERS]);
    expect(c.upstream.last?.bearer).toBe((await new StoredSession(c, client).contents()).tokens.accessToken);
  });

  test('A-067 an audience that the provider refuses is 502 token-refused, costs no session and is not asked for by every call', async () => {
    provider.modes.audiences = [STOCK];
    const client = await c.signedIn();
    const answers = await manyAtOnce(client, '/orders/x', 20);
    expect(new Set(answers.map((answer) => `${answer.status} ${String(answer.problem)}`))).toEqual(
      new Set(['502 token-refused']),
    );
    expect(provider.ledger.count('refresh')).toBeLessThanOrEqual(2);
    expect(orders.requests).toEqual([]);
    expect((await client.api('/stock/x')).status).toBe(200);
    expect((await client.api('/api/x')).status).toBe(200);
  });

  test('A-076 a refresh token that is dead ends the session here as well', async () => {
    const client = await c.signedIn();
    provider.revokeEverything();
    const answer = await client.api('/orders/x');
    expect([answer.status, answer.problem]).toEqual([401, 'session-ended']);
    expect(answer.json()).toMatchObject({ reason: 'refresh-refused' });
  });

  test('A-077 while the provider is away it is 503, and routes with a good token go on', async () => {
    const client = await c.signedIn();
    provider.always('refresh', faults.unavailable);
    const answer = await client.api('/orders/x');
    expect([answer.status, answer.problem]).toEqual([503, 'idp-unavailable']);
    expect((await client.api('/api/x')).status).toBe(200);
    expect(orders.requests).toEqual([]);
  });
});

describe('exchange', () => {
  test('A-070 the exchanged token goes along, made for its audience and scope from the access token', async () => {
    const client = await c.signedIn();
    const { tokens } = await new StoredSession(c, client).contents();
    await client.api('/billing/x');
    expect(lastToken()).toMatchObject({ audience: 'billing', scope: 'invoices:read', sub: 'alice' });
    const [hit] = provider.ledger.hitsOf('token_exchange');
    expect(Object.fromEntries(hit?.params ?? [])).toMatchObject({
      subject_token: tokens.accessToken,
      subject_token_type: 'urn:ietf:params:oauth:token-type:access_token',
      requested_token_type: 'urn:ietf:params:oauth:token-type:access_token',
      audience: 'billing',
      scope: 'invoices:read',
    });
    expect(provider.ledger.count('refresh')).toBe(0);
  });

  test('A-070 one exchange for each session, audience and scope, of 100 calls each at two replicas', async () => {
    const client = await c.signedIn();
    provider.always('token_exchange', { delay: 100 });
    const both = await Promise.all([
      manyAtOnce(client, '/billing/x'),
      manyAtOnce(client, '/other-billing/x'),
    ]);
    expect(statuses(both.flat())).toEqual({ 200: 200 });
    expect(provider.ledger.count('token_exchange')).toBe(2);
    const other = await c.signedIn({ user: 'bob' });
    await other.api('/billing/x');
    expect(lastToken()?.sub).toBe('bob');
    expect(provider.ledger.count('token_exchange')).toBe(3);
  });

  test('A-070 it is sealed with the session, and dropped when the access token is refreshed', async () => {
    provider.next('token', { mutate: (answer) => ({ ...answer, expires_in: 3 }) });
    const client = await c.signedIn();
    await client.api('/billing/x');
    const stored = new StoredSession(c, client);
    const first = Object.values((await stored.contents()).tokens.exchanged ?? {});
    expect(first.map(({ accessToken }) => accessToken)).toEqual([c.upstream.last?.bearer]);
    expect((await stored.field('sealed')) ?? '').not.toContain(c.upstream.last?.bearer);
    await eventually(
      async () => {
        await client.api('/api/x');
        return (
          provider.ledger.count('refresh') === 1 && (await stored.contents()).tokens.exchanged === undefined
        );
      },
      { timeout: 10_000, interval: 200, what: 'the refresh' },
    );
    await client.api('/billing/x');
    expect(c.upstream.last?.bearer).not.toBe(first[0]?.accessToken);
    expect(provider.ledger.count('token_exchange')).toBe(2);
  });

  test('A-070 with an access token that is over, that is refreshed first', async () => {
    provider.always('token', { mutate: (answer) => ({ ...answer, expires_in: 0.001 }) });
    const client = await c.signedIn();
    expect(statuses(await manyAtOnce(client, '/billing/x', 20))).toEqual({ 200: 20 });
    expect([provider.ledger.count('refresh'), provider.ledger.count('token_exchange')]).toEqual([1, 1]);
  });

  test.each([
    ['refused by an OAuth error', { error: 'invalid_target' }, [502, 'token-refused']],
    ['refused by an empty 403', { status: 403, body: '' }, [502, 'token-refused']],
    ['refused by invalid_grant', faults.invalidGrant, [502, 'token-refused']],
    ['answered by a page', faults.html, [502, 'token-refused']],
    [
      'answered by a token that is no Bearer',
      { mutate: (a: object) => ({ ...a, token_type: 'N_A' }) },
      [502, 'token-refused'],
    ],
    [
      'answered by a refresh token',
      {
        mutate: (a: object) => ({
          ...a,
          issued_token_type: 'urn:ietf:params:oauth:token-type:refresh_token',
        }),
      },
      [502, 'token-refused'],
    ],
    ['limited', faults.tooMany, [503, 'idp-unavailable']],
    ['answered by 500', faults.serverError, [503, 'idp-unavailable']],
    ['cut off', faults.reset, [503, 'idp-unavailable']],
    ['from a client that the provider does not know', faults.invalidClient, [503, 'idp-unavailable']],
  ] as const)(
    'A-070 an exchange %s never falls back to the original token',
    async (_what, fault, expected) => {
      const client = await c.signedIn();
      provider.always('token_exchange', fault);
      const answer = await client.api('/billing/x');
      expect([answer.status, answer.problem]).toEqual(expected);
      expect(c.upstream.requests).toEqual([]);
      expect(client.sessionCookie).toBeDefined();
      expect((await client.api('/api/x')).status).toBe(200);
    },
  );

  test('A-070 whoever logs out while it runs gets nothing stored, and no refresh token is spent', async () => {
    const client = await c.signedIn();
    const stored = new StoredSession(c, client);
    provider.always('token_exchange', { delay: 300 });
    const call = client.api('/billing/x', { replica: 0 });
    await eventually(() => provider.ledger.count('token_exchange') === 1);
    await stored.delete();
    const answer = await call;
    expect([answer.status, answer.problem]).toEqual([401, 'session-required']);
    expect(await stored.exists()).toBe(false);
    expect(c.upstream.requests).toEqual([]);
  });

  test('A-070 doubt about the refresh token outlives an exchange', async () => {
    const client = await c.signedIn();
    const stored = new StoredSession(c, client);
    provider.next('refresh', faults.resetAfterCommit);
    expect((await client.api('/orders/x')).status).toBe(503);
    expect(await stored.field('doubtful_since')).not.toBeNull();
    await c.redis?.command('HDEL', stored.key, 'retry_at');
    expect((await client.api('/billing/x')).status).toBe(200);
    expect(await stored.field('doubtful_since')).not.toBeNull();
    expect(provider.ledger.doubleSpends).toEqual([]);
  });
});

describe('token: client', () => {
  test('A-067 the application’s own token goes along, for audience and scope, and only for who is signed in', async () => {
    const client = await c.signedIn();
    await client.api('/machine/x');
    expect(lastToken()).toMatchObject({ sub: provider.clientId, audience: ORDERS, scope: 'orders:read' });
    const stranger = await c.client().api('/machine/x');
    expect([stranger.status, stranger.problem]).toEqual([401, 'session-required']);
    expect(c.upstream.requests).toHaveLength(1);
  });

  test('A-067 one token for each audience and scope in a process, whoever asks', async () => {
    const people = [await c.signedIn({ user: 'alice' }), await c.signedIn({ user: 'bob' })];
    provider.always('client_credentials', { delay: 100 });
    for (const path of ['/machine-a/x', '/machine-b/x']) {
      const answers = await Promise.all(people.map((client) => manyAtOnce(client, path, 30)));
      expect(statuses(answers.flat())).toEqual({ 200: 60 });
    }
    expect(provider.ledger.count('client_credentials')).toBe(4);
    expect(provider.ledger.count('refresh')).toBe(0);
  });

  test.each([
    ['a refusal', 'c', { error: 'unauthorized_client' }, [502, 'token-refused']],
    ['an outage', 'd', faults.unavailable, [503, 'idp-unavailable']],
    [
      'a token that is no Bearer',
      'e',
      { mutate: (a: object) => ({ ...a, token_type: 'DPoP' }) },
      [502, 'token-refused'],
    ],
  ] as const)(
    'A-067 %s reaches no upstream and is asked for seldom',
    async (_what, scope, fault, expected) => {
      const client = await c.signedIn();
      provider.always('client_credentials', fault);
      const answers = await inParallel(
        Array.from({ length: 20 }, () => () => client.api(`/machine-${scope}/x`, { replica: 0 })),
      );
      expect(answers.map(({ status, problem }) => [status, problem])).toEqual(answers.map(() => expected));
      expect(provider.ledger.count('client_credentials')).toBe(1);
      expect(c.upstream.requests).toEqual([]);
    },
  );

  test('A-067 what was refused is asked for again soon', async () => {
    const client = await c.signedIn();
    const isServed = async () => (await client.api('/machine-c/x', { replica: 0 })).status === 200;
    await eventually(isServed, { timeout: 10_000, interval: 500 });
  });
});
