import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { startProvider, type Behaviour, type FaultProvider, type Json } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { refusedLogin, sessionCount } from './support/refused-login.js';

// What an ID token looks like from outside, and the plain good cases of every kind of client.

describe('A-043 oversized and nested tokens', () => {
  let room: Cloakroom;
  let provider: FaultProvider;

  beforeAll(async () => {
    provider = await startProvider();
    room = await startCloakroom({ provider, replicas: 1 });
  });

  beforeEach(() => {
    provider.reset();
  });

  afterAll(async () => {
    await expectLeftClean(room);
    await room.close();
  });

  const extra = (claims: () => Json): Behaviour => ({ claims: (all) => ({ ...all, ...claims() }) });
  const nested = (depth: number): string => '['.repeat(depth) + ']'.repeat(depth);
  const nestedClaim = (name: string, depth: number): Behaviour => ({
    payload: (all) => JSON.stringify({ ...all, [name]: 'HERE' }).replace('"HERE"', () => nested(depth)),
  });

  const refusals: Array<[string, Behaviour, string]> = [
    ['a claim of 700 kB', extra(() => ({ junk: 'x'.repeat(700_000) })), 'size'],
    ['100 000 audiences', extra(() => ({ aud: Array.from({ length: 100_000 }, () => 'a') })), 'size'],
    ['a header of 500 kB', { header: (header) => ({ ...header, junk: 'x'.repeat(500_000) }) }, 'size'],
    ['a claim nested 100 000 deep', nestedClaim('junk', 100_000), 'size'],
    ['half a token', { idToken: (jwt) => jwt.slice(0, jwt.length / 2) }, 'malformed'],
    ['two parts', { idToken: (jwt) => jwt.split('.').slice(0, 2).join('.') }, 'malformed'],
    ['four parts', { idToken: (jwt) => `${jwt}.x` }, 'malformed'],
    ['five parts', { idToken: (jwt) => `${jwt}.x.y` }, 'signature'],
    ['dots alone', { idToken: () => '..' }, 'malformed'],
    ['a payload that is no object', { payload: () => '[]' }, 'malformed'],
    ['a payload that is null', { payload: () => 'null' }, 'malformed'],
    ['a payload that is not JSON', { payload: (all) => JSON.stringify(all).slice(0, -1) }, 'malformed'],
    ['a number', { mutate: (answer) => ({ ...answer, id_token: 5 }) }, 'missing'],
    ['an object', { mutate: (answer) => ({ ...answer, id_token: {} }) }, 'missing'],
    ['an empty text', { mutate: (answer) => ({ ...answer, id_token: '' }) }, 'missing'],
    ['null', { mutate: (answer) => ({ ...answer, id_token: null }) }, 'missing'],
    ['nothing', { mutate: (answer) => ({ ...answer, id_token: undefined }) }, 'missing'],
  ];

  test.each(refusals)('A-043 an ID token that is or has %s: refused', async (_name, behaviour, reason) => {
    const before = await sessionCount(room);
    provider.next('token', behaviour);
    const { status, event, reason: logged } = await refusedLogin(room);
    expect(status).toBe(400);
    expect(event).toBe('id_token_rejected');
    expect(logged).toBe(reason);
    expect(await sessionCount(room)).toBe(before);
  });

  test('A-043 a token answer that is itself nested 400 000 deep: refused, and the process goes on', async () => {
    const pid = room.first.pid;
    provider.next('token', {
      body: `{"access_token":"at-nested-answer","token_type":"Bearer","x":${nested(400_000)}}`,
      headers: { 'content-type': 'application/json' },
    });
    const { status } = await refusedLogin(room);
    expect(status).toBeGreaterThanOrEqual(400);
    expect((await room.client().fetch('/livez')).status).toBe(200);
    expect(room.first.pid).toBe(pid);
    expect(room.first.running).toBe(true);
  });

  test.each([
    ['an unknown claim', 'junk', 10_000],
    ['a claim that is shown', 'name', 10_000],
  ])('A-043 %s nested 10 000 deep leaves no broken session', async (_name, claim, depth) => {
    provider.next('token', nestedClaim(claim, depth));
    const client = room.client();
    const answer = await client.login();
    // Either is fine: a session that works, or a page that says no. A session that cannot be read is not.
    if (answer.status === 303) expect((await client.me()).status).toBe(200);
    else expect([400, 502]).toContain(answer.status);
    expect((await (await room.signedIn()).me()).status).toBe(200);
    await room.redis?.clear();
  });

  test('A-043 __proto__ and constructor claims change nothing for anybody', async () => {
    const poison = '{"polluted":"yes","email":"mallory@example.test","isAdmin":true}';
    provider.next('token', {
      payload: (all) =>
        `${JSON.stringify({ ...all, email: undefined }).slice(0, -1)},"__proto__":${poison},"constructor":{"prototype":${poison}}}`,
    });
    const poisoned = room.client();
    await poisoned.login();
    const before = await (await room.signedIn({ user: 'bob' })).me();
    expect(before.json<{ claims: Json }>().claims).toMatchObject({ sub: 'bob', email: 'bob@example.test' });
    const mine = await poisoned.me();
    for (const answer of [before, mine, await room.client().me()]) {
      expect(answer.text).not.toMatch(/polluted|mallory|isAdmin/);
    }
    await room.redis?.clear();
  });

  test('A-043 300 tokens of 700 kB leave the process as it was', async () => {
    const round = async (): Promise<void> => {
      provider.next(
        'token',
        extra(() => ({ junk: 'x'.repeat(700_000) })),
      );
      await refusedLogin(room);
    };
    for (let i = 0; i < 50; i += 1) await round();
    const before = room.first.memory();
    for (let i = 0; i < 250; i += 1) await round();
    // 250 of them kept would be 175 MB and more.
    expect(room.first.memory() - before).toBeLessThan(120 * 1024 * 1024);
    expect(room.first.pids).toHaveLength(1);
  }, 180_000);
});

describe('A-026 an ordinary login ends with a session', () => {
  const CLIENTS = [
    ['oidcc-client-test', 'client_secret_basic', 'any', 'basic'],
    ['oidcc-client-test-client-secret-basic', 'client_secret_basic', 'basic', 'basic'],
    ['client_secret_basic_plain', 'client_secret_basic_plain', 'basic_plain', 'basic_plain'],
    ['client_secret_post', 'client_secret_post', 'post', 'post'],
  ] as const;
  // A colon in the id cannot be told from the separator without form encoding.
  const idFor = (clientAuth: string): string => (clientAuth === 'basic_plain' ? 'shop%+ä' : 'shop:bff%+ä');
  const nameOf = (at: number): string => `client-${String(at)}`;

  let room: Cloakroom;
  let providers: FaultProvider[];

  beforeAll(async () => {
    providers = await Promise.all(
      CLIENTS.map(([, , clientAuth], at) =>
        startProvider({
          clientId: idFor(clientAuth),
          clientSecret: `se:cret%41+ä€/=&? zwölf ${String(at)}`,
          modes: { clientAuth },
        }),
      ),
    );
    room = await startCloakroom({
      providers: Object.fromEntries(providers.map((provider, at) => [nameOf(at), provider])),
      replicas: 1,
      config: {
        providers: Object.fromEntries(CLIENTS.map(([, clientAuth], at) => [nameOf(at), { clientAuth }])),
      },
    });
  });

  afterAll(async () => {
    await expectLeftClean(room);
  });

  test.each(CLIENTS.map(([name, , clientAuth, seen], at) => [name, clientAuth, seen, at] as const))(
    'A-026 %s: id and secret arrive whole, with : %% + and letters outside ASCII',
    async (_name, clientAuth, seen, at) => {
      const client = room.client();
      expect((await client.login({ params: { provider: nameOf(at) } })).status).toBe(303);
      expect((await client.me()).json()).toMatchObject({ authenticated: true, claims: { sub: 'alice' } });
      expect((await client.api('/api/echo')).status).toBe(200);
      const ledger = providers[at]?.ledger;
      expect(ledger?.clientAuthentications).toEqual([seen]);
      const { params } = ledger?.hitsOf('authorize')[0] ?? {};
      expect(params?.get('client_id')).toBe(idFor(clientAuth));
      expect(params?.get('scope')).toBe('openid profile email offline_access');
    },
  );
});
