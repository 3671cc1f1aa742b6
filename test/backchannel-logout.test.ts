import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { inParallel, type BrowserResponse } from './support/browser-client.js';
import { runCloakroom, startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { startProvider, type FaultProvider, type Json } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { sleep } from './support/lifetime.js';
import {
  claims,
  typ,
  deliver,
  isAlive,
  logoutToken,
  LOGOUT_EVENT,
  person,
  refusalInLog,
  statuses,
  type Delivery,
  type LogoutTokenChange,
  type Person,
} from './support/logout-tokens.js';

let room: Cloakroom;
let provider: FaultProvider;
let strict: FaultProvider;
let off: FaultProvider;

const STRICT = '/auth/backchannel-logout/strict';

beforeAll(async () => {
  [provider, strict, off] = await Promise.all([
    startProvider({ path: '/realms/shop' }),
    startProvider(),
    startProvider(),
  ]);
  room = await startCloakroom({
    replicas: 4,
    provider,
    providers: { main: provider, strict, off },
    config: {
      providers: {
        main: { idTokenAlgs: ['RS256', 'PS256', 'ES256', 'EdDSA'] },
        strict: { backchannelLogout: 'strict' },
        off: { backchannelLogout: 'off' },
      },
    },
  });
});

beforeEach(() => {
  provider.reset();
});

afterAll(async () => {
  await expectLeftClean(room, 26 * 3600 * 1000);
  await room.close();
});

const now = (): number => Math.floor(Date.now() / 1000);

/** Exactly 200, where some clients answer 204. */
function expectDone(answer: BrowserResponse): void {
  expect(answer.text).toBe('');
  expect(answer.status).toBe(200);
  expect(answer.headers['cache-control']).toBe('no-store');
  expect(answer.setCookies).toEqual([]);
}

/** Until a token made from now on is younger, in whole seconds, than everything made before. */
async function nextSecond(): Promise<void> {
  await sleep(1000 - (Date.now() % 1000) + 5);
}

describe('A-103 a good logout token', () => {
  test('A-103 oidcc-client-test-rp-backchannel-rpinitlogout: the provider answers a logout that began here', async () => {
    const alice = await person(room);
    const elsewhere = await person(room, alice.sub);
    const steps = await alice.client.logout();
    expect(steps.back?.status).toBe(303);
    // The browser's session is gone already; the provider tells every client all the same.
    expectDone(await deliver(room, await logoutToken(provider, alice)));
    expect(await isAlive(room, alice)).toBe(false);
    expect(await isAlive(room, elsewhere)).toBe(true);
  });

  test('A-103 ends all sessions of that sid, or of sub without sid, on every replica, and no others: 100 sessions', async () => {
    // 20 people, each with three browsers in one session of the provider and two in another.
    const subs = Array.from({ length: 20 }, (_, i) => `one-of-20-${String(i)}`);
    const groups = await inParallel(
      subs.map((sub) => async () => {
        const theirs: (Person & { group: string })[] = [];
        for (let i = 0; i < 5; i += 1) {
          const group = `${sub}/${i < 3 ? 'first' : 'second'}`;
          provider.next('token', {
            when: () => true,
            ...claims((all) => ({ sid: `${String(all['sub'])}/${i < 3 ? 'first' : 'second'}` })),
          });
          theirs.push({ ...(await person(room, sub)), sid: group, group });
        }
        return theirs;
      }),
      1,
    );
    const everybody = groups.flat();
    expect(everybody).toHaveLength(100);
    const dead = async (): Promise<number[]> => {
      const seen = await inParallel(
        everybody.map((one) => () => isAlive(room, one)),
        8,
      );
      return seen.flatMap((alive, i) => (alive ? [] : [i]));
    };
    expect(await dead()).toEqual([]);

    expectDone(await deliver(room, await logoutToken(provider, { sid: `${subs[3] ?? ''}/first` })));
    expect(await dead()).toEqual([15, 16, 17]);

    expectDone(await deliver(room, await logoutToken(provider, { sub: subs[7] ?? '' })));
    expect(await dead()).toEqual([15, 16, 17, 35, 36, 37, 38, 39]);

    const both = { sub: subs[19] ?? '', sid: `${subs[19] ?? ''}/second` };
    expectDone(await deliver(room, await logoutToken(provider, both)));
    expect(await dead()).toEqual([15, 16, 17, 35, 36, 37, 38, 39, 98, 99]);
  });

  test('A-103 is dead on every replica when the answer is there, whichever replica gave it', async () => {
    for (const { index } of room.replicas) {
      const alice = await person(room);
      expectDone(await deliver(room, await logoutToken(provider, alice), { replica: index }));
      expect(await statuses(room, alice)).toEqual([401, 401, 401, 401]);
    }
  });

  test.each<[string, Record<string, string>]>([
    ['from anywhere', { origin: 'https://idp.example.test', 'sec-fetch-site': 'cross-site' }],
    ['from a null origin', { origin: 'null' }],
    ['under an internal name', { host: 'cloakroom.internal:3000' }],
    ['with cookies of nobody', { cookie: 'a=b; __Host-cloakroom-session=s%3Aforged.forged' }],
  ])('A-103 needs no cookie, no header and no origin: %s', async (_name, headers) => {
    const alice = await person(room);
    expectDone(await deliver(room, await logoutToken(provider, alice), { headers }));
    expect(await isAlive(room, alice)).toBe(false);
  });

  test('A-103 for somebody who never was here, or has left: 200 as well', async () => {
    expectDone(await deliver(room, await logoutToken(provider, { sub: 'nobody' })));
    expectDone(await deliver(room, await logoutToken(provider, { sid: 'no-such-session' })));
    const alice = await person(room);
    expectDone(await deliver(room, await logoutToken(provider, alice)));
    expectDone(await deliver(room, await logoutToken(provider, alice)));
    expect(await isAlive(room, alice)).toBe(false);
  });

  test('A-103 the front end learns the reason', async () => {
    const alice = await person(room);
    expectDone(await deliver(room, await logoutToken(provider, alice)));
    const me = await alice.client.me();
    expect({ status: me.status, ...me.json() }).toMatchObject({ status: 401, reason: 'provider' });
  });

  test('A-103 the same sub at another provider is somebody else', async () => {
    const here = await person(room, 'namesake');
    const there = await person(room, 'namesake', { provider: strict, name: 'strict' });
    expectDone(await deliver(room, await logoutToken(strict, { sub: 'namesake' }), { path: STRICT }));
    expect(await isAlive(room, here)).toBe(true);
    expect(await isAlive(room, there)).toBe(false);
    expectDone(await deliver(room, await logoutToken(provider, { sub: 'namesake' })));
    expect(await isAlive(room, here)).toBe(false);
  });
});

describe('A-105 a token that comes again', () => {
  test('A-105 is answered 200 and does not end a session that began since', async () => {
    const before = await person(room);
    const token = await logoutToken(provider, { sub: before.sub });
    expectDone(await deliver(room, token));
    expect(await isAlive(room, before)).toBe(false);
    await nextSecond();
    const after = await person(room, before.sub);
    for (const { index } of room.replicas) expectDone(await deliver(room, token, { replica: index }));
    expect(await isAlive(room, after)).toBe(true);
    // A new token is a new wish.
    await nextSecond();
    expectDone(await deliver(room, await logoutToken(provider, { sub: before.sub })));
    expect(await isAlive(room, after)).toBe(false);
  });

  test('A-105 at the same moment on all replicas: each answers 200', async () => {
    const alice = await person(room);
    const token = await logoutToken(provider, alice);
    const answers = await Promise.all(
      room.replicas.map(({ index: replica }) => deliver(room, token, { replica })),
    );
    for (const answer of answers) expectDone(answer);
    expect(await isAlive(room, alice)).toBe(false);
  });

  test('the same jti from another provider is another token', async () => {
    const jti = 'not-so-unique';
    const here = await person(room);
    const there = await person(room, here.sub, { provider: strict, name: 'strict' });
    const one = await logoutToken(
      provider,
      { sub: here.sub },
      claims(() => ({ jti })),
    );
    const two = await logoutToken(
      strict,
      { sub: here.sub },
      claims(() => ({ jti })),
    );
    expectDone(await deliver(room, one));
    expectDone(await deliver(room, two, { path: STRICT }));
    expect(await isAlive(room, here)).toBe(false);
    expect(await isAlive(room, there)).toBe(false);
  });
});

describe('what real providers send is understood', () => {
  const ODD_SID = 'a+b/c==+//';

  test.each<[name: string, change: LogoutTokenChange, delivery?: Delivery]>([
    ['no exp', claims(() => ({ exp: undefined }))],
    ['typ JWT', typ('JWT')],
    ['typ jwt', typ('jwt')],
    ['no typ', typ(undefined)],
    ['typ with application/ before it', typ('application/logout+jwt')],
    ['typ in capitals', typ('LOGOUT+JWT')],
    ['aud as a list', claims((all) => ({ aud: [all['aud']] }))],
    ['aud with other clients beside this one', claims((all) => ({ aud: ['another', all['aud']] }))],
    ['sub without sid', claims(() => ({ sid: undefined }))],
    ['sid without sub', claims(() => ({ sub: undefined }))],
    [
      'an event with content',
      claims(() => ({ events: { [LOGOUT_EVENT]: { revoke_offline_access: true } } })),
    ],
    [
      'a second event',
      claims((all) => ({ events: { ...(all['events'] as Json), 'urn:example:event': {} } })),
    ],
    ['further claims', claims(() => ({ typ: 'Logout', trace_id: 'x', azp: 'y' }))],
    ['four minutes on the way', claims(() => ({ iat: now() - 240, exp: undefined }))],
    ['a clock 25 s ahead', claims(() => ({ iat: now() + 25, exp: now() + 145 }))],
    ['exp just over, as far as clocks may differ', claims(() => ({ iat: now() - 100, exp: now() - 10 }))],
    ['no kid', { signing: 'no-kid' }],
    ['a charset', {}, { headers: { 'content-type': 'application/x-www-form-urlencoded; charset=UTF-8' } }],
    ['the media type in capitals', {}, { headers: { 'content-type': 'Application/X-WWW-Form-Urlencoded' } }],
  ])('%s', async (...[, change, delivery]) => {
    const alice = await person(room);
    expectDone(await deliver(room, await logoutToken(provider, alice, change), delivery));
    expect(await isAlive(room, alice)).toBe(false);
  });

  test('a sid with plus signs and slashes', async () => {
    provider.modes.claims = () => ({ sid: ODD_SID });
    const alice = await person(room);
    expectDone(await deliver(room, await logoutToken(provider, { sid: ODD_SID })));
    expect(await isAlive(room, alice)).toBe(false);
  });

  test('further values in the form', async () => {
    const alice = await person(room);
    const token = await logoutToken(provider, alice);
    expectDone(await deliver(room, token, { body: `state=x&logout_token=${token}&state=y` }));
    expect(await isAlive(room, alice)).toBe(false);
  });

  test('keys that were exchanged a moment ago, one under the id of another, and of other kinds', async () => {
    const rotations = [
      { dropOld: true },
      { dropOld: true, reuseKid: true },
      { alg: 'ES256' },
      { alg: 'PS256' },
      { alg: 'EdDSA' },
      { alg: 'RS256', dropOld: true },
    ] as const;
    for (const rotation of rotations) {
      const alice = await person(room);
      await provider.rotateKeys(rotation);
      expectDone(await deliver(room, await logoutToken(provider, alice)));
      expect(await isAlive(room, alice)).toBe(false);
    }
  });

  test('a key that was taken back is not believed any more', async () => {
    const alice = await person(room);
    const old = provider.signingKey;
    await provider.rotateKeys({ dropOld: true });
    // Seen by this replica, as the next login would do it.
    expectDone(await deliver(room, await logoutToken(provider, { sid: 'x' }), { replica: 0 }));
    const answer = await deliver(room, await logoutToken(provider, alice, { key: old }), { replica: 0 });
    expect(answer.status).toBe(400);
    expect(await isAlive(room, alice)).toBe(true);
  });
});

describe('backchannelLogout: strict', () => {
  test.each<[string, LogoutTokenChange, string]>([
    ['typ JWT', typ('JWT'), 'typ'],
    ['no typ', typ(undefined), 'typ'],
    ['no exp', claims(() => ({ exp: undefined })), 'exp'],
  ])('refuses %s', async (_name, change, reason) => {
    const alice = await person(room, undefined, { provider: strict, name: 'strict' });
    const answer = await deliver(room, await logoutToken(strict, alice, change), { path: STRICT });
    expect(answer.status).toBe(400);
    expect(await refusalInLog(room, answer)).toBe(reason);
    expect(await isAlive(room, alice)).toBe(true);
  });

  test.each<[string, LogoutTokenChange]>([
    ['what the specification recommends', {}],
    ['typ with application/ before it', typ('application/logout+jwt')],
    ['aud as a list', claims((all) => ({ aud: [all['aud']] }))],
    ['sub without sid', claims(() => ({ sid: undefined }))],
  ])('accepts %s', async (_name, change) => {
    const alice = await person(room, undefined, { provider: strict, name: 'strict' });
    expectDone(await deliver(room, await logoutToken(strict, alice, change), { path: STRICT }));
    expect(await isAlive(room, alice)).toBe(false);
  });
});

test.each(['POST', 'GET', 'PUT'])(
  'backchannelLogout: off leaves nothing there, not for %s either',
  async (method) => {
    const alice = await person(room, undefined, { provider: off, name: 'off' });
    const answer = await deliver(room, await logoutToken(off, alice), {
      path: '/auth/backchannel-logout/off',
      method,
    });
    expect(answer.status).toBe(404);
    expect(await isAlive(room, alice)).toBe(true);
  },
);

test('cloakroom check names the addresses to register', async () => {
  const { stdout } = await runCloakroom(['check', '--config', room.first.configFile]);
  expect(stdout).toContain(`${room.publicUrl}/auth/backchannel-logout, to be registered`);
  expect(stdout).toContain(`${room.publicUrl}/auth/backchannel-logout/strict, to be registered`);
  expect(stdout).not.toContain('/auth/backchannel-logout/off');
  expect(stdout).not.toContain('/auth/frontchannel');
});
