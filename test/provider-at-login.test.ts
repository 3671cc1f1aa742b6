import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { inParallel } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { faults, startProvider, type Behaviour, type FaultProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';
import { loginsNeedRefresh } from './support/over-at-once.js';
import { refusedLogin, sessionCount } from './support/refused-login.js';
import { startSink, type Sink } from './support/upstream.js';

let provider: FaultProvider;
let room: Cloakroom;
let sink: Sink;
/** Milliseconds after which a call to the provider is given up. */
const GIVEN_UP_AFTER = 1000;

beforeAll(async () => {
  sink = await startSink();
  provider = await startProvider();
  room = await startCloakroom({
    provider,
    config: { providers: { main: { timeout: `${String(GIVEN_UP_AFTER)}ms`, metadataTimeout: '1s' } } },
  });
});

beforeEach(() => {
  provider.reset();
  provider.ledger.resetCounts();
});

afterAll(async () => {
  expect(sink.connections).toBe(0);
  expect(room.replicas.map((replica) => replica.pids.length)).toEqual([1, 1]);
  await expectLeftClean(room);
  await room.close();
});

const json = (body: string): Behaviour => ({ body, headers: { 'content-type': 'application/json' } });
const member = (name: string, value: unknown): Behaviour => ({
  mutate: (answer) => ({ ...answer, [name]: value }),
});
const length = (declared: number, body: string): Behaviour => ({
  raw: `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${String(declared)}\r\n\r\n${body}`,
});
const TOKENS = '{"access_token":"at-from-a-raw-answer","token_type":"Bearer","expires_in":300}';

describe('a token endpoint that fails: a page with a reference, no session, and the next login succeeds', () => {
  const down = { status: 503, event: 'code_exchange_failed', reason: 'no-answer' };
  const odd = { status: 502, event: 'code_exchange_failed', reason: 'invalid-answer' };
  const limited = { status: 503, event: 'code_exchange_failed', reason: 'limited' };
  const unknownClient = { status: 503, event: 'client_misconfigured', reason: 'invalid_client' };
  const no = { status: 400, event: 'code_exchange_refused' };

  test.each<[string, () => Behaviour, object]>([
    ['B-17 cuts the connection', () => faults.reset, down],
    ['B-18 never answers', () => faults.hang, down],
    ['B-18 answers after 2 s with a time limit of 1 s', () => ({ delay: 2000 }), down],
    ['B-18 does the work and answers too late', () => ({ delayAfter: 2000 }), down],
    ['B-19 answers 429 with Retry-After', () => faults.tooMany, limited],
    ['B-19 answers 500', () => faults.serverError, down],
    ['B-19 answers 502 with HTML', () => faults.badGateway, down],
    ['B-19 answers 503', () => faults.unavailable, down],
    ['B-20 answers HTML with 200', () => faults.html, odd],
    ['B-20 answers 302', () => ({ redirect: sink.url }), odd],
    ['B-20 answers 307', () => ({ redirect: sink.url, status: 307 }), odd],
    ['B-20 answers 308', () => ({ redirect: sink.url, status: 308 }), odd],
    ['B-20 answers half a JSON text and cuts', () => faults.halfJson, down],
    ['B-20 answers half a JSON text', () => json('{"access_token":"at-half'), odd],
    ['B-20 declares more bytes than it sends', () => length(TOKENS.length + 40, TOKENS), down],
    ['B-20 declares fewer bytes than it sends', () => length(TOKENS.length - 10, TOKENS), odd],
    ['B-20 answers what is no HTTP', () => ({ raw: 'SSH-2.0-OpenSSH_9.6\r\n' }), down],
    ['B-20 closes without a byte', () => ({ raw: '' }), down],
    ['B-20 cuts after it did the work', () => faults.resetAfterCommit, down],
    ['B-20 answers 500 after it did the work', () => faults.serverErrorAfterCommit, down],
    ['B-20 answers 2 MiB', () => faults.hugeBody, odd],
    ['B-20 answers a gzip bomb', () => ({ gzipBomb: 64 * 1024 * 1024 }), odd],
    ['B-20 answers with an empty body', () => json(''), odd],
    ['B-20 answers 204', () => ({ status: 204, body: '' }), odd],
    ['B-20 answers a list', () => json('[]'), odd],
    ['B-20 answers null', () => json('null'), odd],
    ['B-20 answers without an access token', () => member('access_token', undefined), odd],
    ['B-20 answers with an access token that is no text', () => member('access_token', { a: 1 }), odd],
    [
      'B-20 answers with a line break in the access token',
      () => member('access_token', 'at-1\r\nx-evil: 1'),
      odd,
    ],
    ['B-20 answers with an access token outside ASCII', () => member('access_token', 'at-zwölf'), odd],
    ['B-20 answers with a refresh token that is no text', () => member('refresh_token', 7), odd],
    ['B-20 answers with another token type', () => member('token_type', 'DPoP'), odd],
    ['B-22 does not know the client (401)', () => faults.invalidClient, unknownClient],
    ['B-22 does not know the client (400)', () => faults.invalidClient400, unknownClient],
    [
      'B-20 has no token endpoint at this address',
      () => faults.notFound,
      { ...unknownClient, reason: 'status-404' },
    ],
    ['B-20 refuses the code', () => faults.invalidGrant, no],
    ['B-20 refuses the code with 403', () => faults.forbidden, no],
    ['B-20 refuses the code without a reason', () => faults.emptyBody, no],
  ])('%s', async (_name, behaviour, expected) => {
    const before = await sessionCount(room);
    provider.next('token', behaviour());
    const refused = await refusedLogin(room, { replica: 0 });
    const { status, event, reason } = refused;
    expect({ status, event, reason }).toMatchObject(expected);
    // Nothing of what the provider said is shown.
    expect(refused.response.text).not.toMatch(
      /Welcome|bad gateway|Unknown or invalid|server_error|at-|not_found/,
    );
    expect(refused.response.headers['cache-control']).toBe('no-store');
    if (status === 503) expect(Number(refused.response.headers['retry-after'])).toBeGreaterThan(0);
    expect(await sessionCount(room)).toBe(before);
    // A code is used once: it cannot be known whether the provider took it.
    expect(provider.ledger.count('token')).toBe(1);
    expect((await room.client().login({ replica: 0 })).status).toBe(303);
  });

  test('B-19 the Retry-After of a 429 is handed on', async () => {
    provider.next('token', { status: 429, headers: { 'retry-after': '17' }, body: '' });
    const { response } = await refusedLogin(room);
    expect([response.status, response.headers['retry-after']]).toEqual([503, '17']);
  });
});

test('B-17 the provider stops and comes back: sessions go on, logins are a 503 page and then succeed again', async () => {
  const client = await room.signedIn();
  const begun = await room.client().beginLogin({ replica: 0 });
  await begun.authorize();
  await provider.stop();
  expect((await begun.finish()).status).toBe(503);
  for (const replica of [0, 1]) {
    expect((await client.api('/api/echo', { replica })).status).toBe(200);
    expect((await client.me({ replica })).status).toBe(200);
    // The browser is sent to a provider that is not there; that is for the browser to say.
    expect((await room.client().beginLogin({ replica })).response.status).toBe(303);
  }
  expect((await room.client().fetch('/livez')).status).toBe(200);
  await provider.start();
  expect((await room.client().login({ replica: 0 })).status).toBe(303);
});

test('B-18 while a hundred logins wait for the provider everything else goes on, and each gets its answer', async () => {
  const client = await room.signedIn();
  const attempts = await inParallel(
    Array.from({ length: 100 }, () => async () => {
      const attempt = await room.client().beginLogin({ replica: 0 });
      await attempt.authorize();
      return attempt;
    }),
    20,
  );
  provider.always('token', faults.hang);
  let waiting = attempts.length;
  // Counted while no call can have been given up yet: from then on the provider may see the next before that one's end.
  let atOnce = 0;
  let countUntil: number | undefined;
  const count = (): void => {
    countUntil ??= performance.now() + GIVEN_UP_AFTER / 2;
    if (performance.now() < countUntil) atOnce = Math.max(atOnce, provider.ledger.concurrency('token'));
  };
  provider.events.on('hit', count);
  const outcomes = attempts.map(async (attempt) => {
    const { status } = await attempt.finish();
    waiting -= 1;
    return status;
  });
  await eventually(() => provider.ledger.concurrency('token') > 30, { what: 'logins to wait' });
  const others = await inParallel(
    Array.from({ length: 60 }, () => async () => [
      (await client.api('/api/echo', { replica: 0 })).status,
      (await client.me({ replica: 0 })).status,
      (await room.client().fetch('/livez', { replica: 0 })).status,
    ]),
    6,
  );
  expect(new Set(others.flat())).toEqual(new Set([200]));
  expect(waiting).toBeGreaterThan(0);
  expect(new Set(await Promise.all(outcomes))).toEqual(new Set([503]));
  provider.events.off('hit', count);
  // From this process at most 64 at a time.
  expect(atOnce).toBeGreaterThan(0);
  expect(atOnce).toBeLessThanOrEqual(64);

  provider.reset();
  await eventually(async () => (await room.client().login({ replica: 0 })).status === 303, {
    timeout: 10_000,
    interval: 250,
    what: 'a login after the provider is well again',
  });
  expect((await client.me()).status).toBe(200);
});

test('B-19 after several failures the provider is left alone for a moment, and then tried again', async () => {
  provider.always('token', faults.unavailable);
  for (let i = 0; i < 5; i += 1) expect((await refusedLogin(room, { replica: 1 })).status).toBe(503);
  const asked = provider.ledger.count('token');
  const refused = await refusedLogin(room, { replica: 1 });
  expect(refused).toMatchObject({ status: 503, reason: 'limited' });
  expect(provider.ledger.count('token')).toBe(asked);
  provider.reset();
  await eventually(async () => (await room.client().login({ replica: 1 })).status === 303, {
    timeout: 10_000,
    interval: 250,
    what: 'a login after the pause',
  });
});

describe('B-22 the client secret changes', () => {
  test('B-22 the new secret counts from the moment it is in place, at the first login, on every replica', async () => {
    for (const secret of ['second-secret-of-this-client', 'third:secret%of+this client']) {
      provider.setClientSecret(secret);
      room.writeSecret('client-secret', secret);
      for (const replica of [0, 1]) expect((await room.client().login({ replica })).status).toBe(303);
    }
    expect(room.replicas.map((replica) => replica.pids.length)).toEqual([1, 1]);
  });

  test('B-22 with the wrong secret: an alarm, 503, no session ended; with the right one all works again', async () => {
    const calm = await room.signedIn();
    loginsNeedRefresh(provider);
    const due = await room.signedIn({ user: 'bob', replica: 0 });
    provider.reset();
    await sleep(25);
    const marks = room.replicas.map((replica) => replica.mark());
    provider.setClientSecret('a-secret-that-nobody-told-us');

    const { line } = await refusedLogin(room, { replica: 0 });
    expect(line).toMatchObject({ event: 'client_misconfigured', level: 'error' });
    const unavailable = await due.api('/api/echo');
    expect([unavailable.status, unavailable.problem]).toEqual([503, 'idp-unavailable']);
    expect(Number(unavailable.headers['retry-after'])).toBeGreaterThan(0);
    expect(due.sessionCookie).toBeDefined();
    // Whose token is still good notices nothing.
    expect((await calm.api('/api/echo')).status).toBe(200);
    expect((await due.me()).json()).toMatchObject({ claims: { sub: 'bob' } });

    room.writeSecret('client-secret', 'a-secret-that-nobody-told-us');
    expect((await room.client().login({ replica: 0 })).status).toBe(303);
    expect((await room.client().login({ replica: 1 })).status).toBe(303);
    await eventually(async () => (await due.api('/api/echo')).status === 200, {
      timeout: 15_000,
      interval: 200,
      what: 'the refresh to succeed again',
    });
    for (const [index, replica] of room.replicas.entries()) {
      expect(replica.events('session_ended', marks[index])).toEqual([]);
    }
  });

  test('B-22 while the file is being replaced the secret so far is used', async () => {
    room.writeSecret('client-secret', '');
    expect((await room.client().login({ replica: 0 })).status).toBe(303);
    rmSync(join(room.folder, 'client-secret'));
    expect((await room.client().login({ replica: 0 })).status).toBe(303);
    await room.first.waitForEvent('client_secret_unreadable');
    room.writeSecret('client-secret', provider.clientSecret);
    expect((await room.client().login({ replica: 0 })).status).toBe(303);
  });
});
