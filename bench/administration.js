// @ts-check
// One act of an operator in a process of its own, as `cloakroom sessions` is one: time and memory of that alone.
import { randomBytes } from 'node:crypto';
import { loadConfig } from '../dist/config/load.js';
import { Logger } from '../dist/observability/logger.js';
import { composeAdministration } from '../dist/services.js';

const [file = ''] = process.argv.slice(2);
const loaded = loadConfig({ file, env: process.env, cwd: process.cwd() });
if ('faults' in loaded) throw new Error(JSON.stringify(loaded.faults));
const { config } = loaded;
const { store, records, directory, endings } = composeAdministration(
  config,
  new Logger('error', { write: () => undefined }),
);
const how = {
  cause: /** @type {const} */ ('operator'),
  reason: 'bench',
  actor: { kind: 'operator', name: 'bench' },
};

/** Sessions written at once. */
const AT_ONCE = 16;
/** On a busy machine a process can be kept waiting for longer than Cloakroom waits for Redis. */
const ATTEMPTS = 5;
const PAGE = 200;

/** @type {Record<string, (...args: any[]) => Promise<unknown>>} */
const acts = {
  /** What logins leave behind, written by the same code, with tokens of the sizes that real ones have. */
  seed: async (from, to, sessionsEach) => {
    const one = async (/** @type {number} */ i) => {
      const now = Date.now();
      const subject = `person-${String(Math.floor(i / sessionsEach)).padStart(6, '0')}`;
      const contents = {
        ...{ provider: 'main', issuer: config.providers[0]?.issuer ?? '', subject, acr: '1', epoch: 0 },
        sid: randomBytes(16).toString('hex'),
        authTime: Math.floor(now / 1000),
        client: { browser: 'Firefox', platform: 'Linux', address: '203.0.113.0/24' },
        createdAt: now,
        absoluteAt: now + config.session.absolute,
        claims: { sub: subject, name: 'Alexandra Example-Persson', email: `${subject}@example.com` },
        idToken: randomBytes(750).toString('base64url'),
        tokens: {
          accessToken: randomBytes(768).toString('base64url'),
          refreshToken: randomBytes(150).toString('base64url'),
          ...{ expiresAt: now + 3_600_000, refreshAt: now + 3_000_000, epoch: 0 },
          scope: 'openid profile email offline_access',
        },
      };
      const secret = randomBytes(32);
      await again(() => records.create(secret, contents, config.session.idle));
    };
    for (let at = from; at < to; at += AT_ONCE) {
      await Promise.all(Array.from({ length: Math.min(AT_ONCE, to - at) }, (_, i) => one(at + i)));
    }
    return to - from;
  },
  list: async (filter) => {
    let count = 0;
    /** @type {string | undefined} */
    let cursor;
    do {
      const page = await directory.page(filter, cursor, PAGE);
      count += page.sessions.length;
      cursor = page.next;
    } while (cursor !== undefined);
    return count;
  },
  end: async (filter) => (await endings.end(filter, how)).ended,
};

/**
 * @param {() => Promise<void>} work
 * @param {number} attempts
 */
async function again(work, attempts = ATTEMPTS) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      await work();
      return;
    } catch (error) {
      if (attempt >= attempts) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

await again(() => store.ping(), 500);
process.send?.({ ready: true, memory: process.memoryUsage.rss() });
process.on('message', (/** @type {{ act: string, args: unknown[] }} */ { act, args }) => {
  const from = performance.now();
  acts[act]?.(...args).then(
    (value) => {
      // Kilobytes, of the whole life of this process.
      const peak = process.resourceUsage().maxRSS * 1024;
      process.send?.({ value, milliseconds: performance.now() - from, peak });
    },
    (error) => process.send?.({ failed: String(error?.stack ?? error) }),
  );
});
process.on('disconnect', () => process.exit(0));
