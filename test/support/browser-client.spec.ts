import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { BrowserClient, inParallel } from './browser-client.js';

let server: Server;
let cookies: string[] = [];

beforeAll(async () => {
  server = createServer((request, response) => {
    response.setHeader('set-cookie', cookies);
    response.end(JSON.stringify(request.headers));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
});

afterAll(() => {
  server.closeAllConnections();
  server.close();
});

function browser(publicUrl = 'https://app.example.test'): BrowserClient {
  const base = `http://127.0.0.1:${String((server.address() as AddressInfo).port)}`;
  return new BrowserClient({ publicUrl, replicas: () => [base, base], forwardedProto: 'https' });
}

test('cookies go where a browser would send them', async () => {
  const client = browser();
  cookies = [
    '__Host-cloakroom-session=s; Path=/; Secure; HttpOnly; SameSite=Strict',
    '__Host-cloakroom-login-abc=l; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=600',
    'none=n; Path=/; Secure; SameSite=None',
    'deep=d; Path=/api/; Secure',
  ];
  await client.fetch('/');
  cookies = [];
  const sent = async (site: 'same-origin' | 'cross-site', method = 'GET', path = '/'): Promise<string[]> => {
    const answer = await client.navigate(path, { site, method });
    return (answer.json<{ cookie?: string }>().cookie ?? '').split('; ').map((pair) => pair.slice(-3));
  };
  expect(await sent('same-origin')).toEqual(['n=s', 'c=l', 'e=n']);
  expect(await sent('cross-site')).toEqual(['c=l', 'e=n']);
  expect(await sent('cross-site', 'POST')).toEqual(['e=n']);
  expect(await sent('same-origin', 'GET', '/api/x')).toContain('p=d');
  expect(client.sessionCookie?.httpOnly).toBe(true);
  expect(client.loginCookies).toHaveLength(1);
  cookies = ['__Host-cloakroom-session=; Path=/; Secure; Max-Age=0'];
  await client.fetch('/');
  expect(client.sessionCookie).toBeUndefined();
});

test('cookies a browser would refuse are refused', async () => {
  const client = browser();
  cookies = [
    '__Host-a=1; Path=/',
    '__Host-b=1; Secure; Path=/x',
    '__Host-c=1; Secure; Path=/; Domain=x',
    '=v',
  ];
  await client.fetch('/');
  expect(client.cookies()).toEqual([]);
  expect(client.refusedCookies).toHaveLength(4);
  const plain = browser('http://localhost:3000');
  cookies = ['a=1; Secure; Path=/'];
  await plain.fetch('/');
  expect(plain.cookies()).toEqual([]);
  cookies = [];
});

test('the SPA header, the forwarded protocol and the public host are sent', async () => {
  const headers = (await browser().api('/')).json();
  expect(headers).toMatchObject({
    host: 'app.example.test',
    origin: 'https://app.example.test',
    'x-csrf': '1',
    'x-forwarded-proto': 'https',
    'sec-fetch-site': 'same-origin',
  });
  const bare = await browser().api('/', { without: ['origin'], headers: { 'x-csrf': undefined } });
  expect(bare.json()).not.toHaveProperty('origin');
  expect(bare.json()).not.toHaveProperty('x-csrf');
});

test('five hundred requests at once', async () => {
  const client = browser();
  const answers = await inParallel(Array.from({ length: 500 }, () => () => client.api('/')));
  expect(answers.every((answer) => answer.status === 200)).toBe(true);
});
