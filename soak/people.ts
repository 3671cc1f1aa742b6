import { inParallel, type BrowserClient } from '../test/support/browser-client.js';
import type { Cloakroom } from '../test/support/cloakroom.js';
import type { Say } from './scenario.js';

const AT_ONCE = 16;

/** Real logins, each of somebody else with a browser of their own. */
export async function logIn(room: Cloakroom, count: number, say: Say): Promise<BrowserClient[]> {
  const begun = performance.now();
  const clients = await inParallel(
    Array.from({ length: count }, (_, i) => () => room.signedIn({ user: `user${String(i)}` })),
    AT_ONCE,
  );
  const seconds = (performance.now() - begun) / 1000;
  if (count >= 100)
    say(`${String(count)} logins in ${seconds.toFixed(0)} s, ${(count / seconds).toFixed(0)} a second`);
  return clients;
}

/** How many of them get which status from the API. */
export async function statusesOf(clients: readonly BrowserClient[]): Promise<Record<string, number>> {
  const answers = await inParallel(
    clients.map((client) => async () => (await client.api('/api/x')).status),
    32,
  );
  const counts: Record<string, number> = {};
  for (const status of answers) counts[String(status)] = (counts[String(status)] ?? 0) + 1;
  return counts;
}
