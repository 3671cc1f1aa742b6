import { randomBytes } from 'node:crypto';
import { Agent, request as httpRequest } from 'node:http';
import { expect } from '@jest/globals';
import { startCloakroom, type Cloakroom } from '../test/support/cloakroom.js';
import { loginsLast } from '../test/support/over-at-once.js';
import { random } from '../test/support/random.js';
import { sessionPair } from '../test/support/script-request.js';
import { StoredSession } from '../test/support/stored-session.js';
import { scenario } from './scenario.js';

const ROUNDS = 20_000;

/** One call on a connection that is kept: its status and its microseconds. */
function call(c: Cloakroom, agent: Agent, cookie: string): Promise<[number, number]> {
  return new Promise((resolve, reject) => {
    const begun = process.hrtime.bigint();
    const request = httpRequest({
      host: '127.0.0.1',
      port: c.first.port,
      path: '/api/x',
      headers: { host: 'app.example.test', 'x-csrf': '1', 'x-forwarded-proto': 'https', cookie },
      agent,
    });
    request.once('error', reject);
    request.once('response', (response) => {
      response.resume();
      response.once('end', () => {
        resolve([response.statusCode ?? 0, Number(process.hrtime.bigint() - begun) / 1000]);
      });
    });
    request.end();
  });
}

interface Kind {
  name: string;
  cookie: (forged: string, signature: string) => string;
  times: number[];
}

function describe({ name, times }: Kind): string {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (share: number): string => (sorted[Math.floor(sorted.length * share)] ?? Number.NaN).toFixed(0);
  return `${name}: median ${at(0.5)} µs, quartiles ${at(0.25)} and ${at(0.75)} µs`;
}

/** Welch's t, of what lies under the 90th percentile of each: pauses of the machine say nothing about the code. */
function welch(one: Kind, other: Kind): number {
  const [a, b] = [one, other].map(({ times }) => {
    const kept = [...times].sort((x, y) => x - y).slice(0, Math.floor(times.length * 0.9));
    const mean = kept.reduce((sum, time) => sum + time, 0) / kept.length;
    const variance = kept.reduce((sum, time) => sum + (time - mean) ** 2, 0) / (kept.length - 1);
    return { mean, error: variance / kept.length };
  });
  if (a === undefined || b === undefined) return Number.NaN;
  return (a.mean - b.mean) / Math.sqrt(a.error + b.error);
}

scenario(
  'A-051',
  `how long ${String(ROUNDS)} cookies of each wrong kind take to be refused; figures only`,
  5,
  async (say) => {
    const c = await startCloakroom({ replicas: 1, tap: false });
    loginsLast(c.provider, 3600);
    const client = await c.signedIn();
    const pair = sessionPair(client);
    const ended = await c.signedIn();
    const endedPair = sessionPair(ended);
    await new StoredSession(c, ended).delete();
    const name = pair.slice(0, pair.indexOf('='));
    const id = /=s(?::|%3A)([A-Za-z0-9_-]{43})\./.exec(pair)?.[1] ?? '';
    const draw = random('cookie timing');
    const cookie = (value: string): string => `${name}=${value}`;
    const kinds: Kind[] = [
      { name: 'no cookie', cookie: () => '', times: [] },
      { name: 'not even the form', cookie: (forged, signature) => cookie(forged + signature), times: [] },
      {
        name: 'a forged id, a forged signature',
        cookie: (forged, signature) => cookie(`s%3A${forged}.${signature}`),
        times: [],
      },
      {
        name: 'a real id, a forged signature',
        cookie: (_forged, signature) => cookie(`s%3A${id}.${signature}`),
        times: [],
      },
      { name: 'a right signature, a session that has ended', cookie: () => endedPair, times: [] },
    ];
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    for (let round = 0; round < ROUNDS + 1000; round += 1) {
      for (const kind of draw.shuffle(kinds)) {
        // Made for every kind, so that making them takes the same from all.
        const forged = randomBytes(32).toString('base64url');
        const signature = encodeURIComponent(randomBytes(32).toString('base64').replace(/=+$/, ''));
        const [status, micros] = await call(c, agent, kind.cookie(forged, signature));
        expect(status).toBe(401);
        // What comes first finds code that is not compiled yet.
        if (round >= 1000) kind.times.push(micros);
      }
    }
    agent.destroy();
    for (const kind of kinds) say(describe(kind));
    const [, , forged, real, dead] = kinds;
    if (forged === undefined || real === undefined || dead === undefined) throw new Error('no kinds');
    say(`real id against forged id, both with a forged signature: t = ${welch(real, forged).toFixed(1)}`);
    say(
      `ended session against a forged signature: t = ${welch(dead, real).toFixed(1)}; the store is asked for the one and never for the other, and only who had the cookie can send it`,
    );
    expect((await client.api('/api/x')).status).toBe(200);
  },
);
