import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { startProvider, type Behaviour, type FaultProvider } from './support/fault-provider.js';
import { expectLeftClean } from './support/left-clean.js';
import { eventually } from './support/lifetime.js';
import { sendRaw } from './support/raw.js';
import { scriptRequest } from './support/script-request.js';
import { startRawUpstream, type RawUpstream } from './support/upstream.js';

let c: Cloakroom;
let provider: FaultProvider;
let a: RawUpstream;
let b: RawUpstream;

beforeAll(async () => {
  provider = await startProvider({ modes: { accessTokens: 'jwt', accessTokenLifetime: 3 } });
  a = await startRawUpstream();
  b = await startRawUpstream();
  c = await startCloakroom({
    provider,
    upstream: a,
    replicas: 2,
    config: {
      log: { level: 'debug' },
      routes: [
        { path: '/api/a/', upstream: a.url },
        { path: '/api/b/', upstream: b.url, headers: { requestAllow: ['x-api-version'] } },
      ],
    },
  });
});

afterAll(async () => {
  await expectLeftClean(c);
});

describe('A-064 A-065 no token, verifier or client secret', () => {
  test('A-064 A-065 in anything a browser or the log saw of a whole life: login, calls, refreshes, errors, logout', async () => {
    a.handler = () => 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
    const client = await c.signedIn();
    for (const path of [
      '/api/a/x',
      '/api/b/x',
      '/auth/me',
      '/nowhere',
      '/api/a/%2e%2e/x',
      '/auth/login?prompt=x',
    ])
      await client.api(path);
    const first = provider.ledger.count('refresh');
    await eventually(
      async () => {
        expect((await client.api('/api/a/x')).status).toBe(200);
        return provider.ledger.count('refresh') >= first + 2;
      },
      { timeout: 15_000, interval: 200, what: 'two refreshes' },
    );
    // Refusals and faults that repeat the provider's secrets.
    const talk = `${provider.clientSecret} ${[...provider.ledger.refreshTokens.keys()].join(' ')}`;
    const refused = await c.signedIn();
    provider.next('token', { status: 400, error: 'invalid_grant', errorDescription: talk });
    expect((await refused.login()).status).toBe(400);
    const during = async (fault: Behaviour, done: (status: number) => boolean): Promise<void> => {
      const session = await c.signedIn();
      provider.always('refresh', fault);
      await eventually(async () => done((await session.api('/api/a/x')).status), {
        timeout: 15_000,
        interval: 200,
      });
      provider.always('refresh', undefined);
    };
    await during({ status: 400, error: 'invalid_grant', errorDescription: talk }, (status) => status === 401);
    await during({ status: 500, body: `<p>${talk}` }, (status) => status === 503);
    const steps = await client.logout();
    expect(steps.post.status).toBe(200);

    const { findings, secrets } = await c.search();
    expect(secrets).toBeGreaterThan(20);
    expect(findings).toEqual([]);
  });

  test('A-064 the search sees what it should: the same words are found where they belong', async () => {
    // Were the search blind, the test above would pass on anything.
    await c.signedIn().then((client) => client.api('/api/a/seen'));
    const token = a.requests.at(-1)?.header('authorization')?.slice('Bearer '.length) ?? '';
    expect(provider.ledger.validAccessToken(token)).toBeDefined();
    expect(JSON.stringify(provider.ledger.secrets())).toContain(token);
    const log = c.replicas.map((replica) => readFileSync(replica.logFile, 'utf8')).join('');
    expect(log).toContain('session_started');
    expect(log).not.toContain(token);
  });
});

/** Ports a process listens on, as the kernel tells them. */
function listeningPorts(pid: number): number[] {
  const inodes = new Set<string>();
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    try {
      const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1];
      if (inode !== undefined) inodes.add(inode);
    } catch {
      continue;
    }
  }
  const ports = new Set<number>();
  for (const table of ['tcp', 'tcp6']) {
    const [, ...lines] = readFileSync(`/proc/${pid}/net/${table}`, 'utf8').trim().split('\n');
    for (const line of lines) {
      const fields = line.trim().split(/\s+/);
      const port = parseInt(fields[1]?.split(':')[1] ?? '', 16);
      if (fields[3] === '0A' && inodes.has(fields[9] ?? '')) ports.add(port);
    }
  }
  return [...ports];
}

describe('A-065 the process gives nothing away', () => {
  // It reads /proc.
  const onLinux = process.platform === 'linux' ? test : test.skip;
  onLinux('A-065 it listens on its one port and nothing else: no inspector, no metrics', () => {
    for (const replica of c.replicas) expect(listeningPorts(replica.pid ?? 0)).toEqual([replica.port]);
  });

  test('A-065 no heap, core, debug or report endpoint answers', async () => {
    for (const path of [
      '/json',
      '/json/list',
      '/debug',
      '/heapdump',
      '/metrics',
      '/core',
      '/.env',
      '/report',
    ]) {
      const answer = await c.client().fetch(path);
      expect([path, answer.status]).toEqual([path, 404]);
    }
  });
});

describe('A-067 the token goes only to its own upstream', () => {
  test.each([301, 302, 303, 307, 308])(
    'A-067 a redirect with %d is handed to the browser and never followed',
    async (status) => {
      const client = await c.signedIn();
      b.clear();
      const to = `${b.url}/api/b/stolen`;
      a.handler = () => `HTTP/1.1 ${status} Go\r\nLocation: ${to}\r\nContent-Length: 0\r\n\r\n`;
      for (const method of ['GET', 'POST']) {
        const answer = await client.api('/api/a/x', { method, ...(method === 'POST' ? { body: 'x' } : {}) });
        expect(answer.status).toBe(status);
        expect(answer.location).toBe(to);
      }
      expect(b.connections).toHaveLength(0);
    },
  );

  test('A-067 each route has its upstream, and a token of the session, whatever the request says of its host', async () => {
    a.handler = b.handler = () => 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n';
    const client = await c.signedIn();
    a.clear();
    b.clear();
    const port = new URL(b.url).port;
    const bent = scriptRequest(client, {
      target: '/api/a/x',
      without: ['host'],
      headers: [
        `Host: 127.0.0.1:${port}`,
        `X-Forwarded-Host: 127.0.0.1:${port}`,
        `X-Forwarded-Port: ${port}`,
      ],
    });
    const { responses } = await sendRaw(c.first.clientPort, bent, { answers: 1 });
    expect(responses[0]?.status).toBe(200);
    expect(a.requests).toHaveLength(1);
    expect(b.connections).toHaveLength(0);
    expect(a.requests[0]?.header('host')).toBe(new URL(a.url).host);
    const token = a.requests[0]?.header('authorization')?.slice('Bearer '.length) ?? '';
    expect(provider.ledger.validAccessToken(token)?.sub).toBeDefined();
  });

  test("A-067 a caller's own credentials never pass, in any spelling or number", async () => {
    b.handler = () => 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n';
    const client = await c.signedIn();
    const names = [
      ...['Authorization', 'AUTHORIZATION', 'authorization', 'Proxy-Authorization', 'DPoP', 'DPOP'],
      ...['X-Authorization', 'Authorization_', 'Proxy_Authorization', 'X-Access-Token', 'X-Auth-Token'],
      ...['X-Forwarded-Access-Token', 'X-Amzn-Oidc-Data', 'X-Amz-Security-Token', 'X-Api-Key', 'Cookie2'],
    ];
    b.clear();
    const evil = names.map((name) => `${name}: Bearer callers-own-word`);
    const { responses } = await sendRaw(
      c.first.clientPort,
      scriptRequest(client, { target: '/api/b/x', first: evil, headers: [...evil, 'X-Api-Version: 7'] }),
      { answers: 1 },
    );
    expect(responses[0]?.status).toBe(200);
    const [seen] = b.requests;
    expect(seen?.bytes.toString('latin1')).not.toContain('callers-own-word');
    expect(seen?.headers.filter(([name]) => /authorization|dpop/i.test(name))).toHaveLength(1);
    expect(seen?.header('x-api-version')).toBe('7');
  });

  test('A-067 neither a cut connection nor a second try sends the token anywhere else', async () => {
    const client = await c.signedIn();
    a.clear();
    b.clear();
    a.handler = () => ({ bytes: '', close: 'reset' });
    const answer = await client.api('/api/a/x');
    expect(answer.status).toBe(502);
    expect(answer.problem).toBe('upstream-unreachable');
    expect(answer.text).not.toMatch(/127\.0\.0\.1|ECONN|socket/i);
    expect(b.connections).toHaveLength(0);
    a.handler = () => 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok';
  });
});
