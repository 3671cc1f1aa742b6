import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Administration } from './support/administration.js';
import type { BrowserClient, BrowserResponse } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, sleep } from './support/lifetime.js';

const DAY = 24 * 60 * 60 * 1000;
/** Seconds since somebody signed in at the provider, for those it remembers. */
const LONG_AGO = 3600;

let c: Cloakroom;
let administration: Administration;
let people = 0;

beforeAll(async () => {
  c = await startCloakroom({ replicas: 2 });
  administration = await Administration.start(c);
});

beforeEach(() => {
  c.provider.reset();
  singleSignOn(c);
});

afterAll(async () => {
  await expectLeftClean(c, 31 * DAY);
});

/** The provider signs people in without asking, unless it is told to ask: then they have signed in just now. */
function singleSignOn({ provider }: Cloakroom): void {
  /** By nonce, whether this login came with prompt=login. */
  const asked = new Map<string, boolean>();
  provider.always('authorize', {
    when: (params) => {
      const prompt = (params.get('prompt') ?? '').split(' ');
      asked.set(params.get('nonce') ?? '', prompt.includes('login'));
      return false;
    },
  });
  provider.always('token', {
    claims: (claims) => {
      const now = Math.floor(Date.now() / 1000);
      return { ...claims, auth_time: asked.get(String(claims['nonce'])) === true ? now : now - LONG_AGO };
    },
  });
}

function newUser(): string {
  people += 1;
  return `person-${String(people)}`;
}

function sub(user: string): { issuer: string; subject: string } {
  return { issuer: c.provider.issuer, subject: user };
}

function promptOf(url: URL | undefined): string | null | undefined {
  return url?.searchParams.get('prompt');
}

/** Logs in as a browser does: goes where it is sent until it is home. Returns the `prompt` of each visit to the provider. */
async function goRound(
  client: BrowserClient,
  user: string,
  params: Record<string, string> = {},
): Promise<{ prompts: (string | null | undefined)[]; last: BrowserResponse }> {
  const prompts: (string | null | undefined)[] = [];
  let next: Record<string, string> | undefined = { returnTo: '/orders', ...params };
  let last: BrowserResponse | undefined;
  for (let round = 0; next !== undefined && round < 4; round += 1) {
    const attempt = await client.beginLogin({ params: next });
    prompts.push(promptOf(attempt.authorizationUrl));
    last = await attempt.finish({ as: user });
    const location = last.location ?? '';
    next = location.startsWith('/auth/login?')
      ? Object.fromEntries(new URL(location, c.publicUrl).searchParams)
      : undefined;
  }
  if (last === undefined) throw new Error('no answer');
  return { prompts, last };
}

describe('after an end by an operator or by the provider single sign-on does not bring the person back', () => {
  test.each(['operator', 'provider'] as const)(
    'ended by the %s: the next login of the same browser asks the provider for a sign-in at once',
    async (cause) => {
      const user = newUser();
      const client = await c.signedIn({ user });
      await administration.end(sub(user), { cause });
      expect((await client.api('/api/x')).status).toBe(401);
      const { prompts, last } = await goRound(client, user);
      expect(prompts).toEqual(['login']);
      expect([last.status, last.location]).toEqual([303, '/orders']);
      expect((await client.me()).status).toBe(200);
      // Once is enough.
      await client.logout({ navigate: false });
      expect((await goRound(client, user)).prompts).toEqual([null, 'login']);
    },
  );

  test.each(['subject', 'e-mail', 'session', 'everybody'])(
    'ended by %s, signed in from another browser: sent round once more with prompt=login, then home where it wanted to be',
    async (by) => {
      const user = newUser();
      const client = await c.signedIn({ user });
      const handle = (await administration.handles(sub(user)))[0] ?? '';
      const filter = {
        subject: sub(user),
        'e-mail': { user: `${user}@example.test` },
        session: { handle },
        everybody: { all: true as const },
      }[by];
      await administration.end(filter ?? {});
      expect((await client.api('/api/x')).status).toBe(401);
      const other = c.client();
      const { prompts, last } = await goRound(other, user);
      expect(prompts).toEqual([null, 'login']);
      expect([last.status, last.location]).toEqual([303, '/orders']);
      expect((await other.me()).status).toBe(200);
    },
  );

  test('somebody else signs in as before', async () => {
    const user = newUser();
    await c.signedIn({ user });
    await administration.end(sub(user));
    expect((await goRound(c.client(), newUser())).prompts).toEqual([null]);
  });

  test('a prompt that was taken out on the way to the provider is noticed: refused, and no session is left', async () => {
    const user = newUser();
    const client = await c.signedIn({ user });
    await administration.end(sub(user));
    const attempt = await client.beginLogin();
    const url = attempt.authorizationUrl;
    expect(promptOf(url)).toBe('login');
    url?.searchParams.delete('prompt');
    url?.searchParams.set('test_user', user);
    const back = await client.foreign(url?.href ?? '');
    const answer = await client.navigate(client.pathOf(back.location ?? ''), { site: 'cross-site' });
    expect(answer.status).toBeGreaterThanOrEqual(400);
    expect(answer.status).toBeLessThan(500);
    expect((await client.me()).status).toBe(401);
    expect(await administration.handles(sub(user))).toEqual([]);
  });

  test('a provider that does not say when people signed in is believed if it was told to ask, and only then', async () => {
    const user = newUser();
    const client = await c.signedIn({ user });
    await administration.end(sub(user));
    c.provider.always('token', {
      claims: (claims) => ({ ...claims, auth_time: undefined }),
    });
    const { prompts, last } = await goRound(c.client(), user);
    expect(prompts).toEqual([null, 'login']);
    expect(last.location).toBe('/orders');
    const same = await goRound(client, user);
    expect(same.prompts).toEqual(['login']);
    expect(same.last.location).toBe('/orders');
  });

  test('a person who signed in at the provider since then is let in without being asked again', async () => {
    const user = newUser();
    await c.signedIn({ user });
    await administration.end(sub(user));
    c.provider.always('token', {
      claims: (claims) => ({ ...claims, auth_time: Math.ceil(Date.now() / 1000) }),
    });
    expect((await goRound(c.client(), user)).prompts).toEqual([null]);
  });

  test('a silent login goes back to the application without a session, and shows nobody a page', async () => {
    const user = newUser();
    const client = await c.signedIn({ user });
    await administration.end(sub(user));
    for (const browser of [client, c.client()]) {
      const { prompts, last } = await goRound(browser, user, { prompt: 'none' });
      expect(prompts).toEqual(['none']);
      expect([last.status, last.location]).toEqual([303, '/orders']);
      expect((await browser.me()).status).toBe(401);
    }
    expect(await administration.handles(sub(user))).toEqual([]);
  });
});

describe('what asks for no fresh sign-in', () => {
  test("the user's own logout, everywhere or here, and a session replaced by a newer one", async () => {
    const user = newUser();
    const client = await c.signedIn({ user });
    await client.logout({ navigate: false });
    expect((await goRound(client, user)).prompts).toEqual([null]);
    expect((await goRound(client, user)).prompts).toEqual([null]);
    const other = await c.signedIn({ user });
    await administration.end(sub(user), { cause: 'user' });
    expect((await goRound(other, user)).prompts).toEqual([null]);
  });

  test('a record deleted by hand, and an epoch that ended', async () => {
    const user = newUser();
    const client = await c.signedIn({ user });
    for (const handle of await administration.handles(sub(user))) {
      await c.redis?.command('DEL', `${c.prefix}:{${handle}}:session`);
    }
    expect((await client.me()).status).toBe(401);
    expect((await goRound(client, user)).prompts).toEqual([null]);
    await administration.bump('end');
    await eventually(async () => (await client.me()).status === 401);
    expect((await goRound(client, user)).prompts).toEqual([null]);
  });

  test('session.freshLoginFor over, or 0s', async () => {
    const briefly = await startCloakroom({
      replicas: 1,
      provider: c.provider,
      upstream: c.upstream,
      config: { session: { freshLoginFor: '2s' } },
    });
    const never = await startCloakroom({
      replicas: 1,
      provider: c.provider,
      upstream: c.upstream,
      config: { session: { freshLoginFor: '0s' } },
    });
    for (const room of [briefly, never]) {
      const act = await Administration.start(room);
      const user = newUser();
      await room.signedIn({ user });
      await act.end(sub(user));
      if (room === briefly) {
        expect((await goRound(room.client(), user)).prompts).toEqual([null, 'login']);
        await act.end(sub(user));
        await sleep(2100);
      }
      expect((await goRound(room.client(), user)).prompts).toEqual([null]);
      await act.close();
      await room.close();
    }
  });
});
