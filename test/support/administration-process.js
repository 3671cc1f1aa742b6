// What an operator's command is: a process of its own, beside the replicas, with the same configuration. Driven by the
// test through messages; the compiled product does the work.
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { sign } from 'cookie-signature';
import { loadConfig } from '../../dist/config/load.js';
import { EndingJobs } from '../../dist/endings/ending-jobs.js';
import { Logger } from '../../dist/observability/logger.js';
import { composeAdministration } from '../../dist/services.js';
import { signingSecrets } from '../../dist/session/session-cookie.js';
import { sessionHandle } from '../../dist/store/session-records.js';

const loaded = loadConfig({ file: process.argv[2], env: process.env, cwd: process.cwd() });
if ('faults' in loaded) throw new Error(JSON.stringify(loaded.faults));
const { config } = loaded;
const product = composeAdministration(config, new Logger('info'));
const { store, records, directory, endings, epoch } = product;

/** Calls of the store until this process dies; the call itself is not made any more. */
let callsLeft = Infinity;
for (let at = Object.getPrototypeOf(store); at !== Object.prototype; at = Object.getPrototypeOf(at)) {
  for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(at))) {
    if (name === 'constructor' || typeof value !== 'function') continue;
    store[name] = (...args) => {
      callsLeft -= 1;
      if (callsLeft < 0) process.kill(process.pid, 'SIGKILL');
      return value.apply(store, args);
    };
  }
}

/** Sessions as a login makes them, except that nobody logged in. */
async function seed(wishes) {
  const made = [];
  const one = async ({
    subject,
    sid,
    accessToken,
    refreshToken,
    createdAt = Date.now(),
    provider = 'main',
    address,
  }) => {
    const secret = randomBytes(32);
    const { issuer } = config.providers.find(({ name }) => name === provider);
    const contents = {
      ...{ provider, issuer, subject, ...(sid === undefined ? {} : { sid }), acr: '1' },
      epoch: (await epoch.current()).end,
      client: { browser: 'Firefox', platform: 'Linux', ...(address === undefined ? {} : { address }) },
      createdAt,
      absoluteAt: createdAt + config.session.absolute,
      claims: { sub: subject, email: `${subject}@example.test` },
      idToken: 'none',
      tokens: {
        accessToken,
        ...(refreshToken === undefined ? {} : { refreshToken }),
        expiresAt: Date.now() + 3_600_000,
        refreshAt: Date.now() + 3_000_000,
        epoch: (await epoch.current()).refresh,
      },
    };
    await records.create(secret, contents, config.session.idle);
    const id = secret.toString('base64url');
    const cookie = encodeURIComponent(`s:${sign(id, signingSecrets(config)[0])}`);
    return { handle: sessionHandle(secret), cookie };
  };
  for (let at = 0; at < wishes.length; at += 100) {
    made.push(...(await Promise.all(wishes.slice(at, at + 100).map(one))));
  }
  return made;
}

const acts = {
  end: (filter, how, { dieAtCall = Infinity, dieAtProgress = Infinity } = {}) => {
    callsLeft = dieAtCall;
    const progress = (ended) => {
      process.send({ progress: ended });
      if (ended >= dieAtProgress) process.kill(process.pid, 'SIGKILL');
    };
    return endings.end(filter, { ...how, progress });
  },
  asked: async (name) => (await endings.result(EndingJobs.idOf(name))) !== undefined,
  result: (id) => endings.result(id),
  page: (filter, cursor, limit) => directory.page(filter, cursor ?? undefined, limit),
  show: (handle) => directory.show(handle),
  count: (filter) => directory.count(filter),
  sweep: () => directory.sweep(),
  bump: (kind) => epoch.bump(kind),
  resume: () => endings.resume(),
  seed,
  peakMemory: () =>
    Number(/^VmHWM:\s*(\d+) kB$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) * 1024,
};

process.on('message', ({ id, act, args }) => {
  Promise.resolve()
    .then(() => acts[act](...args))
    .then(
      (value) => process.send({ id, value }),
      (error) => process.send({ id, error: String(error?.code ?? error?.stack) }),
    );
});
process.on('disconnect', () => process.exit(0));

const deadline = Date.now() + 10_000;
for (;;) {
  try {
    await store.ping();
    break;
  } catch (error) {
    if (Date.now() > deadline) throw error;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
process.send({ ready: true });
