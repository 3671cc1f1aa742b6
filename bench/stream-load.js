// @ts-check
// Browsers with open streams, in a process of their own. On a WebSocket the next message leaves when the last has come back;
// an event says itself when it was sent, by a clock that all processes of a machine share.
import { once } from 'node:events';
import { connect } from 'node:net';
import { createHistogram } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { FRAME_FROM_BROWSER, FRAME_TO_BROWSER } from './stream-messages.js';

/**
 * @typedef {object} Round
 * @property {'websocket' | 'events'} kind
 * @property {number} port
 * @property {string} cookie
 * @property {number} seconds
 * @property {number} connections
 */

process.on('message', (/** @type {Round} */ round) => {
  run(round).then(
    (result) => process.send?.(result),
    (error) => process.send?.({ failed: error.message }),
  );
});
process.on('disconnect', () => process.exit(0));
process.send?.({ ready: true });

/** @param {Round} round */
async function run(round) {
  const streams = await Promise.all(Array.from({ length: round.connections }, () => open(round)));
  const histogram = createHistogram();
  let messages = 0;
  let isOver = false;
  /** @param {bigint} sentAt */
  const count = (sentAt) => {
    if (isOver) return;
    messages += 1;
    histogram.record(process.hrtime.bigint() - sentAt);
  };
  const begun = performance.now();
  for (const socket of streams) {
    if (round.kind === 'websocket') talk(socket, count);
    else listen(socket, count);
  }
  await sleep(round.seconds * 1000);
  isOver = true;
  const seconds = (performance.now() - begun) / 1000;
  for (const socket of streams) socket.destroy();
  if (messages === 0) throw new Error('no message arrived');
  return { messages, seconds, p50: histogram.percentile(50) / 1e6, p99: histogram.percentile(99) / 1e6 };
}

/** @param {Round} round */
async function open({ kind, port, cookie }) {
  const socket = connect({ host: '127.0.0.1', port, noDelay: true });
  const host = `127.0.0.1:${String(port)}`;
  const lines = [`GET /api/stream HTTP/1.1`, `Host: ${host}`, `Origin: http://${host}`, `Cookie: ${cookie}`];
  if (kind === 'events') lines.push('X-CSRF: 1');
  else {
    lines.push('Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13');
    lines.push('Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==');
  }
  socket.write(`${lines.join('\r\n')}\r\n\r\n`);
  const [head] = await once(socket, 'data');
  const status = head.toString('latin1', 9, 12);
  if (status !== (kind === 'events' ? '200' : '101')) throw new Error(`answered with ${String(status)}`);
  return socket;
}

/**
 * @param {import('node:net').Socket} socket
 * @param {(sentAt: bigint) => void} count
 */
function talk(socket, count) {
  let received = 0;
  let sentAt = process.hrtime.bigint();
  socket.on('data', (chunk) => {
    received += chunk.length;
    if (received < FRAME_TO_BROWSER.length) return;
    received = 0;
    count(sentAt);
    sentAt = process.hrtime.bigint();
    socket.write(FRAME_FROM_BROWSER);
  });
  socket.write(FRAME_FROM_BROWSER);
}

/**
 * @param {import('node:net').Socket} socket
 * @param {(sentAt: bigint) => void} count
 */
function listen(socket, count) {
  let text = '';
  socket.on('data', (chunk) => {
    text += chunk.toString('latin1');
    const end = text.lastIndexOf('\n\n');
    if (end < 0) return;
    for (const [, sentAt] of text.slice(0, end + 1).matchAll(/data: (\d+)\n/g)) count(BigInt(sentAt ?? 0));
    text = text.slice(end);
  });
}
