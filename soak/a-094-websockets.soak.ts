import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { expect } from '@jest/globals';
import { Administration } from '../test/support/administration.js';
import { sleep } from '../test/support/lifetime.js';
import { cookieOf } from '../test/support/seeded.js';
import { messageFrom, startScript } from './load.js';
import { ms, scenario, target } from './scenario.js';
import { seedPeople, startSeedable } from './seeded-people.js';

const REPLICAS = 2;
const WANTED = 10_000;
/** Of one session on one replica; below the default limit of a route. */
const EACH = 5;
/** Files that a process has open besides. */
const OTHER_FILES = 500;

/** Each socket takes a file in the client and one in the upstream, and two in its replica, which has half of them. */
function socketsPossible(): { count: number; limit: string } {
  // Node raises its own limit to this one.
  const limit = execFileSync('sh', ['-c', 'ulimit -Hn'], { encoding: 'utf8' }).trim();
  const files = limit === 'unlimited' ? Infinity : Number(limit);
  const step = REPLICAS * EACH;
  return { count: Math.floor(Math.min(WANTED, files - OTHER_FILES) / step) * step, limit };
}

scenario(
  'A-094',
  `${String(WANTED)} WebSockets over ${String(REPLICAS)} replicas: memory a socket, and all closed when everybody is ended`,
  10,
  async (say) => {
    const { count, limit } = socketsPossible();
    say(
      `files a process may open: ${limit}${count < WANTED ? `, too few: ${String(count)} sockets instead` : ''}`,
    );
    const upstream = await startScript(join('soak', 'socket-upstream.js'));
    const url = `http://127.0.0.1:${String((upstream.first as { port: number }).port)}`;
    const { c, env, seeder } = await startSeedable(REPLICAS, {
      routes: [{ path: '/api/', upstream: url, websocket: true }],
    });
    const sessions = count / REPLICAS / EACH;
    const people = await seedPeople(c, seeder, sessions, (i) => ({ subject: `person-${String(i)}` }), say);
    await seeder.close();
    const ender = await Administration.start(c, env);
    const { child } = await startScript(join('soak', 'sockets.js'));
    const { host, origin } = new URL(c.publicUrl);
    const memory = (): number[] => c.replicas.map((replica) => replica.memory() / 1024 / 1024);
    const before = memory();
    const opening = performance.now();
    child.send({
      ports: c.replicas.map(({ port }) => port),
      cookies: people.map(cookieOf),
      lines: [
        ...[`Host: ${host}`, 'X-Forwarded-Proto: https', `Origin: ${origin}`, 'Connection: Upgrade'],
        ...['Upgrade: websocket', 'Sec-WebSocket-Version: 13'],
      ],
      count,
    });
    expect(await messageFrom(child)).toEqual({ statuses: { 101: count } });
    const took = performance.now() - opening;
    say(
      `${String(count)} sockets of ${String(sessions)} sessions opened in ${(took / 1000).toFixed(1)} s, ${(count / (took / 1000)).toFixed(0)} a second`,
    );
    await sleep(3000);
    const after = memory();
    for (const [at, open] of after.entries()) {
      const each = ((open - (before[at] ?? 0)) * 1024) / (count / REPLICAS);
      say(
        `replica ${String(at)}: ${(before[at] ?? 0).toFixed(0)} MiB before, ${open.toFixed(0)} MiB with ${String(count / REPLICAS)} sockets: ${each.toFixed(1)} KiB a socket`,
      );
    }
    const allClosed = messageFrom(child);
    const begun = Date.now();
    const { ended } = await ender.end({ all: true });
    const answered = Date.now() - begun;
    expect(ended).toBe(sessions);
    const { codes, last } = (await allClosed) as { codes: Record<string, number>; last: number };
    say(
      `everybody is ended: answered after ${ms(answered)}, the last close ${ms(last - begun)} after the wish`,
    );
    expect(codes).toEqual({ 4401: count });
    say(`closed with 4401: ${String(count)} of ${String(count)}`);
    say(target('from the wish to the last close', last - begun, 2000, ' ms'));
    await sleep(3000);
    say(
      `replicas afterwards: ${memory()
        .map((value) => `${value.toFixed(0)} MiB`)
        .join(', ')}`,
    );
    expect(c.replicas.map(({ running }) => running)).toEqual(c.replicas.map(() => true));
  },
);
