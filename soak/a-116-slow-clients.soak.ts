import { connect, type Socket } from 'node:net';
import { expect } from '@jest/globals';
import { startCloakroom } from '../test/support/cloakroom.js';
import { loginsLast } from '../test/support/over-at-once.js';
import { eventually, sleep } from '../test/support/lifetime.js';
import { Load, startPlainUpstream } from './load.js';
import { logIn } from './people.js';
import { scenario, target } from './scenario.js';

const SOCKETS = 10_000;
/** Connections opened a second. */
const OPENED = 1000;
const RATE = 300;
const MiB = 1024 * 1024;

/** A connection that was made, or undefined where this machine has no more files to give. */
function open(port: number): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.once('connect', () => {
      resolve(socket);
    });
    socket.once('error', () => {
      resolve(undefined);
    });
    socket.resume();
  });
}

scenario(
  'A-116',
  '10,000 connections that say nothing, or half a head: all are closed, others are served, memory comes back',
  4,
  async (say) => {
    const c = await startCloakroom({ upstream: await startPlainUpstream(), tap: false });
    loginsLast(c.provider, 3600);
    const people = await logIn(c, 50, say);
    const load = await Load.start(c, { clients: people, rate: RATE, seconds: 90 });
    await sleep(10_000);
    const before = c.replicas.map((replica) => replica.memory());
    const begun = Date.now();
    const sockets: Socket[] = [];
    let firstClosed = Infinity;
    for (let i = 0; i < SOCKETS; i += 1) {
      const early = begun + (i * 1000) / OPENED - Date.now();
      if (early > 0) await sleep(early);
      const socket = await open(c.replica(i % c.replicas.length).port);
      if (socket === undefined) break;
      socket.on('error', () => undefined);
      if (i % 2 === 1) socket.write('GET /livez HTTP/1.1\r\nHost: app.example.test\r\nX-Slow: ');
      socket.once('close', () => {
        firstClosed = Math.min(firstClosed, Date.now());
      });
      sockets.push(socket);
    }
    const opened = Date.now();
    say(`${String(sockets.length)} connections in ${String(opened - begun)} ms`);
    const during = c.replicas.map((replica) => replica.memory());
    const perSocket = during.reduce((sum, bytes, i) => sum + bytes - (before[i] ?? 0), 0) / sockets.length;
    say(`${(perSocket / 1024).toFixed(1)} KiB of memory a connection`);
    await eventually(() => sockets.every((socket) => socket.destroyed || socket.readableEnded), {
      timeout: 60_000,
      interval: 200,
      what: 'all of them to be closed',
    });
    const closed = Date.now();
    say(`the last was closed ${((closed - opened) / 1000).toFixed(1)} s after the last was opened`);
    await sleep(5000);
    const all = await load.stop();
    const alone = all.between(begun - 8000, begun);
    const beside = all.between(begun, closed);
    say(`the others before: ${alone.describe()}`);
    say(`while they are opened: ${all.between(begun, opened).describe()}`);
    const idle = all.between(opened, firstClosed);
    say(`while all are open: ${idle.describe()}`);
    say(`while they are closed: ${all.between(firstClosed, closed).describe()}`);
    say(target('p99 while all are open, times that before', idle.percentile(99) / alone.percentile(99), 2));
    say(target('p99 over all that time, times that before', beside.percentile(99) / alone.percentile(99), 2));
    const grown = c.replicas.map((replica, i) => (replica.memory() - (before[i] ?? 0)) / MiB);
    say(`memory afterwards: ${grown.map((mib) => `${mib.toFixed(0)} MiB more`).join(', ')}`);

    expect(sockets.length).toBeGreaterThan(500);
    expect(beside.withStatus(200).count).toBe(beside.count);
    expect(Math.max(...grown)).toBeLessThan(200);
  },
);
