import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from '@jest/globals';
import { inParallel } from '../test/support/browser-client.js';
import { startCloakroom } from '../test/support/cloakroom.js';
import { loginsLast, loginsNeedRefresh } from '../test/support/over-at-once.js';
import { startRedis } from '../test/support/redis.js';
import { buildIndex, searchFile } from '../test/support/secret-search.js';
import { StoredSession } from '../test/support/stored-session.js';
import { scenario } from './scenario.js';

const PEOPLE = 1000;
const AT_ONCE = 8;

scenario(
  'A-056',
  `after ${String(PEOPLE)} logins a dump, the append-only file and every command hold no token, cookie, subject, mail, name or address`,
  10,
  async (say) => {
    const redis = await startRedis({ appendonly: true, args: ['--rdbcompression', 'no'] });
    const commands: string[] = [];
    const monitor = await redis.client.monitor();
    monitor.on('monitor', (_time: string, args: string[]) => commands.push(args.join(' ')));
    const c = await startCloakroom({ replicas: 2, redis, tap: false });
    const { provider } = c;
    provider.modes.claims = (sub) => ({ email: `${sub}@mail.example.test`, name: `Name ${sub}` });
    const signIn = async (i: number): Promise<StoredSession> => {
      const user = `person-${String(i)}-of-the-dump`;
      const client = await c.signedIn({ user, headers: { 'x-forwarded-for': '203.0.113.77' } });
      expect((await client.api('/api/x')).status).toBe(200);
      const stored = new StoredSession(c, client);
      cookies.push(decodeURIComponent(client.sessionCookie?.value ?? '').slice(2));
      // Attempts that stay open, and sessions that end, leave their traces too.
      if (i % 10 === 0) await client.beginLogin();
      if (i % 20 === 0) await client.logout({ navigate: false });
      return stored;
    };
    const cookies: string[] = [];
    const claims = { claims: provider.modes.claims };
    loginsLast(provider, 3600, claims);
    const half = Array.from({ length: PEOPLE / 2 }, (_, i) => i);
    const stored = await inParallel(
      half.map((i) => () => signIn(i)),
      AT_ONCE,
    );
    // The other half has its tokens renewed at once.
    loginsNeedRefresh(provider, claims);
    stored.push(
      ...(await inParallel(
        half.map((i) => () => signIn(PEOPLE / 2 + i)),
        AT_ONCE,
      )),
    );
    const refreshes = provider.ledger.count('refresh');
    await redis.command('SAVE');
    monitor.disconnect();

    const folder = String(((await redis.command('CONFIG', 'GET', 'dir')) as string[])[1]);
    const files = [folder, join(folder, 'appendonlydir')].flatMap((place) =>
      readdirSync(place, { withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => join(place, entry.name)),
    );
    expect(files.some((file) => file.endsWith('.rdb'))).toBe(true);
    expect(files.some((file) => file.includes('appendonly'))).toBe(true);
    const told = join(folder, 'commands.txt');
    writeFileSync(told, commands.join('\n'), 'latin1');
    files.push(told);
    const places = files.map((file) => readFileSync(file));
    const bytes = places.reduce((sum, place) => sum + place.length, 0);

    const { ledger } = provider;
    const secrets = [...ledger.secrets(), ...ledger.codes.keys()];
    const inCookies = cookies.flatMap((value) => [value, value.slice(0, 43)]);
    const found = [secrets, inCookies].flatMap((values) => {
      const index = buildIndex(values.map((value) => ['code', value]));
      const what = values === secrets ? 'a token or code' : 'a cookie';
      return files.flatMap((file) =>
        searchFile(index, file).findings.map(({ form, near }) => `${what} (${form}) in ${file}: ${near}`),
      );
    });
    const words = ['of-the-dump', 'mail.example.test', '203.0.113.77', ...stored.map(({ secret }) => secret)];
    for (const word of words) {
      if (places.some((place) => place.includes(word)))
        found.push(`the bytes of ${Buffer.from(word).toString('hex')}`);
    }
    say(
      `${String(PEOPLE)} logins, ${String(refreshes)} refreshes, ${String(commands.length)} commands; ${(bytes / 1024 / 1024).toFixed(1)} MiB searched for ${String(secrets.length + inCookies.length + words.length)} secrets and words: ${String(found.length)} found`,
    );
    expect(found.slice(0, 20)).toEqual([]);
    // The search finds what is there: handles are.
    const handles = stored.filter(({ handle }) =>
      places.every((place) => place.length < 1000 || place.includes(handle)),
    );
    expect(handles.length).toBeGreaterThan(PEOPLE / 2);
    expect(commands.length).toBeGreaterThan(PEOPLE * 3);
  },
);
