import { afterAll, beforeAll, expect, test } from '@jest/globals';
import type { BrowserClient } from './support/browser-client.js';
import { startCloakroom, type Cloakroom } from './support/cloakroom.js';
import { expectLeftClean } from './support/left-clean.js';

let c: Cloakroom;

beforeAll(async () => {
  c = await startCloakroom();
});

afterAll(async () => {
  await expectLeftClean(c);
}, 60_000);

/** Names of the cookies that an answer takes away. */
const takenAway = async (client: BrowserClient, path: string): Promise<string[]> => {
  const answer = await client.api(path);
  expect(answer.status).toBe(401);
  return answer.setCookies
    .filter((line) => /Max-Age=0/i.test(line))
    .map((line) => line.split('=', 1)[0] ?? '');
};

test.each(['/api/orders', '/auth/me'])('A-004 %s takes a dead session cookie away', async (path) => {
  const client = await c.signedIn();
  const dead = client.clone();
  await client.logout();
  expect(await takenAway(dead, path)).toContain(dead.cookieName('session'));
});

// What another tab asked with the old cookie may be answered after the browser has the new one, and a cookie is taken
// away by its name alone.
test.each(['/api/orders', '/auth/me'])(
  'A-005 while a new login is under way an answer to a request with the old cookie (%s) leaves the new one alone',
  async (path) => {
    const client = await c.signedIn();
    const attempt = await client.beginLogin();
    const inFlight = client.clone();
    await attempt.authorize();
    expect((await attempt.finish()).status).toBe(303);
    expect(await takenAway(inFlight, path)).toEqual([]);
    // Once the login is done nothing protects the old cookie any more.
    expect((await client.me()).status).toBe(200);
    expect(client.loginCookies).toEqual([]);
  },
);
