import { expect } from '@jest/globals';
import { startCloakroom } from '../test/support/cloakroom.js';
import { startProvider } from '../test/support/fault-provider.js';
import { fuzzAnswers, startBabbler, upstreamAnswer } from '../test/support/fuzz/answers.js';
import { routesFor } from '../test/support/fuzz/oracle.js';
import {
  describeProviderRun,
  fuzzProviders,
  providerSettings,
  startProviders,
} from '../test/support/fuzz/provider-run.js';
import { FuzzRun } from '../test/support/fuzz/run.js';
import { JudgedUpstream } from '../test/support/fuzz/upstream.js';
import { random, seed } from '../test/support/random.js';
import { sessionPair } from '../test/support/script-request.js';
import { scenario, target } from './scenario.js';

const given = process.env['FUZZ_REQUESTS'];
const REQUESTS = given === undefined ? 1_000_000 : Number(given);
/** Of what follows from the number of requests: this share of it are answers, and these are of the provider. */
const ANSWERS = 0.095;
const PROVIDER_ANSWERS = 0.005;
const PARALLEL = 32;
const MiB = 1024 * 1024;

scenario(
  'A-118',
  `${String(REQUESTS)} fuzzed requests and a tenth as many fuzzed answers of upstreams and providers (FUZZ_REQUESTS sets another number)`,
  60,
  async (say) => {
    say(`SEED=${String(seed)}`);
    const upstream = await JudgedUpstream.start();
    const babble = random('fuzz-upstream');
    const raw = await startBabbler(() => upstreamAnswer(babble));
    const providers = await startProviders(8);
    const settings = providerSettings(providers, upstream.url);
    const room = await startCloakroom({
      replicas: 1,
      providers: { main: await startProvider(), ...providers },
      upstream,
      tap: false,
      config: {
        providers: settings.providers,
        // The machine is busy with this; outages of the store are the subject of other scenarios.
        store: { redis: { commandTimeout: '5s' } },
        routes: [
          ...routesFor(upstream.url),
          settings.route,
          { path: '/raw/', upstream: raw, timeouts: { firstByte: '500ms', idle: '500ms' } },
        ],
      },
    });
    const { pid } = room.first;
    const run = await FuzzRun.start(room, upstream, 'fuzz');
    let most = 0;
    const memory = (): string => {
      most = Math.max(most, room.first.memory());
      return `${String(Math.round(room.first.memory() / MiB))} MiB`;
    };
    memory();
    await run.run({
      count: REQUESTS,
      parallel: PARALLEL,
      progress: ({ sent, seconds }) => {
        say(`${String(sent)} requests after ${seconds.toFixed(0)} s, ${memory()}`);
      },
    });
    say(run.describe());
    say(target('seconds for a million at this rate', (run.seconds * 1_000_000) / run.sent, 670));
    await run.stillServes();

    const client = await room.signedIn();
    upstream.judge = ({ url }) => url.slice('/api/'.length);
    const counted = (limit: number): (() => boolean) => {
      let count = 0;
      return () => (count += 1) > limit;
    };
    const answers = await fuzzAnswers({
      port: room.first.port,
      cookie: sessionPair(client),
      isOver: counted(REQUESTS * ANSWERS),
      parallel: PARALLEL,
    });
    say(
      `${String(answers.answers)} answers of an upstream: ${[...answers.statuses].map(([status, times]) => `${status}: ${String(times)}`).join(', ')}; ${memory()}`,
    );
    const logins = await fuzzProviders(
      room,
      providers,
      random('fuzz-provider'),
      counted(REQUESTS * PROVIDER_ANSWERS),
    );
    say(`${describeProviderRun(logins)}; ${memory()}`);

    expect([...run.violations, ...answers.findings, ...logins.findings].slice(0, 20)).toEqual([]);
    expect(logins.read).toBeGreaterThan(logins.answers / 2);
    for (const { answers, read } of logins.questions.values()) expect(read).toBeGreaterThan(answers / 4);
    expect((await client.api('/api/after')).status).toBe(200);
    expect([room.first.pid, room.first.running]).toEqual([pid, true]);
    expect(room.first.stderr).toBe('');
    const ours = room.first.log.filter(
      ({ level, event }) => level === 'fatal' || (level === 'error' && event === 'request_failed'),
    );
    expect(ours).toEqual([]);
    say(`at most ${String(Math.round(most / MiB))} MiB, same process, no line of its own failure`);
    expect(most).toBeLessThan(512 * MiB);
  },
);
