import { createHash, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { AdminClient, adminConfig, adminPort, adminToken } from './support/admin-client.js';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { sendRaw, type RawResponse } from './support/raw.js';
import { freePort } from './support/run-folder.js';
import { sessionPair } from './support/script-request.js';
import { StoredSession } from './support/stored-session.js';

const DAY = 24 * 3_600_000;
const [reader, ender] = [adminToken('reader', 'read'), adminToken('ender', 'end')];
const bearer = `Authorization: Bearer ${ender.token}`;
let c: Cloakroom;
let port: number;
let looking: AdminClient;
let client: BrowserClient;
let handle: string;

beforeAll(async () => {
  port = await freePort();
  c = await startCloakroom({
    replicas: 1,
    config: { admin: adminConfig([reader, ender], { port }) },
  });
  expect(adminPort(c.first)).toBe(port);
  looking = new AdminClient(c, reader);
  client = await c.signedIn();
  handle = new StoredSession(c, client).handle;
});

afterAll(async () => {
  await expectLeftClean(c, 32 * DAY);
});

const alive = async (): Promise<boolean> => await new StoredSession(c, client).exists();

async function raw(to: number, lines: string[], body = ''): Promise<RawResponse | undefined> {
  const { responses } = await sendRaw(to, `${lines.join('\r\n')}\r\n\r\n${body}`, {
    answers: 1,
    timeout: 5000,
  });
  return responses[0];
}

let mistakes = 0;

/** A request of nobody. Those of one address are limited; a fresh process has forgotten the ones before. */
async function refused(lines: string[]): Promise<RawResponse | undefined> {
  mistakes += 1;
  if (mistakes % 9 === 0) await c.first.restart({ crash: true });
  return await raw(port, lines);
}

const problem = (answer: RawResponse | undefined): unknown =>
  (JSON.parse(answer?.body.toString() ?? '{}') as { type?: unknown }).type;

describe('A-109 who is let in', () => {
  const own = (): string => `Host: 127.0.0.1:${String(port)}`;

  test.each<[string, () => string[]]>([
    ['no token', () => []],
    ['a wrong token', () => [`Authorization: Bearer ${randomBytes(32).toString('base64url')}`]],
    ['the hash instead of the token', () => [`Authorization: Bearer ${sha256(ender.token)}`]],
    ['a token cut short', () => [`Authorization: Bearer ${ender.token.slice(0, -1)}`]],
    ['an empty token', () => ['Authorization: Bearer ']],
    ['another scheme', () => [`Authorization: Basic ${btoa(`ender:${ender.token}`)}`]],
    ['two tokens in one line', () => [`Authorization: Bearer ${ender.token}, Bearer ${ender.token}`]],
    ['a name', () => ['Authorization: Bearer ender']],
  ])('A-109 %s: 401, and a challenge', async (_what, lines) => {
    const answer = await refused(['GET /v1/sessions HTTP/1.1', own(), ...lines()]);
    expect([answer?.status, problem(answer)]).toEqual([401, 'unauthorized']);
    expect(answer?.header('www-authenticate')).toBe('Bearer realm="admin"');
    expect(answer?.header('cache-control')).toBe('no-store');
  });

  test('A-109 neither the session cookie, nor a token in the query, nor one in a cookie opens anything', async () => {
    const tries = [
      ['GET /v1/sessions HTTP/1.1', own(), `Cookie: ${sessionPair(client)}`],
      [`GET /v1/sessions?access_token=${ender.token} HTTP/1.1`, own()],
      [
        'GET /v1/sessions HTTP/1.1',
        own(),
        `Cookie: token=${ender.token}; Authorization=Bearer ${ender.token}`,
      ],
      [
        'GET /v1/sessions HTTP/1.1',
        own(),
        'X-Forwarded-For: 127.0.0.1',
        `X-Authorization: Bearer ${ender.token}`,
      ],
    ];
    for (const lines of tries) expect((await refused(lines))?.status).toBe(401);
  });

  test('A-109 a good token, whatever cookie comes with it; and none is ever set', async () => {
    const answer = await raw(port, ['GET /v1/sessions HTTP/1.1', own(), bearer, 'Cookie: a=b']);
    expect(answer?.status).toBe(200);
    expect(answer?.header('set-cookie')).toBeUndefined();
    expect(answer?.header('access-control-allow-origin')).toBeUndefined();
    expect(answer?.header('cache-control')).toBe('no-store');
    expect(answer?.header('x-content-type-options')).toBe('nosniff');
  });

  test('A-109 only /livez is open, and tells a word', async () => {
    const answer = await raw(port, ['GET /livez HTTP/1.1', own()]);
    expect([answer?.status, answer?.body.toString()]).toEqual([200, '{"status":"ok"}']);
    for (const path of [
      '/',
      '/metrics',
      '/v1/openapi.json',
      '/v1/sessions',
      '/nothing',
      '/livez/',
      '/LIVEZ',
    ]) {
      expect([path, (await refused([`GET ${path} HTTP/1.1`, own()]))?.status]).toEqual([path, 401]);
    }
  });

  test.each([
    ['a page of any origin', 'Origin: https://app.example.test'],
    ['a sandboxed page', 'Origin: null'],
    ['a page on the listener itself', 'Origin: http://127.0.0.1'],
    ['a cross-site request', 'Sec-Fetch-Site: cross-site'],
    ['a same-site request', 'Sec-Fetch-Site: same-site'],
    ['a same-origin request', 'Sec-Fetch-Site: same-origin'],
  ])('A-109 %s is refused, even with the token', async (_what, line) => {
    for (const head of ['GET /v1/sessions HTTP/1.1', `DELETE /v1/sessions/${handle} HTTP/1.1`]) {
      const answer = await raw(port, [head, own(), bearer, line]);
      expect([answer?.status, problem(answer)]).toEqual([403, 'forbidden']);
    }
    expect(await alive()).toBe(true);
  });

  test('A-109 a preflight gets no permission', async () => {
    const lines = ['Origin: https://evil.example', 'Access-Control-Request-Method: DELETE'];
    const answer = await raw(port, ['OPTIONS /v1/sessions HTTP/1.1', own(), ...lines]);
    expect(answer?.status).toBe(403);
    expect(answer?.headers.filter(([name]) => /^access-control-/i.test(name))).toEqual([]);
  });

  test('A-109 a form of a page is not read: no browser can post JSON without asking first', async () => {
    const body = JSON.stringify({ filter: { handle }, reason: 'from a form' });
    for (const type of [
      'text/plain',
      'application/x-www-form-urlencoded',
      'multipart/form-data',
      'application/json5',
    ]) {
      const lines = [`Content-Type: ${type}`, `Content-Length: ${body.length}`];
      const answer = await raw(port, ['POST /v1/endings HTTP/1.1', own(), bearer, ...lines], body);
      expect([type, answer?.status]).toEqual([type, 400]);
    }
    expect(await alive()).toBe(true);
  });

  test.each([
    'evil.example',
    'evil.example:3010',
    '127.0.0.1.evil.example',
    '127.0.0.2',
    '0.0.0.0',
    'localhost.evil',
  ])('A-109 a name pointed at this machine, %s, is refused', async (name) => {
    const answer = await raw(port, ['GET /v1/sessions HTTP/1.1', `Host: ${name}`, bearer]);
    expect([answer?.status, problem(answer)]).toEqual([403, 'forbidden']);
  });

  test.each(['localhost', 'LOCALHOST:1', '127.0.0.1', '[::1]:3010'])(
    'A-109 %s is this machine',
    async (name) => {
      expect((await raw(port, ['GET /v1/sessions HTTP/1.1', `Host: ${name}`, bearer]))?.status).toBe(200);
    },
  );

  test('A-109 what two servers could read differently is refused here as well', async () => {
    const heads = [
      'GET /v1/../v1/sessions HTTP/1.1',
      'GET //v1/sessions HTTP/1.1',
      'GET /v1/%2e%2e/sessions HTTP/1.1',
      `GET http://127.0.0.1:${String(port)}/v1/sessions HTTP/1.1`,
      'CONNECT 127.0.0.1:80 HTTP/1.1',
    ];
    for (const head of heads)
      expect([head, (await raw(port, [head, own(), bearer]))?.status]).toEqual([head, 400]);
    const twice = await raw(port, ['GET /v1/sessions HTTP/1.1', own(), own(), bearer]);
    expect(twice?.status).toBe(400);
    const large = await raw(
      port,
      ['POST /v1/endings HTTP/1.1', own(), bearer, 'Content-Type: application/json', 'Content-Length: 20000'],
      ' '.repeat(20_000),
    );
    expect(large?.status).toBe(413);
  });

  test('A-109 nothing of the public server is here', async () => {
    for (const path of ['/auth/me', '/auth/login', '/auth/logout', '/api/x', '/readyz', '/']) {
      expect([path, (await looking.get(path)).status]).toEqual([path, 404]);
    }
  });

  test('A-109 every refusal and every look is in the audit log, without tokens', async () => {
    await looking.get('/v1/sessions?user=somebody%40example.test');
    const line = await c.waitForEvent(
      'sessions_listed',
      ({ by }) => Array.isArray(by) && by.includes('user'),
    );
    expect(line).toMatchObject({ log: 'audit', actor: 'operator', name: 'reader', from: '127.0.0.1' });
    expect(JSON.stringify(line)).not.toContain('somebody');
    await c.waitForEvent('admin_refused', ({ problem: code }) => code === 'unauthorized');
    for (const { token } of [reader, ender])
      expect(readFileSync(c.first.logFile, 'utf8')).not.toContain(token);
  });
});

describe('the description of the admin listener', () => {
  test('OpenAPI names every endpoint of the controllers, who may use it, and what comes back', async () => {
    const { status, body } = await looking.get<OpenApiDocument>('/v1/openapi.json');
    expect(status).toBe(200);
    expect(body.openapi).toMatch(/^3\.1\./);
    const described = Object.entries(body.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
    );
    expect(described.toSorted()).toEqual(
      [
        'GET /v1/sessions',
        'GET /v1/sessions/{handle}',
        'DELETE /v1/sessions/{handle}',
        'POST /v1/endings',
        'GET /v1/endings/{id}',
        'POST /v1/epoch',
        'GET /v1/openapi.json',
        'GET /metrics',
        'GET /livez',
      ].toSorted(),
    );
    expect(body.security).toEqual([{ token: [] }, { certificate: [] }]);
    const list = body.paths['/v1/sessions']?.['get'];
    expect(list?.parameters?.map(({ name }) => name)).toEqual(
      expect.arrayContaining([
        'user',
        'issuer',
        'sid',
        'handle',
        'createdBefore',
        'idleFor',
        'address',
        'cursor',
      ]),
    );
    for (const [path, methods] of Object.entries(body.paths)) {
      for (const operation of Object.values(methods)) {
        expect([path, operation.summary]).toEqual([path, expect.any(String)]);
        expect(Object.keys(operation.responses).length).toBeGreaterThan(0);
      }
    }
  });
});

interface OpenApiDocument {
  openapi: string;
  security: unknown;
  paths: Record<
    string,
    Record<string, { summary?: string; parameters?: { name: string }[]; responses: Record<string, unknown> }>
  >;
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
