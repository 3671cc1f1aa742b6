import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import type { BrowserClient, BrowserResponse } from './support/browser-client.js';
import { runCloakroom, startCloakroom, writeConfig, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { sendMany } from './support/many-requests.js';
import { random } from './support/random.js';
import { sendRaw } from './support/raw.js';
import { sessionPair } from './support/script-request.js';

const SESSION = '__Host-cloakroom-session';
const HOST = 'Host: app.example.test\r\nX-CSRF: 1\r\n';
const MUTATIONS = 100_000;
const ANONYMOUS = 100_000;

let c: Cloakroom;

beforeAll(async () => {
  c = await startCloakroom({ replicas: 2 });
});

afterAll(async () => {
  await expectLeftClean(c);
});

const ports = (): number[] => c.replicas.map((replica) => replica.port);

/** What `GET /api/x` answers to these Cookie header lines; header bytes are Latin-1. */
async function statusFor(...cookies: string[]): Promise<number | undefined> {
  const lines = cookies.map((cookie) => `Cookie: ${cookie}\r\n`).join('');
  const { responses } = await sendRaw(
    c.next().clientPort,
    `GET /api/x HTTP/1.1\r\n${HOST}${lines}Connection: close\r\n\r\n`,
  );
  return responses[0]?.status;
}

async function commandsRun(): Promise<Map<string, string>> {
  const stats = String(await c.redis?.command('INFO', 'commandstats'));
  const calls = [...stats.matchAll(/cmdstat_(\S+):calls=(\d+)/g)].map(
    ([, name = '', n = '']): [string, string] => [name, n],
  );
  // Our own asking.
  return new Map(calls.filter(([name]) => name !== 'info' && name !== 'dbsize'));
}

describe('A-048 every cookie of ours', () => {
  const attributesOf = (line: string): string[] => line.split('; ').slice(1).sort();

  test('A-048 has the __Host- prefix, Secure, HttpOnly, SameSite, Path=/, no Domain, and is under 512 bytes', async () => {
    const client = c.client();
    const answers: BrowserResponse[] = [];
    const attempt = await client.beginLogin({ returnTo: '/x' });
    answers.push(attempt.response, await attempt.finish());
    answers.push(await attempt.finish());
    answers.push(await client.navigate('/auth/callback?state=nonsense&code=nonsense'));
    answers.push(await client.me(), await client.api('/api/x'), await client.navigate('/'));
    c.provider.next('authorize', { error: 'login_required' });
    answers.push(await c.client().login({ params: { prompt: 'none' } }));
    const steps = await client.logout();
    for (const step of [steps.post, steps.navigation, steps.back]) if (step !== undefined) answers.push(step);
    answers.push(await client.api('/api/x', { cookie: `${SESSION}=junk` }));

    const lines = answers.flatMap((answer) => answer.setCookies);
    const names = new Set(lines.map((line) => line.slice(0, line.indexOf('='))));
    expect([...names].map((name) => name.replace(/-login-.*/, '-login')).sort()).toEqual(
      expect.arrayContaining(['__Host-cloakroom-last', '__Host-cloakroom-login', SESSION]),
    );
    for (const line of lines) {
      expect(line).toMatch(/^__Host-cloakroom-[a-z]+/);
      const attributes = attributesOf(line).filter((one) => !/^(Max-Age|Expires)=/.test(one));
      const sameSite = line.startsWith(`${SESSION}=`) ? 'SameSite=Strict' : 'SameSite=Lax';
      expect([line, attributes]).toEqual([line, ['HttpOnly', 'Path=/', sameSite, 'Secure']]);
      expect(line.slice(0, line.indexOf(';')).length).toBeLessThan(512);
    }
    expect(client.refusedCookies).toEqual([]);
  });

  test.each<[string, Record<string, unknown>, RegExp]>([
    ['a public URL that is plain http', { publicUrl: 'http://app.example.test' }, /publicUrl.*https/s],
    ['a public URL with a path', { publicUrl: 'https://app.example.test/shop/' }, /publicUrl.*path/is],
    ['SameSite=None', { session: { sameSite: 'none' } }, /session\.sameSite.*strict/is],
    ['a cookie for a domain', { session: { domain: 'example.test' } }, /session.*domain/is],
    ['a cookie for a path', { session: { path: '/app' } }, /session.*path/is],
    ['a cookie that is not Secure', { session: { secure: false } }, /session.*secure/is],
    ['a name of its own', { session: { cookieName: 'sid' } }, /session.*cookieName/is],
  ])('A-048 %s stops the start with a clear text', async (_what, change, text) => {
    const file = {
      publicUrl: 'https://app.example.test',
      listen: { port: 1 },
      store: { memory: { singleProcess: true } },
      secrets: { cookie: [{ env: 'COOKIE' }], seal: [{ env: 'SEAL' }] },
      providers: {
        main: { issuer: 'https://id.example.test', clientId: 'x', clientSecret: { env: 'CLIENT' } },
      },
      routes: [{ path: '/api/', upstream: 'http://127.0.0.1:9' }],
      ...change,
    };
    const [COOKIE, SEAL, CLIENT] = [1, 2, 3].map(() => randomBytes(32).toString('hex'));
    const run = await runCloakroom(['start', '--config', writeConfig(file)], {
      env: { COOKIE: COOKIE ?? '', SEAL: SEAL ?? '', CLIENT: CLIENT ?? '' },
    });
    expect(run.code).toBe(78);
    expect(run.stderr).toMatch(text);
  });
});

describe('A-050 only the cookie carries the session', () => {
  test('A-050 the same value in a query, body, path or other header, or under another name, is anonymous', async () => {
    const client = await c.signedIn();
    const value = client.sessionCookie?.value ?? '';
    const plain = decodeURIComponent(value);
    c.upstream.clear();
    const form = `${SESSION}=${value}&sid=${value}&session=${value}`;
    const lines = (...headers: string[]): string => headers.map((header) => `${header}\r\n`).join('');
    const matrix: [string, string][] = [
      [`GET /api/x?sid=${value}`, ''],
      [`GET /api/x?${SESSION}=${value}`, ''],
      [`GET /api/x?session_id=${encodeURIComponent(plain)}`, ''],
      [`GET /api/x;${SESSION}=${value.split('.')[0]}`, ''],
      [`GET /api/x;jsessionid=${value.split('.')[0]}`, ''],
      ['GET /api/x', lines(`Authorization: Session ${plain}`)],
      ['GET /api/x', lines(`Authorization: Bearer ${plain}`)],
      ['GET /api/x', lines(`X-Session-Id: ${plain}`, `X-Session: ${value}`)],
      ['GET /api/x', lines(`${SESSION}: ${value}`)],
      ['GET /api/x', lines(`Cookie2: ${SESSION}=${value}`)],
      ['GET /api/x', lines(`Cookie: cloakroom-session=${value}`)],
      ['GET /api/x', lines(`Cookie: __Secure-cloakroom-session=${value}`)],
      ['GET /api/x', lines(`Cookie: connect.sid=${value}; sid=${value}`)],
      ['GET /api/x', lines(`Set-Cookie: ${SESSION}=${value}`)],
      [
        'POST /api/x',
        lines(
          'Origin: https://app.example.test',
          'Content-Type: application/x-www-form-urlencoded',
          `Content-Length: ${form.length}`,
        ),
      ],
    ];
    for (const [line, headers] of matrix) {
      const body = line.startsWith('POST') ? form : '';
      const { responses } = await sendRaw(
        c.next().clientPort,
        `${line} HTTP/1.1\r\n${HOST}${headers}\r\n${body}`,
        {
          answers: 1,
        },
      );
      expect([line, headers, responses[0]?.status]).toEqual([line, headers, 401]);
    }
    expect(c.upstream.requests).toHaveLength(0);
    expect((await client.api('/api/x')).status).toBe(200);
  });
});

/** Everything that is not this value and does not merely spell it differently. */
function mutant(value: string, other: string, draw: ReturnType<typeof random>): string {
  const visible = (): string => String.fromCharCode(draw.int(0x21, 0x7e));
  const base64 = (n: number): string => randomBytes(n).toString('base64').replace(/=+$/, '');
  const at = draw.int(0, value.length - 1);
  const [id = '', signature = ''] = decodeURIComponent(value).slice(2).split('.');
  const [otherId = '', otherSignature = ''] = decodeURIComponent(other).slice(2).split('.');
  const made = (i: string, s: string): string => `s%3A${i}.${encodeURIComponent(s)}`;
  const ways: (() => string)[] = [
    () =>
      value.slice(0, at) +
      String.fromCharCode(value.charCodeAt(at) ^ (1 << draw.int(0, 7))) +
      value.slice(at + 1),
    () => value.slice(0, at),
    () => value.slice(at + 1),
    () => value.slice(0, at) + value.slice(at + 1),
    () => value.slice(0, at) + visible() + value.slice(at),
    () => value + visible().repeat(draw.int(1, 400)),
    () => made(randomBytes(32).toString('base64url'), base64(32)),
    () => made(randomBytes(32).toString('base64url'), signature),
    () => made(id, otherSignature),
    () => made(otherId, signature),
    () => made(id, base64(32)),
    () => made(id, ''),
    () => made('', signature),
    () => `s%3A${id}`,
    () => value.replace('s%3A', draw.pick(['', 'j%3A', 's%3A%3A', 'S%3A', 's.', 's%253A'])),
    () => `"${value}"`,
    () => draw.string(draw.int(0, 200)),
  ];
  return draw.pick(ways)();
}

function isMeaningless(candidate: string, value: string): boolean {
  // Not a cookie value any more, but two cookies, a refused request, or the same value spelled differently.
  // eslint-disable-next-line no-control-regex -- what the parser refuses by itself
  if (/[\x00-\x20\x7f;]/.test(candidate)) return true;
  try {
    return decodeURIComponent(candidate) === decodeURIComponent(value);
  } catch {
    return false;
  }
}

describe('A-051 a cookie that is not ours', () => {
  test('A-051 100,000 forged, truncated and flipped cookies: 401, cleared, without one Redis command', async () => {
    const client = await c.signedIn();
    const value = client.sessionCookie?.value ?? '';
    const other = (await c.signedIn()).sessionCookie?.value ?? '';
    const set = (await c.client().login()).setCookies.find((line) => line.startsWith(`${SESSION}=`)) ?? '';
    const cleared = `set-cookie: ${SESSION}=; ${set.split('; ').slice(1).join('; ')}; Max-Age=0`;
    const draw = random('cookie mutations');
    let left = MUTATIONS;
    const requests: Iterator<string> = {
      next: () => {
        if (left === 0) return { done: true, value: undefined };
        left -= 1;
        let cookie: string;
        do cookie = mutant(value, other, draw);
        while (isMeaningless(cookie, value));
        return { done: false, value: `GET /api/x HTTP/1.1\r\n${HOST}Cookie: ${SESSION}=${cookie}\r\n\r\n` };
      },
    };
    const before = await commandsRun();
    const keys = await c.redis?.client.dbsize();
    const outcomes = new Map<string, number>();
    const sorted = (line: string): string => line.toLowerCase().split('; ').sort().join('; ');
    const answered = await sendMany(ports(), requests, ({ status, head }) => {
      const line = /^set-cookie: __Host-cloakroom-session=.*$/im.exec(head)?.[0].trim() ?? '';
      const outcome = `${status} ${sorted(line)}`;
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    });
    expect(answered).toBe(MUTATIONS);
    expect(Object.fromEntries(outcomes)).toEqual({ [`401 ${sorted(cleared)}`]: MUTATIONS });
    // What processes ask now and then by themselves is a handful a second; sessions were not asked for at all.
    const after = await commandsRun();
    const grown = [...after].map(([name, calls]) => Number(calls) - Number(before.get(name) ?? 0));
    expect(Math.max(...grown)).toBeLessThan(MUTATIONS / 100);
    expect(after.get('hmget')).toBe(before.get('hmget'));
    expect(await c.redis?.client.dbsize()).toBe(keys);
    expect((await client.api('/api/x')).status).toBe(200);
  });

  test('A-051 a cookie of an ended or expired session: 401, cleared with the attributes it was set with, no key', async () => {
    const client = await c.signedIn();
    const value = sessionPair(client);
    for (const key of (await c.redis?.keys(`${c.prefix}:*:session`)) ?? [])
      await c.redis?.client.pexpire(key, 1);
    await eventually(async () => (await c.redis?.keys(`${c.prefix}:*:session`))?.length === 0);
    for (const replica of [0, 1]) {
      const answer = await client.api('/api/x', { replica, cookie: value });
      expect(answer.status).toBe(401);
      expect(answer.problem).toBe('session-required');
      expect(answer.setCookies).toContainEqual(
        expect.stringMatching(new RegExp(`^${SESSION}=; .*Max-Age=0`)),
      );
    }
    expect(client.sessionCookie).toBeUndefined();
    expect(await c.redis?.keys(`${c.prefix}:*:session`)).toEqual([]);
  });
});

describe('A-052 several cookies of our name', () => {
  test('A-052 junk beside the real one in any form and order: accepted, since exactly one verifies', async () => {
    const client = await c.signedIn();
    const real = sessionPair(client);
    const value = client.sessionCookie?.value ?? '';
    const forged = `s%3A${randomBytes(32).toString('base64url')}.${encodeURIComponent(randomBytes(32).toString('base64').replace('=', ''))}`;
    const junk = [
      `${SESSION}=`,
      `${SESSION}=junk`,
      `${SESSION}=${forged}`,
      `${SESSION}=${value.slice(0, -1)}`,
      `${SESSION}="${value}"`,
      `${SESSION}=${value}x`,
      SESSION,
      `=${SESSION}=${value}`,
      `\u00a0${SESSION}=junk`,
      `$Version=1; $Path="/"`,
      `${SESSION.toLowerCase()}=${value}`,
      `${SESSION}=junk; ${SESSION}=junk2; ${SESSION}=%00`,
    ];
    for (const one of junk) {
      expect([one, await statusFor(`${one}; ${real}`)]).toEqual([one, 200]);
      expect([one, await statusFor(`${real}; ${one}`)]).toEqual([one, 200]);
      expect([one, await statusFor(one, real)]).toEqual([one, 200]);
    }
    expect(await statusFor(`${real}; ${real}`)).toBe(200);
  });

  test('A-052 two different valid ones: 400 and a line in the log, in either order', async () => {
    const [a, b] = [sessionPair(await c.signedIn()), sessionPair(await c.signedIn())];
    const marks = c.replicas.map((replica) => replica.mark());
    expect(await statusFor(`${a}; ${b}`)).toBe(400);
    expect(await statusFor(`${b}; x=1; ${a}`)).toBe(400);
    await eventually(
      () =>
        c.replicas.flatMap((replica, at) => replica.events('session_cookie_ambiguous', marks[at])).length ===
        2,
    );
    expect([await statusFor(a), await statusFor(b)]).toEqual([200, 200]);
  });

  test('A-052 tricks of spelling alone are anonymous', async () => {
    const client = await c.signedIn();
    const value = client.sessionCookie?.value ?? '';
    const tricks = [
      `\u00a0${SESSION}=${value}`,
      `\u00e2\u0080\u0080${SESSION}=${value}`,
      `=${SESSION}=${value}`,
      `$Version=1; $${SESSION}=${value}`,
      `${SESSION}="${value}"`,
      `${SESSION.toLowerCase()}=${value}`,
      `${SESSION.toUpperCase()}=${value}`,
      `${SESSION}\u00a0=${value}`,
      `%5F%5FHost-cloakroom-session=${value}`,
      `a=1,${SESSION}=${value}`,
      `${SESSION}=${encodeURIComponent(value)}`,
      `${SESSION}=\u00a0${value}`,
    ];
    for (const trick of tricks) expect([trick, await statusFor(trick)]).toEqual([trick, 401]);
  });
});

test('A-054 100,000 anonymous requests leave no key and set no cookie', async () => {
  const kinds = [
    `GET /api/x HTTP/1.1\r\n${HOST}\r\n`,
    `GET /api/x?y HTTP/1.1\r\n${HOST}Cookie: theme=dark; _ga=1\r\n\r\n`,
    `POST /api/x HTTP/1.1\r\n${HOST}Origin: https://app.example.test\r\nContent-Length: 0\r\n\r\n`,
    `GET /api/x HTTP/1.1\r\nHost: app.example.test\r\n\r\n`,
    `DELETE /api/x HTTP/1.1\r\n${HOST}Sec-Fetch-Site: same-origin\r\n\r\n`,
    `GET /auth/me HTTP/1.1\r\n${HOST}\r\n`,
    `GET / HTTP/1.1\r\n${HOST}\r\n`,
    `GET /auth/logout HTTP/1.1\r\n${HOST}\r\n`,
    `GET /livez HTTP/1.1\r\n${HOST}\r\n`,
  ];
  const draw = random('anonymous');
  let left = ANONYMOUS;
  const requests: Iterator<string> = {
    next: () => {
      if (left === 0) return { done: true, value: undefined };
      left -= 1;
      return { done: false, value: kinds[draw.chance(0.8) ? draw.int(0, 4) : draw.int(5, 8)] ?? '' };
    },
  };
  const before = await c.redis?.client.dbsize();
  const cookies: string[] = [];
  const statuses = new Set<number>();
  const answered = await sendMany(ports(), requests, ({ status, head }) => {
    statuses.add(status);
    if (/^set-cookie:/im.test(head)) cookies.push(head);
  });
  expect(answered).toBe(ANONYMOUS);
  expect(cookies).toEqual([]);
  expect([...statuses].filter((status) => status >= 500)).toEqual([]);
  expect(statuses.has(401)).toBe(true);
  expect(await c.redis?.client.dbsize()).toBe(before);
});

test('A-049 a session id of real logins is 32 bytes, never twice, and nowhere but in the cookie', async () => {
  const clients: BrowserClient[] = [];
  for (let n = 0; n < 40; n += 1) clients.push(await c.signedIn());
  const ids = clients.map((one) =>
    decodeURIComponent(one.sessionCookie?.value ?? '')
      .slice(2)
      .split('.'),
  );
  expect(new Set(ids.map(([id]) => id)).size).toBe(clients.length);
  for (const [id = ''] of ids) expect(Buffer.from(id, 'base64url')).toHaveLength(32);

  const client = clients[0] ?? c.client();
  c.upstream.clear();
  const answers = [await client.me(), await client.api('/api/x'), await client.api('/api/status/500')];
  answers.push(await client.api('/api/x', { method: 'POST', body: 'x' }));
  const steps = await client.logout();
  for (const step of [steps.post, steps.navigation, steps.back]) if (step !== undefined) answers.push(step);
  const stored = await Promise.all(
    ((await c.redis?.keys(`${c.prefix}:*`)) ?? []).map(
      async (key) => key + String((await c.redis?.client.dumpBuffer(key))?.toString('latin1')),
    ),
  );
  const places: Record<string, string> = {
    answers: answers
      .map((answer) =>
        JSON.stringify([answer.rawHeaders.filter((line) => !line.startsWith(SESSION)), answer.text]),
      )
      .join('\n'),
    addresses: [steps.post.text, steps.navigation?.location, steps.back?.location].join('\n'),
    upstream: JSON.stringify(c.upstream.requests),
    provider: JSON.stringify([...c.provider.ledger.hits.map((hit) => [hit.headers, [...hit.params]])]),
    logs: c.replicas.map((replica) => readFileSync(replica.logFile, 'utf8')).join('\n'),
    redis: stored.join('\n'),
  };
  expect(c.upstream.requests).toHaveLength(3);
  for (const [place, text] of Object.entries(places)) {
    for (const [id = '', signature = ''] of ids) {
      expect([place, text.includes(id)]).toEqual([place, false]);
      expect([place, text.includes(signature)]).toEqual([place, false]);
    }
  }
});
