import { spawn, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { parse, stringify } from 'yaml';
import { loadConfig } from '../src/config/load.js';
import { readRevocation, writeRevocation } from '../src/endings/revocation-record.js';
import { Logger } from '../src/observability/logger.js';
import { composeAdministration, type SessionAdministration } from '../src/services.js';
import { endingBy } from '../src/store/ending.js';
import { RevocationEnvelopes } from '../src/store/revocation-envelope.js';
import { Sealer } from '../src/store/sealer.js';
import { ServerSeal } from '../src/store/server-seal.js';
import { inParallel, type BrowserClient } from './support/browser-client.js';
import {
  merge,
  repository,
  startCloakroom,
  writeConfig,
  type Cloakroom,
  type ConfigFile,
} from './support/cloakroom.js';
import { faults, type FaultProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually, guard, sleep } from './support/lifetime.js';
import { loginsNeedRefresh } from './support/over-at-once.js';
import { StoredSession } from './support/stored-session.js';

const SECRETS = {
  REVOCATION_A: randomBytes(32).toString('hex'),
  REVOCATION_B: randomBytes(32).toString('hex'),
};
const A = { env: 'REVOCATION_A' };
const B = { env: 'REVOCATION_B' };
/** Longer than an ending that nobody finished is left alone. */
const PATIENCE = 40_000;

let c: Cloakroom;
let provider: FaultProvider;
let original: string[];
let administration: SessionAdministration | undefined;

beforeAll(async () => {
  // What a process had under way when it died is left alone for as long as a call may take: not for long here.
  const main = { timeout: '3s', metadataTimeout: '1s' };
  c = await startCloakroom({
    env: SECRETS,
    config: { secrets: { revocation: [A] }, providers: { main } },
  });
  provider = c.provider;
  original = c.replicas.map(({ configFile }) => readFileSync(configFile, 'utf8'));
});

beforeEach(async () => {
  provider.reset();
  provider.revokeEverything();
  provider.ledger.resetCounts();
  await c.redis?.clear();
});

afterEach(async () => {
  await administration?.providers.close();
  await administration?.store.close();
  administration = undefined;
  await provider.start();
  if (c.replicas.some(({ configFile }, i) => readFileSync(configFile, 'utf8') !== original[i])) {
    await reconfigure();
  }
});

afterAll(async () => {
  await expectLeftClean(c, 26 * 3600 * 1000);
});

/** Restarts every replica with changed settings, or with those of the beginning. */
async function reconfigure(changes: ConfigFile = {}): Promise<void> {
  c.replicas.forEach(({ configFile }, i) => {
    const file = parse(original[i] ?? '') as ConfigFile;
    const changed = Object.keys(changes).length === 0 ? original[i] : stringify(merge(file, changes));
    writeFileSync(configFile, changed ?? '');
  });
  await Promise.all(c.replicas.map((replica) => replica.restart()));
}

/** Ends sessions as an operator's command does: a process that has no cookie, and serves nobody. */
async function endAsOperator(
  filter: Parameters<SessionAdministration['endings']['end']>[0],
): Promise<number> {
  if (administration === undefined) {
    const loaded = loadConfig({ file: c.first.configFile, env: SECRETS, cwd: repository });
    if (!('config' in loaded)) throw new Error('the configuration has faults');
    administration = composeAdministration(loaded.config, new Logger('error', { write: () => undefined }));
    const { store } = administration;
    await eventually(
      () =>
        store.ping().then(
          () => true,
          () => false,
        ),
      { what: 'the store' },
    );
  }
  const how = { cause: 'operator', reason: 'test', actor: { kind: 'operator', name: 'test' } } as const;
  return (await administration.endings.end(filter, how)).ended;
}

const signIn = (count: number): Promise<BrowserClient[]> =>
  inParallel(
    Array.from({ length: count }, () => () => c.signedIn()),
    4,
  );
const waiting = async (kind: 'revocation' | 'queue'): Promise<string[]> =>
  (await c.redis?.keys(`${c.prefix}:{${kind === 'queue' ? 'revocations' : '*'}}:${kind}`)) ?? [];
const sessions = async (): Promise<string[]> => (await c.redis?.keys(`${c.prefix}:*:session`)) ?? [];
const alive = (): unknown[] => provider.ledger.liveRefreshTokens();
const revokedTokens = (): string[] =>
  provider.ledger.hitsOf('revocation').map(({ params }) => params.get('token') ?? '');

/** Nothing is left: no token alive, no envelope, no entry. */
async function expectAllRevoked(): Promise<void> {
  await eventually(() => alive().length === 0, { timeout: PATIENCE, what: 'every refresh token revoked' });
  await eventually(
    async () => (await waiting('revocation')).length === 0 && (await waiting('queue')).length === 0,
    {
      timeout: PATIENCE,
      what: 'the queue empty',
    },
  );
}

function expectEachOnce(count: number): void {
  const tokens = revokedTokens();
  expect(tokens.length).toBe(count);
  expect(new Set(tokens).size).toBe(count);
  for (const token of tokens) expect(provider.ledger.refreshTokens.get(token)?.revokedBy).toBe('endpoint');
}

describe('a provider that is down', () => {
  test('A-101 during the logout: done here at once, its revocation queued, and done when it is back', async () => {
    const client = await c.signedIn();
    const before = client.clone();
    await provider.stop();
    const { post } = await client.logout({ navigate: false });
    expect(post.status).toBe(200);
    expect(await sessions()).toEqual([]);
    for (const replica of c.replicas.keys()) expect((await before.me({ replica })).status).toBe(401);
    const [record = ''] = await waiting('revocation');
    const left = Number(await c.redis?.command('PTTL', record));
    expect(left).toBeGreaterThan(23 * 3600 * 1000);
    expect(left).toBeLessThanOrEqual(25 * 3600 * 1000);
    expect(alive().length).toBe(1);
    await provider.start();
    await expectAllRevoked();
    expectEachOnce(1);
    await c.logged('refresh_token_revoked', 1);
    expect(c.events('refresh_token_revoked').length).toBeGreaterThan(0);
  });

  test('A-101 503 means that the token lives: asked again, not before the provider said', async () => {
    const client = await c.signedIn();
    provider.next('revocation', { status: 503, headers: { 'retry-after': '4' }, body: '' });
    expect((await client.logout({ navigate: false })).post.status).toBe(200);
    expect(alive().length).toBe(1);
    await expectAllRevoked();
    const [first, second, ...more] = provider.ledger.hitsOf('revocation');
    expect(more).toEqual([]);
    expect((second?.at ?? 0) - (first?.endedAt ?? 0)).toBeGreaterThanOrEqual(3900);
    expect(second?.params.get('token')).toBe(first?.params.get('token'));
  });

  test.each([
    ['invalid_client', faults.invalidClient],
    ['a reset', faults.reset],
    ['403 of a firewall', { status: 403, body: '<html>no</html>' }],
    ['404', { status: 404, body: '' }],
  ] as const)('A-101 %s says nothing about the token: asked again', async (_, fault) => {
    const client = await c.signedIn();
    provider.next('revocation', fault);
    await client.logout({ navigate: false });
    await expectAllRevoked();
    expect(provider.ledger.count('revocation')).toBe(2);
  });

  test('A-101 a definite no is the end of it', async () => {
    const client = await c.signedIn();
    provider.next('revocation', { error: 'unsupported_token_type' });
    await client.logout({ navigate: false });
    expect(await waiting('revocation')).toEqual([]);
    expect(await waiting('queue')).toEqual([]);
    await sleep(3000);
    expect(provider.ledger.count('revocation')).toBe(1);
    expect((await c.waitForEvent('revocation_dropped'))['reason']).toBe('unsupported_token_type');
  });

  test('A-101 when the time is up it is given up, and said once', async () => {
    const client = await c.signedIn();
    const { handle } = new StoredSession(c, client);
    provider.always('revocation', faults.unavailable);
    await client.logout({ navigate: false });
    const key = `${c.prefix}:{${handle}}:revocation`;
    const record = readRevocation((await c.redis?.client.getBuffer(key)) ?? Buffer.alloc(0));
    expect(record.tries).toBe(1);
    const since = Date.now() - 24 * 3600 * 1000;
    await c.redis?.command('SET', key, writeRevocation({ ...record, since }), 'PX', 60_000);
    await c.waitForEvent('revocation_given_up', (line) => line['handle'] === handle, PATIENCE);
    await eventually(async () => (await waiting('queue')).length === 0, { what: 'the queue empty' });
    expect(await waiting('revocation')).toEqual([]);
    await sleep(2000);
    await c.logged('revocation_given_up', 1);
    expect(c.events('revocation_given_up').length).toBe(1);
  });

  test('A-101 revocations that fail keep nobody from refreshing', async () => {
    const clients = await signIn(8);
    provider.always('revocation', faults.unavailable);
    await inParallel(
      clients.map((client) => () => client.logout({ navigate: false })),
      8,
    );
    loginsNeedRefresh(provider, {});
    provider.always('revocation', faults.unavailable);
    const client = await c.signedIn();
    for (const replica of c.replicas.keys()) {
      expect((await client.api('/api/x', { replica })).status).toBe(200);
    }
  });
});

describe('an ending without a cookie', () => {
  test('B-34 revokes each refresh token once, whichever replica gets to it', async () => {
    await signIn(30);
    const before = c.events('refresh_token_revoked').length;
    expect(await endAsOperator({ all: true })).toBe(30);
    expect(await sessions()).toEqual([]);
    await expectAllRevoked();
    expectEachOnce(30);
    await c.logged('refresh_token_revoked', before + 30);
    const lines = c.events('refresh_token_revoked').slice(-30);
    expect(new Set(lines.map((line) => line['handle'])).size).toBe(30);
    expect(new Set(lines.map((line) => line['provider']))).toEqual(new Set(['main']));
  });

  test('the newest refresh token is revoked, not the one of the login', async () => {
    loginsNeedRefresh(provider, { revocation: 'token' });
    const client = await c.signedIn();
    expect((await client.api('/api/x')).status).toBe(200);
    await endAsOperator({ all: true });
    await expectAllRevoked();
    const [token = ''] = revokedTokens();
    expect(provider.ledger.refreshTokens.get(token)).toMatchObject({ successor: undefined, spentAt: [] });
  });

  test('B-34 kill -9 of a replica in the middle: none is lost', async () => {
    await signIn(60);
    provider.always('revocation', { delay: 300 });
    await endAsOperator({ all: true });
    await eventually(() => provider.ledger.count('revocation') >= 10, {
      timeout: PATIENCE,
      what: 'some revocations',
    });
    await c.first.crash();
    await expectAllRevoked();
    // Only what that replica had under way can have been asked twice.
    expect(new Set(revokedTokens()).size).toBe(60);
    expect(revokedTokens().length).toBeLessThanOrEqual(60 + 32);
    await c.first.start();
  });

  test('B-34 whoever meant to end a session and died before it did: the session ends, its token is revoked', async () => {
    const client = await c.signedIn();
    const { handle } = new StoredSession(c, client);
    // What is left of a process that was killed between its first write and its second.
    await c.redis?.command('ZADD', `${c.prefix}:{revocations}:queue`, String(Date.now() + 1000), handle);
    await c.redis?.command('PEXPIRE', `${c.prefix}:{revocations}:queue`, '60000');
    await eventually(async () => (await sessions()).length === 0, {
      timeout: PATIENCE,
      what: 'the session ended',
    });
    await expectAllRevoked();
    expectEachOnce(1);
    expect((await client.me()).status).toBe(401);
  });

  test('B-34 an ending that another process goes on with takes nothing away from what was ended before', async () => {
    const clients = await signIn(3);
    const handles = clients.map((client) => new StoredSession(c, client).handle);
    await endAsOperator({ handle: randomBytes(32).toString('base64url') });
    // What a process did that was killed before it tidied up, and then the same once more.
    const { revocations, records } = administration ?? {};
    await revocations?.intend(handles);
    const ended = await records?.store.endMany(handles, endingBy('operator', 60_000));
    expect(ended?.map((session) => session?.revocation)).toEqual([true, true, true]);
    await revocations?.intend(handles);
    const again = await records?.store.endMany(handles, endingBy('operator', 60_000));
    expect(again).toEqual([undefined, undefined, undefined]);
    await revocations?.forget(handles);
    const left = Number(await c.redis?.command('ZCARD', `${c.prefix}:{revocations}:queue`));
    expect(left).toBe(3);
    await expectAllRevoked();
    expectEachOnce(3);
  });

  test('an entry about nothing is dropped', async () => {
    const handles = Array.from({ length: 50 }, () => randomBytes(32).toString('base64url'));
    const members = handles.flatMap((handle) => ['1', handle]);
    await c.redis?.command('ZADD', `${c.prefix}:{revocations}:queue`, ...members);
    await c.redis?.command('PEXPIRE', `${c.prefix}:{revocations}:queue`, '60000');
    await eventually(async () => (await waiting('queue')).length === 0, { what: 'the queue empty' });
    expect(provider.ledger.count('revocation')).toBe(0);
  });

  test('B-34 a token that comes back after the end is revoked as well, even if not at the first try', async () => {
    loginsNeedRefresh(provider, { rotation: 'none' });
    const client = await c.signedIn();
    provider.next('refresh', {
      mutate: (answer) => answer,
      onCommit: async () => {
        await endAsOperator({ all: true });
        provider.always('revocation', faults.unavailable);
      },
    });
    expect((await client.api('/api/x')).status).toBe(401);
    await sleep(1500);
    provider.always('revocation', undefined);
    await expectAllRevoked();
  });

  test('with revokeOnLogout: false nothing is revoked, and nothing is left', async () => {
    await reconfigure({ providers: { main: { revokeOnLogout: false } } });
    await signIn(3);
    expect(await endAsOperator({ all: true })).toBe(3);
    await eventually(
      async () => (await waiting('revocation')).length === 0 && (await waiting('queue')).length === 0,
      { timeout: PATIENCE, what: 'the queue empty' },
    );
    expect(provider.ledger.count('revocation')).toBe(0);
    expect(alive().length).toBe(3);
  });

  test('without any key the logout revokes as far as it can, and a forced end leaves nothing behind', async () => {
    await reconfigure({ secrets: { revocation: undefined } });
    const [first, second] = await signIn(2);
    await first?.logout({ navigate: false });
    expectEachOnce(1);
    await endAsOperator({ all: true });
    expect(await waiting('revocation')).toEqual([]);
    expect(await waiting('queue')).toEqual([]);
    expect((await second?.me())?.status).toBe(401);
    expect(alive().length).toBe(1);
  });
});

describe('where the private key is', () => {
  const open = (secrets: string[]): RevocationEnvelopes =>
    new RevocationEnvelopes({
      secrets: secrets.map((secret) => Buffer.from(secret)),
      publicKey: undefined,
      prefix: c.prefix,
    });
  const handleOf = (key: string): string => /\{(.+)\}/.exec(key)?.[1] ?? '';

  /** The process that only revokes. */
  function startRevoker(
    secrets: unknown[],
    changes: ConfigFile = {},
  ): { process: ChildProcess; output: () => string } {
    const base = merge(parse(original[0] ?? '') as ConfigFile, { secrets: { revocation: secrets } });
    const file = merge(base, changes);
    const program = join(repository, 'bin', 'cloakroom.js');
    const child = spawn(process.execPath, [program, 'revoker', '--config', writeConfig(file)], {
      cwd: repository,
      env: { PATH: process.env['PATH'], ...SECRETS },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    guard(child);
    let text = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.on('data', (chunk: Buffer) => {
        text += chunk.toString('utf8');
      });
    }
    return { process: child, output: () => text };
  }

  async function stopRevoker({ process: child, output }: ReturnType<typeof startRevoker>): Promise<void> {
    child.kill('SIGTERM');
    await eventually(() => child.exitCode !== null, { timeout: 15_000, what: 'the revoker to leave' });
    expect([child.exitCode, output()]).toEqual([0, expect.stringContaining('"event":"stopped"')]);
    for (const token of provider.ledger.refreshTokens.keys()) expect(output()).not.toContain(token);
  }

  test('replicas with the public key alone put away, and a revoker beside them revokes', async () => {
    const { publicKey } = open([SECRETS.REVOCATION_A]);
    await reconfigure({ secrets: { revocation: undefined }, revocation: { publicKey } });
    const [withCookie] = await signIn(9);
    // With the cookie at hand nobody needs a key.
    await withCookie?.logout({ navigate: false });
    expectEachOnce(1);
    expect(await endAsOperator({ all: true })).toBe(8);
    await sleep(3000);
    expect(alive().length).toBe(8);
    expect((await waiting('revocation')).length).toBe(8);

    // One envelope in another's place: neither opens for the one whose place it is.
    const [one = '', other = ''] = await waiting('revocation');
    const envelope = (await c.redis?.client.getBuffer(one)) ?? Buffer.alloc(0);
    expect(open([SECRETS.REVOCATION_A]).open(handleOf(one), envelope)?.provider).toBe('main');
    expect(open([SECRETS.REVOCATION_A]).open(handleOf(other), envelope)).toBeUndefined();
    await c.redis?.command('SET', other, envelope, 'PX', 600_000);

    const revoker = startRevoker([A]);
    await eventually(() => alive().length === 1, { timeout: PATIENCE, what: 'the others revoked' });
    await eventually(() => revoker.output().includes('"reason":"sealed"'), { what: 'the moved one noticed' });
    expectEachOnce(8);
    await stopRevoker(revoker);
  });

  test('after a rotation of the secret both open; whoever lacks the old one leaves it to others', async () => {
    await signIn(4);
    await reconfigure({ secrets: { revocation: [B] } });
    await signIn(3);
    await endAsOperator({ all: true });
    await eventually(() => alive().length === 4, { timeout: PATIENCE, what: 'the new ones revoked' });
    await c.waitForEvent('revocation_failed', (line) => line['reason'] === 'sealed', PATIENCE);
    const revoker = startRevoker([B, A]);
    // Those without the key look at the same entries, and may be first a few times.
    await eventually(() => alive().length === 0, { timeout: 3 * PATIENCE, what: 'the old ones revoked' });
    expectEachOnce(7);
    await stopRevoker(revoker);
  }, 240_000);

  test('a dump of the store and the server’s keys open no refresh token; the revocation secret does', async () => {
    await signIn(3);
    await provider.stop();
    await endAsOperator({ handle: handleOf((await sessions())[0] ?? '') });
    const seal = readFileSync(join(c.folder, 'seal-0'));
    const cookie = readFileSync(join(c.folder, 'cookie-0'));
    const envelopes = open([seal.toString('utf8'), cookie.toString('utf8')]);
    const sealer = new ServerSeal(new Sealer([seal, cookie], c.prefix));
    const dump: { handle: string; value: Buffer }[] = [];
    for (const key of await sessions()) {
      const fields = (await c.redis?.client.hgetallBuffer(key)) ?? {};
      for (const value of Object.values(fields)) dump.push({ handle: handleOf(key), value });
    }
    for (const key of await waiting('revocation')) {
      const value = (await c.redis?.client.getBuffer(key)) ?? Buffer.alloc(0);
      dump.push({ handle: handleOf(key), value: readRevocation(value).envelope });
    }
    const tokens = [...provider.ledger.refreshTokens.keys()];
    for (const { handle, value } of dump) {
      for (const token of tokens) expect(value.includes(token.slice(0, 16))).toBe(false);
      expect(envelopes.open(handle, value)).toBeUndefined();
      const opened = JSON.stringify(sealer.open('about', handle, value) ?? {});
      for (const token of tokens) expect(opened).not.toContain(token);
    }
    const found = dump.flatMap(
      ({ handle, value }) => open([SECRETS.REVOCATION_A]).open(handle, value)?.refreshToken ?? [],
    );
    expect(found.filter((token) => tokens.includes(token)).length).toBe(3);
    await provider.start();
  });

  test.each([
    ['the private key', [], {}, 'secrets.revocation is missing'],
    ['a store to share', [A], { store: { redis: undefined, memory: { singleProcess: true } } }, 'memory'],
  ] as const)('a revoker without %s says so and leaves', async (_, secrets, changes, text) => {
    const revoker = startRevoker([...secrets], changes);
    await eventually(() => revoker.process.exitCode !== null, {
      timeout: 15_000,
      what: 'the revoker to leave',
    });
    expect([revoker.process.exitCode, revoker.output()]).toEqual([78, expect.stringContaining(text)]);
  });
});
