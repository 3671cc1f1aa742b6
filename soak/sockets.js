// @ts-check
// Very many WebSockets of browsers, in a process of their own: opened on order, then watched until the last one is closed.
import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';

/**
 * @typedef {object} Order
 * @property {number[]} ports of the replicas, which take turns
 * @property {string[]} cookies which take turns, too, but only after each port
 * @property {string[]} lines of every handshake, without cookie and key
 * @property {number} count
 */

const AT_ONCE = 100;
const CLOSE = 0x88;

/** @type {Record<string, number>} */
const codes = {};
let open = 0;
let last = 0;

process.on('message', (/** @type {Order} */ order) => {
  openAll(order).then(
    (statuses) => process.send?.({ statuses }),
    (error) => process.send?.({ failed: String(error) }),
  );
});
process.on('disconnect', () => process.exit(0));
process.send?.({ ready: true });

/** @param {Order} order */
async function openAll({ ports, cookies, lines, count }) {
  /** @type {Record<string, number>} */
  const statuses = {};
  let next = 0;
  const worker = async () => {
    while (next < count) {
      const at = next;
      next += 1;
      const cookie = cookies[Math.floor(at / ports.length) % cookies.length] ?? '';
      const status = await openOne(ports[at % ports.length] ?? 0, [...lines, `Cookie: ${cookie}`]);
      statuses[status] = (statuses[status] ?? 0) + 1;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return statuses;
}

/**
 * @param {number} port
 * @param {string[]} lines
 * @returns {Promise<string>} the status of the answer, or what went wrong
 */
function openOne(port, lines) {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port });
    let head = '';
    let isOpen = false;
    let code = 'none';
    socket.on('data', (chunk) => {
      if (isOpen) {
        // Nothing else is ever sent to these browsers.
        if (chunk[0] === CLOSE && chunk.length >= 4) code = String(chunk.readUInt16BE(2));
        last = Date.now();
        return;
      }
      head += chunk.toString('latin1');
      if (!head.includes('\r\n\r\n')) return;
      const status = head.slice(9, 12);
      isOpen = status === '101';
      if (isOpen) open += 1;
      else socket.destroy();
      resolve(status);
    });
    socket.on('error', (error) => resolve(String(/** @type {NodeJS.ErrnoException} */ (error).code)));
    socket.on('close', () => {
      resolve('closed');
      if (!isOpen) return;
      codes[code] = (codes[code] ?? 0) + 1;
      open -= 1;
      if (open === 0) process.send?.({ codes, last });
    });
    const key = `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}`;
    socket.write(`GET /api/socket HTTP/1.1\r\n${[...lines, key].join('\r\n')}\r\n\r\n`);
  });
}
