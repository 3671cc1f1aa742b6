import { createHash, randomBytes } from 'node:crypto';
import { createServer } from 'node:net';
import { describe, expect, test } from '@jest/globals';
import { runCloakroom, startCloakroom, writeConfig } from './support/cloakroom.js';
import { closeLater } from './support/lifetime.js';
import { freePort } from './support/run-folder.js';
import { atTerminal, hasTerminals } from './support/terminal.js';

const HANDLE = 'A'.repeat(43);

function configFor(store: unknown): string {
  return writeConfig({
    publicUrl: 'https://app.example.test',
    store,
    secrets: { cookie: [{ env: 'KEY_ONE' }], seal: [{ env: 'KEY_TWO' }] },
    providers: {
      main: { issuer: 'https://id.example.test', clientId: 'app', clientSecret: { env: 'KEY_THREE' } },
    },
    routes: [{ path: '/api/', upstream: 'http://127.0.0.1:9' }],
  });
}

const key = () => randomBytes(32).toString('hex');
const env = { KEY_ONE: key(), KEY_TWO: key(), KEY_THREE: key() };

/** Commands that need the sessions of running servers. */
const COMMANDS = [
  ['sessions', 'list'],
  ['sessions', 'show', HANDLE],
  ['sessions', 'end', '--all', '--reason', 'breach', '--yes'],
  ['epoch', 'show'],
  ['epoch', 'bump', '--reason', 'breach', '--yes'],
];

describe('wrong usage: what is wrong, how it is used, exit code 64', () => {
  test.each([
    [['sessions'], 'say what to do: list, show or end'],
    [['sessions', 'kill'], "unknown command 'sessions kill'"],
    [['sessions', 'end'], 'say whose sessions'],
    [['sessions', 'end', '--except', HANDLE], 'say whose sessions'],
    [['sessions', 'end', '--user', ''], "option '--user' needs a value"],
    [['sessions', 'end', '--user', 'a', '--user', 'b'], "option '--user' is given twice"],
    [['sessions', 'end', '--all', '--user', 'a'], "'--all' means everybody"],
    [['sessions', 'end', '--user', 'a', 'b'], "unexpected argument 'b'"],
    [['sessions', 'end', '--handle', 'abc'], "'--handle' is not a handle"],
    [['sessions', 'end', '--before', '2026-01-05T09:00'], "'--created-before' is not a time"],
    [['sessions', 'end', '--before', '2h', '--created-before', '2h'], 'give one'],
    [['sessions', 'end', '--idle', '30'], "'--idle' is not a duration"],
    [['sessions', 'end', '--address', 'example.com'], "'--address' is not an IP address"],
    [['sessions', 'end', '--user', 'a', '--reason', ' '], "'--reason' does not say why"],
    [['sessions', 'end', '--user', 'a', '--reason', 'x'.repeat(501)], "'--reason' is longer"],
    [['sessions', 'list', '--yes'], "option '--yes' does not go with 'sessions list'"],
    [['sessions', 'list', '--limit', '0'], "'--limit' is not a number"],
    [['sessions', 'list', '--bogus'], "Unknown option '--bogus'"],
    [['sessions', 'show'], 'the handle of a session is missing'],
    [['epoch'], 'say what to do: show or bump'],
    [['epoch', 'bump'], 'say why with --reason'],
    [['epoch', 'show', '--refresh'], 'takes no option but --json'],
    [['admin-token'], 'say who will use it'],
    [['admin-token', '--name', 'alice'], 'say what it may do'],
    [['admin-token', '--name', 'alice', '--role', 'root'], 'say what it may do'],
    [['admin-token', '--name', 'a\nb', '--role', 'read'], "'--name' is"],
  ])('%j', async (args, problem) => {
    const { code, stdout, stderr } = await runCloakroom(args, { env });
    expect({ code, stdout }).toEqual({ code: 64, stdout: '' });
    const [first, empty, usage] = stderr.split('\n');
    expect(first).toContain(problem);
    expect([empty, usage]).toEqual(['', expect.stringMatching(`^usage: cloakroom ${String(args[0])}`)]);
  });

  test.each([['sessions'], ['epoch'], ['admin-token']])('%s --help', async (name) => {
    const { code, stdout, stderr } = await runCloakroom([name, '--help']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(`usage: cloakroom ${name} `);
    expect(stdout).toContain('exit codes');
    expect(stdout.split('\n').filter((line) => line.length > 120)).toEqual([]);
  });
});

describe('without sessions to work on', () => {
  test.each(COMMANDS)('%s %s: no configuration is 78', async (...args) => {
    const { code, stdout, stderr } = await runCloakroom([...args, '--config', '/nonexistent.yaml']);
    expect({ code, stdout }).toEqual({ code: 78, stdout: '' });
    expect(stderr).toMatch(/^cloakroom: .*does not exist.*\n$/);
  });

  test.each(COMMANDS)('%s %s: sessions in memory are out of reach, 78', async (...args) => {
    const config = configFor({ memory: { singleProcess: true } });
    const { code, stdout, stderr } = await runCloakroom([...args, '--config', config], { env });
    expect({ code, stdout }).toEqual({ code: 78, stdout: '' });
    expect(stderr).toMatch(/^cloakroom: store is memory: sessions live inside the server process, .*\n$/);
  });

  test.each(COMMANDS)('%s %s: no Redis there is one line and 69', async (...args) => {
    const port = await freePort();
    const config = configFor({ redis: { url: `redis://user:hidden-password@127.0.0.1:${port}` } });
    const { code, stdout, stderr } = await runCloakroom([...args, '--config', config], { env });
    expect({ code, stdout }).toEqual({ code: 69, stdout: '' });
    expect(stderr).toBe(
      `cloakroom: Redis at redis://127.0.0.1:${port} cannot be used: connection refused; nothing was done\n`,
    );
  });

  test('a Redis that accepts and never answers: 69, and no hang', async () => {
    // What arrives is read and dropped: a socket that is not read never notices its end.
    const server = createServer((socket) => socket.resume());
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    closeLater(() => new Promise((resolve) => server.close(() => resolve())));
    const address = server.address();
    const port = typeof address === 'object' ? address?.port : undefined;
    const config = configFor({ redis: { url: `redis://127.0.0.1:${String(port)}` } });
    const { code, stderr, signal } = await runCloakroom(['sessions', 'list', '--config', config], { env });
    expect({ code, signal }).toEqual({ code: 69, signal: null });
    expect(stderr).toMatch(/^cloakroom: Redis at \S+ cannot be used: [^\n]+; nothing was done\n$/);
  });
});

describe('admin-token', () => {
  test('prints a token of 256 bits once, and the lines that know it by its hash', async () => {
    const runs = await Promise.all(
      [1, 2].map(() => runCloakroom(['admin-token', '--name', 'alice', '--role', 'end'])),
    );
    const tokens = runs.map(({ code, stdout, stderr }) => {
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      const token = /^ {2}([A-Za-z0-9_-]{43})$/m.exec(stdout)?.[1] ?? '';
      expect(stdout.split(token)).toHaveLength(2);
      const sha256 = createHash('sha256').update(token).digest('hex');
      expect(stdout).toContain(`- { name: "alice", role: end, sha256: "${sha256}" }`);
      return token;
    });
    expect(new Set(tokens).size).toBe(2);
  });

  test('the lines are a configuration by which the token is let in', async () => {
    const { stdout } = await runCloakroom(['admin-token', '--name', 'bob', '--role', 'read']);
    const [, name, role, sha256] = /\{ name: "(\w+)", role: (\w+), sha256: "(\w+)" \}/.exec(stdout) ?? [];
    const port = await freePort();
    await startCloakroom({
      redis: 'memory',
      config: { admin: { port, tokens: [{ name, role, sha256 }] } },
    });
    const token = /^ {2}(\S{43})$/m.exec(stdout)?.[1] ?? '';
    const ask = async (bearer: string) => {
      const headers = { authorization: `Bearer ${bearer}` };
      return (await fetch(`http://127.0.0.1:${port}/v1/sessions`, { headers })).status;
    };
    expect(await ask(token)).toBe(200);
    expect(await ask(`${token}x`)).toBe(401);
  });
});

// The terminal is played by script(1) of Linux.
(hasTerminals ? test : test.skip)('nothing is asked and nothing drawn where it is not needed', async () => {
  const { screen, code } = await atTerminal(['admin-token', '--name', 'alice', '--role', 'end']);
  expect(code).toBe(0);
  expect(screen).not.toContain('\u001b');
});
