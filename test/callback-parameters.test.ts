import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';
import { random } from './support/random.js';
import { sendRaw } from './support/raw.js';

let c: Cloakroom;

beforeAll(async () => {
  c = await startCloakroom({ replicas: 2 });
});

beforeEach(async () => {
  c.provider.reset();
  c.provider.ledger.resetCounts();
  await c.redis?.clear();
});

afterAll(async () => {
  expect(c.events('request_failed').filter((line) => line['problem'] === 'internal')).toEqual([]);
  await expectLeftClean(c);
});

const keys = (): Promise<string[]> => c.redis?.keys() ?? Promise.resolve([]);
const exchanges = (): number => c.provider.ledger.count('token');

/** Queries that no honest provider sends, made from a genuine answer that must survive them all. */
function oddQueries(code: string, state: string, iss: string): string[] {
  const genuine = `code=${code}&state=${state}&iss=${encodeURIComponent(iss)}`;
  const queries: string[] = [];
  for (const name of ['code', 'state', 'iss', 'error', 'error_description', 'error_uri']) {
    const own = { code, state, iss: encodeURIComponent(iss) }[name] ?? 'x';
    for (const other of [own, '', 'x', '%00', 'A'.repeat(43)]) {
      queries.push(
        `${name}=${other}&${name}=${own}&${genuine}`,
        `${genuine}&${name}=${own}&${name}=${other}`,
      );
    }
  }
  for (const name of [
    'state[]',
    'state[0]',
    'state[a]',
    'state%5B%5D',
    'state.x',
    'State',
    'STATE',
    '+state',
    'state+',
    '%00state',
    'state%00',
    '__proto__[state]',
    '__proto__.state',
    'constructor[prototype][state]',
    'state[__proto__]',
    'state[constructor]',
    'state[toString]',
    'ſtate',
  ]) {
    const encoded = name === 'ſtate' ? encodeURIComponent(name) : name;
    queries.push(`code=${code}&${encoded}=${state}`, `${encoded}=${state}&code=${code}`);
  }
  for (const value of [
    '',
    '%00',
    `%00${state}`,
    `${state}%00`,
    `${state}%0d%0a`,
    `${state}%0d%0aSet-Cookie:%20a=b`,
    `%20${state}`,
    `${state}%20`,
    `+${state}`,
    `"${state}"`,
    `'${state}'`,
    `%7b"$ne":""%7d`,
    `%5b"${state}"%5d`,
    `${state},${state}`,
    `${state};`,
    '%',
    '%z',
    `%zz${state}`,
    '%c0%80',
    '%ff',
    '%ed%a0%80',
    '%f0%9f%98%80',
    '%u0041',
    '..%2f..%2f',
    '*',
    '%3Cscript%3E',
    "'%20OR%201=1--",
    '$%7bjndi:ldap://x%7d',
    'null',
    'undefined',
    'true',
    '0',
    'NaN',
    `${state}${state}`,
    state.slice(0, 42),
    `${state}A`,
    state.split('').reverse().join(''),
    'A'.repeat(43),
    '-'.repeat(43),
    '_'.repeat(43),
    '='.repeat(43),
  ]) {
    queries.push(`code=${code}&state=${value}`, `state=${value}&code=${code}`);
  }
  for (const name of [
    '__proto__',
    'constructor',
    'prototype',
    'hasOwnProperty',
    'toString',
    'valueOf',
    'then',
  ]) {
    queries.push(`${name}=1`, `${name}[x]=1&code=${code}`, `${name}=${state}&code=${code}`);
  }
  queries.push(
    '',
    '&',
    '=',
    '==',
    '?',
    '&&&&',
    '&'.repeat(4000),
    'a&'.repeat(3000),
    'a=1&'.repeat(1500),
    `code=${code}`,
    `iss=${encodeURIComponent(iss)}`,
    `code=${code}#&state=${state}`,
    `code=${code};state=${state}`,
    `code=${code}&amp;state=${state}`,
    `code%3D${code}%26state%3D${state}`,
    `code=${code}&state\0=${state}`,
    `code=${code}&state=\0`,
    `code=${code}&state=${state}\t`,
    `code=${code}&state=é${state}`,
    `code=${code}&state=\xff`,
    `x=${'y'.repeat(64 * 1024)}&${genuine}`,
    `${genuine}&x=${'y'.repeat(64 * 1024)}`,
    `${genuine}&x=${'y'.repeat(9000)}`,
    `state=${'A'.repeat(64 * 1024)}`,
  );
  return queries;
}

test('A-018 doubled, nested, broken and huge parameters are refused, and nothing is used up by them', async () => {
  const client = c.client();
  const attempt = await client.beginLogin({ returnTo: '/in' });
  const sent = await attempt.authorize();
  const query = sent?.callback.searchParams ?? new URLSearchParams();
  const queries = [
    ...new Set(oddQueries(query.get('code') ?? '', query.get('state') ?? '', query.get('iss') ?? '')),
  ];
  expect(queries.length).toBeGreaterThanOrEqual(200);
  const cookie = client.cookieHeader('/auth/callback', 'cross-site', 'GET', true);
  const before = await keys();
  const pids = c.replicas.map((replica) => replica.pid);
  for (const odd of random('A-018').shuffle(queries)) {
    const { responses, end } = await sendRaw(
      c.next().clientPort,
      `GET /auth/callback?${odd} HTTP/1.1\r\nHost: app.example.test\r\nX-Forwarded-Proto: https\r\n` +
        `Sec-Fetch-Dest: document\r\nCookie: ${cookie}\r\nConnection: close\r\n\r\n`,
      { answers: 1, timeout: 10_000 },
    );
    const statuses = responses.map(({ status }) => status);
    if (statuses.length !== 1 || ![400, 414, 431].includes(statuses[0] ?? 0)) {
      throw new Error(
        `${JSON.stringify(odd.slice(0, 200))} was answered ${JSON.stringify(statuses)} (${end})`,
      );
    }
    expect(responses[0]?.header('set-cookie')).toBeUndefined();
    expect(responses[0]?.header('location')).toBeUndefined();
  }
  expect(exchanges()).toBe(0);
  expect(await keys()).toEqual(before);
  expect(c.replicas.map((replica) => replica.pid)).toEqual(pids);
  expect(c.replicas.every((replica) => replica.running)).toBe(true);
  const answer = await attempt.finish();
  expect([answer.status, answer.location]).toEqual([303, '/in']);
});

test.each(['code[]', 'code[0]', 'Code', '__proto__[code]', '%00code', 'response', 'code_x'])(
  'A-018 a genuine state with %s instead of code: refused without a token request',
  async (name) => {
    const client = c.client();
    const answer = await client.login({
      callback: (url) => {
        const code = url.searchParams.get('code') ?? '';
        url.searchParams.delete('code');
        url.searchParams.append(name, code);
        return url;
      },
    });
    expect(answer.status).toBe(400);
    expect(client.sessionCookie).toBeUndefined();
    expect(exchanges()).toBe(0);
  },
);

test.each(['session_state', 'scope', 'foo', '__proto__', 'constructor[prototype][x]', 'state_', 'code_'])(
  'A-018 the unknown parameter %s beside a genuine answer is ignored (RFC 6749 section 4.1.2)',
  async (name) => {
    const client = c.client();
    const answer = await client.login({
      callback: (url) => {
        url.searchParams.append(name, 'x');
        url.searchParams.append(name, 'y');
        return url;
      },
    });
    expect(answer.status).toBe(303);
  },
);

const MARK = 'zqxjkv';
const payloads = [
  `<script>alert("${MARK}")</script>`,
  `"><img src=x onerror=${MARK}>`,
  `'-${MARK}-'`,
  `</title><svg onload=${MARK}>`,
  `javascript:${MARK}`,
  `https://${MARK}.example/`,
  `<meta http-equiv="refresh" content="0;url=//${MARK}.example">`,
  `{{${MARK}}}`,
  `\${${MARK}}`,
  `${MARK}\r\nSet-Cookie: ${MARK}=1`,
  `${MARK}\r\n\r\n<html>`,
  `&lt;b&gt;${MARK}`,
  `\u202e${MARK}`,
  `\ufeff<b>${MARK}`,
  `+ADw-script+AD4-${MARK}`,
  MARK.repeat(200),
  `%3Cscript%3E${MARK}`,
  `${MARK}\0<b>`,
];
const codes = [
  'access_denied',
  'server_error',
  'temporarily_unavailable',
  'invalid_request',
  'unauthorized_client',
  'unsupported_response_type',
  'invalid_scope',
  'interaction_required',
  'something_else',
];

test('A-019 the page of an error response holds our words alone, whatever the provider or an attacker wrote', async () => {
  const { text: fixed } = await failed(c.client(), { error: 'access_denied' });
  const skeleton = (text: string): string => text.replace(/Reference: [\w-]+/, '');
  for (const [at, payload] of payloads.entries()) {
    const error = codes[at % codes.length] ?? '';
    for (const parameters of [
      { error, error_description: payload, error_uri: payload },
      { error: payload, error_description: 'x' },
      { error, error_description: 'x', [payload]: payload, ui_locales: payload, session_state: payload },
    ]) {
      const answer = await failed(c.client(), parameters);
      expect(answer.status).toBe(400);
      expect(skeleton(answer.text)).toBe(skeleton(fixed));
      const head = JSON.stringify(answer.rawHeaders);
      expect(answer.text + head).not.toContain(MARK);
      expect(answer.headers['content-type']).toBe('text/html; charset=utf-8');
      const policy = answer.headers['content-security-policy'];
      expect(policy).toContain("default-src 'none'");
      expect(policy).toContain("frame-ancestors 'none'");
      expect(policy).toContain("form-action 'none'");
      expect(policy).not.toContain('unsafe');
      expect(policy).not.toContain('script-src');
      expect(answer.headers['x-content-type-options']).toBe('nosniff');
      expect(answer.headers['referrer-policy']).toBe('no-referrer');
    }
  }
  expect(exchanges()).toBe(0);
  expect(await c.redis?.keys(`${c.prefix}:*:session`)).toEqual([]);
});

async function failed(
  client: BrowserClient,
  parameters: Record<string, string>,
): ReturnType<BrowserClient['login']> {
  return await client.login({
    callback: (url) => {
      url.searchParams.delete('code');
      for (const [name, value] of Object.entries(parameters)) url.searchParams.set(name, value);
      return url;
    },
  });
}

test('A-019 the same holds for pages before any attempt is found, and for every other parameter', async () => {
  for (const payload of payloads) {
    const value = encodeURIComponent(payload);
    for (const query of [`state=${value}`, `state=${'A'.repeat(43)}&error=${value}`, `${value}=${value}`]) {
      const answer = await c.client().navigate(`/auth/callback?${query}`, { site: 'cross-site' });
      expect(answer.status).toBe(400);
      expect(answer.text + JSON.stringify(answer.rawHeaders)).not.toContain(MARK);
    }
    const login = await c.client().navigate(`/auth/login?prompt=${value}`);
    expect(login.status).toBe(400);
    expect(login.text + JSON.stringify(login.rawHeaders)).not.toContain(MARK);
  }
});

test('A-019 an error beside a code: the error counts, the code is not used', async () => {
  const client = c.client();
  const answer = await client.login({
    callback: (url) => {
      url.searchParams.set('error', 'access_denied');
      return url;
    },
  });
  expect(answer.status).toBe(400);
  expect(exchanges()).toBe(0);
});

const pushed = {
  access_token: 'pushed-access-token-pushed',
  id_token: 'eyJhbGciOiJub25lIn0.eyJzdWIiOiJtYWxsb3J5In0.',
  refresh_token: 'pushed-refresh-token-pushed',
  token_type: 'Bearer',
  expires_in: '3600',
};

test.each(Object.keys(pushed))('A-020 %s in the query is ignored or refused, never used', async (name) => {
  const client = c.client();
  const answer = await client.login({
    as: 'alice',
    callback: (url) => {
      url.searchParams.set(name, pushed[name as keyof typeof pushed]);
      return url;
    },
  });
  expect([303, 400]).toContain(answer.status);
  if (answer.status === 400) expect(client.sessionCookie).toBeUndefined();
  else {
    expect((await client.me()).json<{ claims: { sub: string } }>().claims.sub).toBe('alice');
    await client.api('/api/x');
    expect(c.upstream.last?.bearer).not.toContain('pushed');
  }
});

test('A-020 tokens without a code are refused, and nothing is stored', async () => {
  const client = c.client();
  const attempt = await client.beginLogin();
  const answer = await attempt.finish({
    callback: (url) => {
      url.searchParams.delete('code');
      for (const [name, value] of Object.entries(pushed)) url.searchParams.set(name, value);
      return url;
    },
  });
  expect(answer.status).toBe(400);
  expect(client.sessionCookie).toBeUndefined();
  expect(await c.redis?.keys(`${c.prefix}:*:session`)).toEqual([]);
  expect(exchanges()).toBe(0);
});

test.each(['POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND', 'REPORT'])(
  'A-020 %s /auth/callback is refused where the provider answers by query, and uses nothing up',
  async (method) => {
    const client = c.client();
    const attempt = await client.beginLogin({ returnTo: '/in' });
    const sent = await attempt.authorize();
    const before = await keys();
    const path = client.pathOf(sent?.callback.href ?? '');
    for (const site of ['cross-site', 'same-origin'] as const) {
      const answer = await client.navigate(path, {
        method,
        site,
        headers: { origin: c.publicUrl, 'content-type': 'application/x-www-form-urlencoded' },
        body: new URL(path, c.publicUrl).search.slice(1),
      });
      expect([400, 404, 405]).toContain(answer.status);
      expect(answer.setCookies).toEqual([]);
    }
    expect(exchanges()).toBe(0);
    expect(await keys()).toEqual(before);
    expect((await attempt.finish()).location).toBe('/in');
  },
);

test.each(['empty', 'iframe', 'image', 'script', 'object', 'embed', 'frame'])(
  'A-020 a callback opened with Sec-Fetch-Dest: %s is refused and uses nothing up',
  async (dest) => {
    const client = c.client();
    const attempt = await client.beginLogin({ returnTo: '/in' });
    const answer = await attempt.finish({ headers: { 'sec-fetch-dest': dest } });
    expect(answer.status).toBe(400);
    expect(answer.setCookies).toEqual([]);
    expect(exchanges()).toBe(0);
    expect((await attempt.finish()).location).toBe('/in');
  },
);
