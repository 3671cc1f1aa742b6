import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { runCloakroom, startCloakroom, type Cloakroom, type RunResult } from './support/cloakroom.js';
import { startProvider, type FaultProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { StoredSession } from './support/stored-session.js';
import { atTerminal, hasTerminals } from './support/terminal.js';

const DAY = 24 * 3600 * 1000;
const FIREFOX = 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0';
/** Clears the screen, colours, goes up a line, reorders: what a name must not do to whoever lists it. */
const HOSTILE = 'eve\u001b[2J\u001b]0;owned\u0007\u009b31m\r\n\u202egro.elpmaxe@eve';

let room: Cloakroom;
let other: FaultProvider;
const handles: Record<string, string> = {};
/** A moment between the logins of alice and bob, and those of everybody else. */
let between = 0;

async function signIn(
  name: string,
  { headers = {}, provider }: { headers?: Record<string, string>; provider?: string } = {},
): Promise<void> {
  const client = room.client();
  const answer = await client.login({
    as: name,
    headers: { 'user-agent': FIREFOX, ...headers },
    ...(provider === undefined ? {} : { params: { provider } }),
  });
  expect(answer.status).toBe(303);
  handles[name] = new StoredSession(room, client).handle;
}

function handle(name: string): string {
  return handles[name] ?? `nobody called ${name}`;
}

const begun = Date.now();

beforeAll(async () => {
  const main = await startProvider();
  other = await startProvider();
  main.modes.claims = (sub) => ({
    email: sub === 'eve' ? HOSTILE : `${sub}@example.test`,
    ...(sub === 'bob' ? { sid: 'b+b/9=' } : {}),
    ...(sub === 'alice' ? { acr: 'urn:two-factors' } : {}),
  });
  room = await startCloakroom({ providers: { main, other }, replicas: 2 });
  await signIn('alice', { headers: { 'x-forwarded-for': '203.0.113.7' } });
  await signIn('bob', { headers: { 'x-forwarded-for': '198.51.100.9' } });
  between = Date.now() + 1;
  await new Promise((resolve) => setTimeout(resolve, 20));
  await signIn('carol', { provider: 'other' });
  await signIn('dave', {
    headers: { 'user-agent': '\u001b[31mFirefox/1\u001b[0m'.replaceAll('\u001b', '\\x1b') },
  });
  await signIn('eve');
  const redis = room.redis?.client;
  await redis?.hset(`${room.prefix}:{${handle('dave')}}:session`, 'touched', String(Date.now() - 3_600_000));
}, 60_000);

afterAll(async () => {
  await expectLeftClean(room, 32 * DAY);
});

function sessions(...args: string[]): Promise<RunResult> {
  return runCloakroom(['sessions', ...args, '--config', room.first.configFile]);
}

type Listed = { handle?: string; next?: string } & Record<string, unknown>;

async function listed(...args: string[]): Promise<string[]> {
  const { stdout, stderr, code } = await sessions('list', '--json', ...args);
  expect(stderr).toBe('');
  const found = stdout.split('\n').filter((line) => line !== '');
  expect(code).toBe(found.length === 0 ? 1 : 0);
  const names = Object.fromEntries(Object.entries(handles).map(([name, known]) => [known, name]));
  return found.map((line) => names[(JSON.parse(line) as Listed).handle ?? ''] ?? line).sort();
}

describe('A-110 sessions list', () => {
  const everybody = ['alice', 'bob', 'carol', 'dave', 'eve'];

  test('everybody, with or without being asked for', async () => {
    expect(await listed()).toEqual(everybody);
    expect(await listed('--all')).toEqual(everybody);
  });

  test.each([
    ['a user by subject', ['--user', 'alice'], ['alice']],
    ['a user by e-mail address, whatever its case', ['--user', 'Alice@Example.TEST'], ['alice']],
    ['a subject', ['--subject', 'carol'], ['carol']],
    ['a subject, which no e-mail address is', ['--subject', 'bob@example.test'], []],
    ["the provider's session, with + and /", ['--sid', 'b+b/9='], ['bob']],
    ['a provider by its name', ['--issuer', 'other'], ['carol']],
    ['unused for a while', ['--idle', '30m'], ['dave']],
    ['an address', ['--address', '203.0.113.7'], ['alice']],
    ['a range of addresses', ['--address', '198.51.0.0/16'], ['bob']],
    ['what began an hour ago', ['--before', '1h'], []],
    ['several criteria at once', ['--user', 'alice', '--idle', '30m'], []],
    ['what is not there', ['--user', 'nobody'], []],
  ])('by %s', async (_what, args, expected) => {
    expect(await listed(...args)).toEqual(expected);
  });

  test('by issuer, handle, time of beginning, and with an exception', async () => {
    const time = new Date(between).toISOString();
    expect(await listed('--issuer', other.issuer)).toEqual(['carol']);
    expect(await listed('--handle', handle('eve'))).toEqual(['eve']);
    expect(await listed('--before', time)).toEqual(['alice', 'bob']);
    expect(await listed('--created-before', time, '--except', handle('bob'))).toEqual(['alice']);
    expect(await listed('--created-before', time.replace('Z', '+00:00'))).toEqual(['alice', 'bob']);
  });

  test('the JSON of one says who, since when and from where, and holds no cookie and no token', async () => {
    const { stdout } = await sessions('list', '--json', '--user', 'alice');
    const one = JSON.parse(stdout) as Record<string, unknown>;
    expect(one).toEqual({
      handle: handle('alice'),
      provider: 'main',
      issuer: room.provider.issuer,
      subject: 'alice',
      email: 'alice@example.test',
      acr: 'urn:two-factors',
      sid: expect.any(String),
      createdAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      usedAt: expect.any(String),
      absoluteExpiresAt: expect.any(String),
      browser: 'Firefox',
      platform: 'Linux',
      address: '203.0.113.0/24',
      bound: 'cookie',
    });
  });

  test('page by page with a limit: each once, and the cursor of the last line leads on', async () => {
    const seen: string[] = [];
    let cursor: string | undefined;
    let pages = 0;
    do {
      const more = cursor === undefined ? [] : ['--cursor', cursor];
      const { stdout } = await sessions('list', '--json', '--limit', '2', ...more);
      const lines = stdout
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => JSON.parse(line) as Listed);
      cursor = lines.at(-1)?.next;
      seen.push(...lines.flatMap((line) => (line.handle === undefined ? [] : [line.handle])));
      pages += 1;
    } while (cursor !== undefined && pages < 9);
    expect(seen.sort()).toEqual(Object.values(handles).sort());
    const table = await sessions('list', '--limit', '2');
    expect(table.stderr).toMatch(/^There may be more: go on with --cursor \S+\n$/);
    expect(table.stdout.trim().split('\n')).toHaveLength(3);
  });

  test('a cursor that is none is told', async () => {
    expect(await sessions('list', '--cursor', 'x')).toMatchObject({
      code: 64,
      stderr: expect.stringMatching(/^cloakroom: .*cursor.*\n/),
    });
  });

  test('the table is aligned, in UTC, and one line a session where no terminal is', async () => {
    const { stdout, stderr, code } = await sessions('list');
    expect({ stderr, code }).toEqual({ stderr: '', code: 0 });
    const [titles = '', ...rows] = stdout.trimEnd().split('\n');
    expect(rows).toHaveLength(5);
    const [began, used, at] = ['BEGAN (UTC)', 'USED', 'HANDLE'].map((title) => titles.indexOf(title));
    for (const row of rows) {
      const characters = Array.from(row);
      expect(characters.slice(began, Number(began) + 16).join('')).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d$/);
      // Used when this began or an hour before, and not longer ago than that.
      const [, age = ''] = /^(<1|\d+)m ago/.exec(characters.slice(used).join('')) ?? [];
      const took = Math.ceil((Date.now() - begun) / 60_000);
      const ages = Array.from({ length: took + 1 }, (_, minute) => [
        String(minute || '<1'),
        String(60 + minute),
      ]);
      expect(ages.flat()).toContain(age);
      expect(Object.values(handles)).toContain(characters.slice(at).join(''));
    }
  });

  test('nobody: a word on standard error, exit code 1', async () => {
    expect(await sessions('list', '--user', 'nobody')).toEqual({
      code: 1,
      signal: null,
      stdout: '',
      stderr: 'Nobody matches.\n',
    });
  });

  test('A-110 a corrupt record is skipped, and so is a foreign one', async () => {
    const { client } = room.redis ?? {};
    const key = `${room.prefix}:{${handle('carol')}}:session`;
    const [about] = (await client?.hmgetBuffer(key, 'about')) ?? [];
    await client?.hset(key, 'about', 'spoilt');
    const stranger = handle('carol').replace(/^./, (first) => (first === 'A' ? 'B' : 'A'));
    const foreign = `${room.prefix}:{${stranger}}:session`;
    await client?.set(foreign, 'a string', 'EX', 60);
    await client?.zadd(`${room.prefix}:{all}:sessions`, Date.now(), stranger);
    expect(await listed()).toEqual(['alice', 'bob', 'dave', 'eve']);
    await client?.hset(key, 'about', about ?? '');
    await client?.del(foreign);
    expect(await listed()).toEqual(everybody);
  });
});

describe('A-115 what comes from outside cannot move the terminal of an operator', () => {
  test('in the table', async () => {
    const { stdout } = await sessions('list');
    // eslint-disable-next-line no-control-regex -- that is what must not be there
    expect(stdout.replaceAll('\n', '')).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e]/);
    expect(stdout.trimEnd().split('\n')).toHaveLength(6);
  });

  test('in the JSON, which still says it all', async () => {
    const { stdout } = await sessions('list', '--json', '--user', 'eve');
    // eslint-disable-next-line no-control-regex -- that is what must not be there
    expect(stdout.trimEnd()).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e]/);
    expect((JSON.parse(stdout) as { email: string }).email).toBe(HOSTILE);
  });

  test('in the details of one, and in what an ending would mean', async () => {
    const shown = await sessions('show', handle('eve'));
    const planned = await sessions('end', '--user', 'eve', '--dry-run');
    for (const text of [shown.stdout, planned.stderr]) {
      // eslint-disable-next-line no-control-regex -- that is what must not be there
      expect(text.replaceAll('\n', '')).not.toMatch(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e]/);
    }
  });

  // The terminal is played by script(1) of Linux.
  (hasTerminals ? test : test.skip)('at a terminal of 80 columns no line is longer', async () => {
    const { screen, code } = await atTerminal(['sessions', 'list', '--config', room.first.configFile]);
    expect(code).toBe(0);
    const lines = screen.replaceAll('\r', '').trimEnd().split('\n');
    expect(lines).toHaveLength(12);
    expect(lines.filter((line) => Array.from(line).length > 80)).toEqual([]);
    for (const known of Object.values(handles)) expect(screen).toContain(known);
  });
});

describe('A-110 sessions show', () => {
  test('one session, for people', async () => {
    const { stdout, code } = await sessions('show', handle('bob'));
    expect(code).toBe(0);
    expect(stdout).toMatch(/^handle +\S{43}\nsubject +bob\ne-mail +bob@example\.test\n/);
    expect(stdout).toMatch(/\nprovider session +b\+b\/9=\n/);
    expect(stdout).toMatch(/\nused +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC \(<1m ago\)\n/);
  });

  test('one session, for programs', async () => {
    const { stdout } = await sessions('show', handle('bob'), '--json');
    expect(JSON.parse(stdout)).toMatchObject({ handle: handle('bob'), sid: 'b+b/9=' });
  });

  test('one that is not there: exit code 1', async () => {
    expect(await sessions('show', 'A'.repeat(43))).toMatchObject({ code: 1, stdout: '' });
  });
});

test('A-115 each look is in the audit log of exactly one replica, without what was looked for', async () => {
  const mark = room.replicas.map((replica) => replica.mark());
  await sessions('list', '--user', 'alice@example.test');
  await room.waitForEvent('sessions_listed', ({ by }) => String(by) === 'user');
  await new Promise((resolve) => setTimeout(resolve, 2500));
  const lines = room.replicas.flatMap((replica, i) => replica.events('sessions_listed', mark[i]));
  const own = lines.filter(({ by }) => String(by) === 'user');
  expect(own).toContainEqual(
    expect.objectContaining({
      log: 'audit',
      actor: 'operator',
      name: expect.any(String),
      from: expect.any(String),
    }),
  );
  expect(JSON.stringify(own)).not.toContain('example.test');
});
