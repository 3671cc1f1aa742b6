import { createServer, type Server } from 'node:http';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { sendRaw } from './raw.js';
import { abridged, searchRun } from './secret-search.js';
import { tapFor } from './tap.js';

// These write into a folder of their own: what is leaked here on purpose must not fail the run.

const access = `at-${randomBytes(32).toString('base64url')}`;
const secret = 'odd secret: +/%& ü 0123456789';
const jwt = [{ alg: 'RS256' }, { sub: 'alice', jti: randomBytes(16).toString('hex') }]
  .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
  .concat(randomBytes(256).toString('base64url'))
  .join('.');

function search(recording: string | Buffer, log = '', token = access): Array<{ kind: string; form: string }> {
  const run = mkdtempSync(join(tmpdir(), 'cloakroom-search-'));
  for (const folder of ['taps', 'logs', 'secrets', 'endpoints']) mkdirSync(join(run, folder));
  const secrets = [
    ['access_token', token],
    ['client_secret', secret],
    ['id_token', jwt],
    ['code', 'a-code-that-is-long-enough'],
  ];
  writeFileSync(join(run, 'secrets', 'a.ndjson'), secrets.map((line) => JSON.stringify(line)).join('\n'));
  writeFileSync(join(run, 'endpoints', 'a.txt'), 'http://127.0.0.1:1/logout\n');
  writeFileSync(join(run, 'taps', 'a.tap'), recording);
  writeFileSync(join(run, 'logs', 'a.log'), log);
  return searchRun(run).findings.map(({ kind, form }) => ({ kind, form }));
}

describe('the search', () => {
  test('finds nothing in noise', () => {
    expect(search(randomBytes(3 * 1024 * 1024), 'nothing here')).toEqual([]);
  });

  test.each([
    ['plain', access, 'plain'],
    ['in a header', `X-Debug: Bearer ${access}\r\n`, 'plain'],
    ['Base64', Buffer.from(access).toString('base64'), 'plain, base64'],
    ['Base64 after one byte', Buffer.from(`x${access}`).toString('base64'), 'plain, base64'],
    ['Base64 inside JSON', Buffer.from(`{"t":"${access}"}`).toString('base64'), 'plain, base64'],
  ])('finds an access token %s', (_name, text, form) => {
    const found = search(`${'noise '.repeat(2_000_000)}${text}${' noise'.repeat(100)}`);
    expect(found[0]).toMatchObject({ kind: 'access_token', form });
  });

  test.each([
    ['plain', secret],
    ['percent-encoded', `a=${encodeURIComponent(secret)}`],
    ['form-encoded', new URLSearchParams({ secret }).toString()],
    ['Basic credentials', Buffer.from(`id:${secret}`).toString('base64')],
    ['base64url', Buffer.from(`??>${secret}`).toString('base64url')],
  ])('finds a client secret: %s', (_name, text) => {
    expect(search(text)).toContainEqual(expect.objectContaining({ kind: 'client_secret' }));
  });

  test('finds an ID token, or its payload or signature alone', () => {
    expect(search(jwt).map(({ kind }) => kind)).toEqual(['id_token', 'id_token']);
    expect(search(`p=${jwt.split('.')[1] ?? ''};`)).toHaveLength(1);
    expect(search(jwt.split('.')[2] ?? '')).toHaveLength(1);
  });

  test.each([
    ['a long token', randomBytes(3000).toString('hex')],
    [
      'a signed token',
      `${'h'.repeat(900)}.${randomBytes(900).toString('base64url')}.${randomBytes(300).toString('base64url')}`,
    ],
    ['one of five parts', `${randomBytes(900).toString('base64url')}.a.b.c.d`],
    ['letters of four bytes', '😀'.repeat(600) + randomBytes(20).toString('hex')],
    ['one that is cut inside a letter', `${'😀'.repeat(600)}${randomBytes(20).toString('hex')}x`],
  ])('knows %s by its end, in all its forms', (_name, value) => {
    const found = (text: string): string[] => search(text, '', abridged(value)).map(({ form }) => form);
    for (const text of [
      value,
      `:${encodeURIComponent(value)}`,
      ...[0, 1, 2].map((shift) =>
        Buffer.from(
          `${'x'.repeat(shift)}${value.split('.').length === 3 ? (value.split('.')[1] ?? '') : value}`,
        ).toString('base64'),
      ),
    ]) {
      expect(found(text)).toEqual(search(text, '', value).map(({ form }) => form));
      expect(found(text)).not.toEqual([]);
    }
  });

  test('lets the logout hint through in its one place, and nowhere else', () => {
    const line = (target: string): string => `Location: ${target}?id_token_hint=${jwt}&state=x`;
    const head = (status: string, header: string): string => `\nHTTP/1.1 ${status}\r\n${header}\r\n\r\n`;
    const provider = 'http://127.0.0.1:1/logout';
    expect(search(head('303 See Other', line(provider)))).toEqual([]);
    const kept = `HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 303 See Other\r\nDate: x\r\n${line(provider)}\r\n\r\n`;
    expect(search(kept)).toEqual([]);
    expect(search(head('302 Found', line(provider)))).not.toEqual([]);
    expect(search(head('303 See Other', line('http://127.0.0.1:1/logout-other')))).not.toEqual([]);
    expect(search(head('303 See Other', line(provider).replace('Location', 'X-Next')))).not.toEqual([]);
    expect(search(head('303 See Other', `Location: ${provider}?other=${jwt}`))).not.toEqual([]);
    expect(search(`${head('303 See Other', 'A: b')}${line(provider)}`)).not.toEqual([]);
    expect(search(head('303 See Other', line(provider)), jwt)).not.toEqual([]);
  });

  test('codes count in logs only', () => {
    expect(search('a-code-that-is-long-enough')).toEqual([]);
    expect(search('', 'a-code-that-is-long-enough')).toHaveLength(1);
  });
});

describe('the tap', () => {
  let server: Server;
  beforeAll(async () => {
    server = createServer((request, response) => {
      if (request.url === '/reset') {
        response.writeHead(200, { 'content-length': 10 });
        response.write('half');
        setTimeout(() => request.socket.resetAndDestroy(), 30);
      } else response.end('hello from behind');
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  });
  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });

  test('passes and records both directions, a clean end as an end and a reset as a reset', async () => {
    const tap = await tapFor((server.address() as AddressInfo).port);
    const clean = await sendRaw(
      tap.port,
      'GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Mark: 1\r\n\r\n',
    );
    expect(clean).toMatchObject({ end: 'closed' });
    expect(clean.responses[0]?.body.toString()).toBe('hello from behind');
    const broken = await sendRaw(tap.port, 'GET /reset HTTP/1.1\r\nHost: a\r\n\r\n');
    expect(broken).toMatchObject({ end: 'reset' });
    await tap.close();
    const { readFileSync } = await import('node:fs');
    const recorded = readFileSync(tap.file, 'latin1');
    expect(recorded).toContain('X-Mark: 1');
    expect(recorded).toContain('hello from behind');
  });
});
