import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { inParallel, type BrowserClient, type BrowserResponse } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { faults, type FaultProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { withRoutes } from './support/routes.js';
import { StoredSession } from './support/stored-session.js';
import { startUpstream } from './support/upstream.js';

const INVALID = 'Bearer realm="api", error="invalid_token", error_description="it was revoked"';

let c: Cloakroom;
let provider: FaultProvider;

beforeAll(async () => {
  c = await startCloakroom({
    replicas: 2,
    upstream: await startUpstream({}),
    config: withRoutes(
      (upstream) => [
        { path: '/api/', upstream, websocket: true, limits: { parallel: 200 } },
        { path: '/orders/', upstream, audience: 'https://orders.example' },
        { path: '/billing/', upstream, exchange: { audience: 'billing' } },
        { path: '/machine/', upstream, token: 'client' },
        { path: '/public/', upstream, token: 'none' },
      ],
      { cors: { origins: ['https://shop.example.test'] } },
    ),
  });
  ({ provider } = c);
});

/** The upstream takes a token only while the provider would. */
function refuseDeadTokens(challenge = INVALID): void {
  c.upstream.handler = (_request, response, seen) => {
    if (seen.bearer !== undefined && provider.ledger.validAccessToken(seen.bearer) !== undefined)
      return false;
    response.writeHead(401, { 'www-authenticate': challenge, 'content-type': 'text/plain' });
    response.end('the upstream says no');
    return true;
  };
}

beforeEach(() => {
  provider.reset();
  provider.ledger.resetCounts();
  c.upstream.clear();
  refuseDeadTokens();
});

afterAll(async () => {
  await expectLeftClean(c);
});

/** Somebody whose access token was revoked before its time, and whose refresh token was not. */
async function withDeadToken(paths: string[] = ['/api/x']): Promise<BrowserClient> {
  const client = await c.signedIn();
  for (const path of paths) await client.api(path);
  for (const record of provider.ledger.accessTokens.values()) record.revokedAt ??= Date.now();
  c.upstream.clear();
  provider.ledger.resetCounts();
  return client;
}

const refreshes = (): number => provider.ledger.count('refresh');

function expectUpstreams401(answer: BrowserResponse): void {
  expect([answer.status, answer.text]).toEqual([401, 'the upstream says no']);
  expect(answer.headers['cloakroom-answer']).toBe('upstream');
  expect(answer.headers['www-authenticate']).toBe(INVALID);
  expect(answer.setCookies).toEqual([]);
}

describe('A-089 an upstream that says invalid_token', () => {
  test.each(['GET', 'HEAD', 'OPTIONS'])('%s is sent once more with a new token', async (method) => {
    const client = await withDeadToken();
    const answer = await client.api('/api/x?a=1', { method });
    expect(answer.status).toBe(200);
    expect(answer.headers['cloakroom-answer']).toBeUndefined();
    expect(refreshes()).toBe(1);
    const [first, second] = c.upstream.requests;
    expect(c.upstream.requests).toHaveLength(2);
    expect(second?.url).toBe('/api/x?a=1');
    expect(second?.bearer).not.toBe(first?.bearer);
    const others = (headers: string[] = []): string[] =>
      headers.filter((line) => !line.startsWith('Bearer '));
    expect(others(second?.rawHeaders)).toEqual(others(first?.rawHeaders));
  });

  test.each([
    ['POST', 'x'],
    ['POST', undefined],
    ['DELETE', undefined],
    ['GET', 'a body'],
  ])(
    '%s with body %p is not sent twice; its 401 passes and the next request has a new token',
    async (method, body) => {
      const client = await withDeadToken();
      expectUpstreams401(await client.api('/api/x', { method, ...(body === undefined ? {} : { body }) }));
      expect(c.upstream.requests).toHaveLength(1);
      await eventually(() => refreshes() === 1);
      await eventually(async () => (await new StoredSession(c, client).generation()) === 2);
      expect((await client.api('/api/x', { method: 'POST', body: 'x' })).status).toBe(200);
    },
  );

  test('100 of them at two replicas cost one refresh', async () => {
    const client = await withDeadToken();
    const answers = await inParallel(
      Array.from({ length: 100 }, (_, i) => () => client.api('/api/x', { replica: i % 2 })),
    );
    expect(answers.filter(({ status }) => status !== 200)).toEqual([]);
    expect(refreshes()).toBe(1);
    expect(provider.ledger.doubleSpends).toEqual([]);
  });

  test('always, gets one repeat for the first request and no refresh for those after it', async () => {
    c.upstream.handler = (_request, response) => {
      response.writeHead(401, { 'www-authenticate': INVALID }).end('the upstream says no');
      return true;
    };
    const client = await c.signedIn();
    expectUpstreams401(await client.api('/api/x'));
    expect(c.upstream.requests).toHaveLength(2);
    for (let i = 0; i < 20; i += 1) expectUpstreams401(await client.api('/api/x', { replica: i % 2 }));
    expect(refreshes()).toBe(1);
    expect(c.upstream.requests).toHaveLength(22);
    expect((await client.me()).status).toBe(200);
  });

  test('while the provider is away passes as it is, body and all', async () => {
    const client = await withDeadToken();
    provider.always('refresh', faults.unavailable);
    expectUpstreams401(await client.api('/api/x'));
    const head = await client.api('/api/x', { method: 'HEAD' });
    expect([head.status, head.headers['cloakroom-answer']]).toEqual([401, 'upstream']);
    expect((await client.me()).status).toBe(200);
  });

  test('of a session whose refresh the provider refuses is our session-ended', async () => {
    const client = await c.signedIn();
    await client.api('/api/x');
    provider.revokeEverything();
    const answer = await client.api('/api/x');
    expect([answer.status, answer.problem]).toEqual([401, 'session-ended']);
    expect(answer.headers['cloakroom-answer']).toBeUndefined();
    expect(answer.json()).toMatchObject({ reason: 'refresh-refused' });
  });

  test.each([
    ['/orders/x', ['refresh']],
    ['/billing/x', ['refresh', 'token_exchange']],
    ['/machine/x', ['client_credentials']],
  ] as const)('on %s has the token of that route renewed', async (path, endpoints) => {
    const client = await withDeadToken([path]);
    expect((await client.api(path)).status).toBe(200);
    const asked = provider.ledger.hits.map(({ endpoint }) => endpoint);
    expect(asked).toEqual([...endpoints]);
  });

  test('and a browser that leaves meanwhile leaves nothing behind', async () => {
    const client = await withDeadToken();
    provider.always('refresh', { delay: 300 });
    const gone = new AbortController();
    const answer = client.api('/api/x', { signal: gone.signal }).catch(() => undefined);
    await eventually(() => refreshes() === 1);
    gone.abort();
    await answer;
    await eventually(async () => (await new StoredSession(c, client).generation()) === 2);
    expect((await client.api('/api/x')).status).toBe(200);
    expect(c.upstream.requests).toHaveLength(2);
  });
});

describe('A-089 any other refusal of an upstream passes', () => {
  test.each([
    ['another error', 'Bearer error="insufficient_scope"'],
    [
      'invalid_token in a description',
      'Bearer error="invalid_request", error_description="error=\\"invalid_token\\""',
    ],
    ['another scheme', 'DPoP error="invalid_token"'],
    ['no error', 'Bearer realm="api"'],
  ])('401 with %s: no refresh, no repeat, marked as the upstream’s', async (_what, challenge) => {
    c.upstream.handler = (_request, response) => {
      response.writeHead(401, { 'www-authenticate': challenge, 'cloakroom-answer': 'forged' }).end('no');
      return true;
    };
    const client = await c.signedIn();
    const answer = await client.api('/api/x');
    expect([answer.status, answer.headers['cloakroom-answer']]).toEqual([401, 'upstream']);
    expect([c.upstream.requests.length, refreshes()]).toEqual([1, 0]);
  });

  test('403 passes as 403 and without a mark, also one that says invalid_token', async () => {
    c.upstream.handler = (_request, response) => {
      response.writeHead(403, { 'www-authenticate': INVALID, 'cloakroom-answer': 'upstream' }).end('no');
      return true;
    };
    const client = await c.signedIn();
    const answer = await client.api('/api/x');
    expect([answer.status, answer.headers['cloakroom-answer'], refreshes()]).toEqual([403, undefined, 0]);
  });

  test('a 401 where no token went along passes', async () => {
    expectUpstreams401(await c.client().api('/public/x'));
    expect(c.upstream.requests).toHaveLength(1);
  });

  test('our own 401 has no mark, and scripts of other origins may read the mark', async () => {
    const ours = await c.client().api('/api/x');
    expect([ours.status, ours.headers['cloakroom-answer']]).toEqual([401, undefined]);
    const headers = { origin: 'https://shop.example.test' };
    const theirs = await c.client().fetch('/public/x', { headers: { ...headers, 'x-csrf': '1' } });
    expect(theirs.headers['cloakroom-answer']).toBe('upstream');
    expect(theirs.headers['access-control-expose-headers']).toContain('cloakroom-answer');
  });

  test('the 401 to a WebSocket’s handshake is marked, and the next handshake has a new token', async () => {
    const client = await withDeadToken();
    const handshake = {
      upgrade: 'websocket',
      connection: 'Upgrade',
      'sec-websocket-version': '13',
      'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
    };
    const answer = await client.api('/api/socket', { headers: handshake });
    expect([answer.status, answer.headers['cloakroom-answer']]).toEqual([401, 'upstream']);
    await eventually(async () => (await new StoredSession(c, client).generation()) === 2);
    expect(refreshes()).toBe(1);
  });
});
