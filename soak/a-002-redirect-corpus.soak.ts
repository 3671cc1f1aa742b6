import { readFileSync } from 'node:fs';
import { expect } from '@jest/globals';
import type { BrowserClient, BrowserResponse } from '../test/support/browser-client.js';
import { startCloakroom, type Cloakroom } from '../test/support/cloakroom.js';
import { scenario } from './scenario.js';

const file = process.env['OPEN_REDIRECTS'];

/** Where a browser that follows the answer ends (WHATWG URL); it must be ours. */
function place(c: Cloakroom, location: string | undefined, at: string): string {
  if (location === undefined) throw new Error('no Location');
  if (!/^\/(?![/\\])[\x21-\x7e]*$/.test(location)) throw new Error(`Location: ${location}`);
  const { origin, username, password, href } = new URL(location, c.publicUrl + at);
  if (origin !== c.publicUrl || username !== '' || password !== '') throw new Error(`Location: ${location}`);
  return href.slice(c.publicUrl.length);
}

/** Through login, through logout at the provider and back, and through logout of nobody. */
async function everyWay(c: Cloakroom, raw: string): Promise<string[]> {
  const client = c.client();
  const begun = await client.navigate(`/auth/login?returnTo=${raw}`, { site: 'same-origin' });
  const callback = (await client.foreign(begun.location ?? '')).location ?? '';
  const ended = await client.navigate(client.pathOf(callback), { site: 'cross-site' });
  const post = (): Promise<BrowserResponse> => client.api(`/auth/logout?returnTo=${raw}`, { method: 'POST' });
  const out = await throughProvider(c, client, (await post()).json<{ logoutUrl: string }>().logoutUrl);
  const nobody = (await post()).json<{ logoutUrl: string }>().logoutUrl;
  return [
    place(c, ended.location, '/auth/callback'),
    place(c, out.location, '/auth/logout'),
    place(c, nobody, '/'),
  ];
}

async function throughProvider(
  c: Cloakroom,
  client: BrowserClient,
  logoutUrl: string,
): Promise<BrowserResponse> {
  const away = await client.navigate(logoutUrl, { site: 'same-origin' });
  expect(new URL(away.location ?? '').origin).toBe(c.provider.origin);
  const back = (await client.foreign(away.location ?? '')).location ?? '';
  return await client.navigate(client.pathOf(back), { site: 'cross-site' });
}

/** As it stands in a request line, with only what cannot stand there escaped. */
const asItIs = (line: string): string => encodeURI(line).replaceAll('%25', '%').replaceAll('#', '%23');

scenario(
  'A-002',
  "every line of a corpus of open redirects (oauth2-proxy's testdata/openredirects.txt) as returnTo of login and logout stays here",
  10,
  async (say) => {
    const lines = [...new Set(readFileSync(file ?? '', 'utf8').split('\n'))].filter((line) => line !== '');
    const c = await startCloakroom({ tap: false });
    const ends: Record<string, number> = {};
    const left: string[] = [];
    for (const line of lines) {
      for (const raw of new Set([encodeURIComponent(line), asItIs(line)])) {
        try {
          for (const end of await everyWay(c, raw)) ends[end] = (ends[end] ?? 0) + 1;
        } catch (error) {
          left.push(`${line}: ${String(error)}`);
        }
      }
    }
    const kept = Object.keys(ends).filter((end) => end !== '/');
    say(
      `${String(lines.length)} lines, each escaped and as it is, 3 ways: ${String(ends['/'] ?? 0)} times "/", ${String(Object.values(ends).reduce((sum, n) => sum + n, 0) - (ends['/'] ?? 0))} times a path of ours`,
    );
    for (const end of kept.slice(0, 20)) say(`a path of ours: ${end}`);
    for (const one of left.slice(0, 20)) say(`LEFT: ${one}`);
    expect(left).toEqual([]);
    expect(lines.length).toBeGreaterThan(500);
  },
  file === undefined || file === '' ? 'no corpus; OPEN_REDIRECTS=<file> names one' : undefined,
);
