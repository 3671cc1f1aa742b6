import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { closeLater } from '../lifetime.js';
import type { Random } from '../random.js';
import { TAG, tagOf } from './requests.js';

const PATIENCE = 20_000;
/** Never on an answer to a browser, whatever an upstream says. */
const FORBIDDEN =
  /\n(?:clear-site-data|alt-svc|server|x-powered-by|set-cookie|access-control-[a-z-]+|nel|refresh|service-worker-allowed): /i;

/** The first answer's head, interim ones before it included; what is in a body is the upstream's business. */
const head = (text: string): string =>
  /^(?:HTTP\/1\.1 1\d\d.*?\r\n\r\n)*.*?(?:\r\n\r\n|$)/s.exec(text)?.[0] ?? '';

const LINES = [
  'HTTP/1.1 200 OK',
  'HTTP/1.1 200 OK',
  'HTTP/1.1 200 OK',
  'HTTP/1.1 404 Not Found',
  'HTTP/1.0 200 OK',
  'HTTP/1.1 204 No Content',
  'HTTP/1.1 304 Not Modified',
  'HTTP/1.1 101 Switching Protocols',
  'HTTP/1.1 100 Continue',
  'HTTP/1.1 103 Early Hints',
  'HTTP/1.1 999 ?',
  'HTTP/1.1 000',
  'HTTP/1.1 20 OK',
  'HTTP/9.9 200 OK',
  'ICY 200 OK',
  'HTTP/1.1 200',
  '',
  'HTTP/1.1 200 \xff\xfe',
  'HTTP/1.1 503 x',
];
const HEADERS = [
  'Content-Type: text/plain',
  'Content-Type: text/event-stream',
  'Set-Cookie: __Host-cloakroom-session=evil',
  'Set-Cookie: a=b; Domain=example.test',
  'Clear-Site-Data: "*"',
  'Alt-Svc: h2=":443"',
  'Server: x',
  'X-Powered-By: x',
  'Access-Control-Allow-Origin: *',
  'Connection: close',
  'Connection: X-A',
  'X-A: 1',
  'Upgrade: h2c',
  'Keep-Alive: timeout=99999999',
  'Keep-Alive: timeout=-1',
  'WWW-Authenticate: Basic',
  'Location: //evil.example',
  'Content-Encoding: gzip',
  'Trailer: Set-Cookie',
  'X-B: a\r\n folded',
  'X-C: a\rb',
  'X-D: a\0b',
  'X-E: \xff',
  'no colon here',
  ': empty',
  'X F: 1',
  'NEL: {}',
  'Refresh: 0',
  `X-Long: ${'x'.repeat(20_000)}`,
  'Date: never',
  'Vary: *',
  'Transfer-Encoding: gzip',
];

/** Bytes that an upstream might say: by a grammar, and then spoilt. */
export function upstreamAnswer(random: Random): { bytes: string; close: boolean } {
  const body = random.string(random.int(0, 200));
  const headers = Array.from({ length: random.int(0, 5) }, () => random.pick(HEADERS));
  const framing = random.int(0, 9);
  let payload = body;
  if (framing <= 4) headers.push(`Content-Length: ${String(body.length)}`);
  if (framing === 4) headers.push(`Content-Length: ${String(body.length + 1)}`);
  if (framing === 5)
    headers.push(
      `Content-Length: ${random.pick(['-1', '+5', '0x5', '99999999999999999999', '', '5, 5', String(body.length + 40)])}`,
    );
  if (framing >= 6 && framing <= 8) {
    headers.push('Transfer-Encoding: chunked');
    payload = `${body.length.toString(16)}\r\n${body}\r\n0\r\n${random.pick(['', 'X-T: 1\r\n', 'Set-Cookie: x=y\r\n'])}\r\n`;
    if (framing === 8)
      payload = random.pick([
        `g\r\n${body}`,
        `ffffffffffffffff\r\n${body}`,
        `-1\r\n${body}`,
        `5\n${body}`,
        `5;${'x'.repeat(30_000)}\r\n${body}`,
      ]);
  }
  let bytes = `${random.pick(LINES)}\r\n${headers.map((line) => `${line}\r\n`).join('')}\r\n${payload}`;
  if (random.chance(0.1))
    bytes = 'HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n'.repeat(random.pick([1, 9, 11, 200])) + bytes;
  if (random.chance(0.1)) bytes += 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nextra';
  for (let times = random.chance(0.4) ? random.int(1, 3) : 0; times > 0; times -= 1) {
    const at = random.int(0, bytes.length);
    const kind = random.int(0, 3);
    if (kind === 0) bytes = bytes.slice(0, at);
    else if (kind === 1)
      bytes =
        bytes.slice(0, at) + random.pick(['\r', '\n', '\0', '\r\n\r\n', ':', '\xff', ' ']) + bytes.slice(at);
    else if (kind === 2)
      bytes = bytes.slice(0, at) + String.fromCharCode(random.int(0, 255)) + bytes.slice(at + 1);
    else bytes = bytes.slice(0, at) + bytes.slice(at + random.int(1, 20));
  }
  return { bytes, close: random.chance(0.6) };
}

/** What was last said to a request of that name. */
const said = new Map<string, string>();

/** An upstream whose every answer to `/raw/…` is one of these. */
export async function startBabbler(answer: () => { bytes: string; close: boolean }): Promise<string> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    let head = '';
    socket.setEncoding('latin1');
    socket.on('error', () => undefined);
    socket.on('close', () => sockets.delete(socket));
    socket.on('data', (chunk: string) => {
      head += chunk;
      if (!head.includes('\r\n\r\n')) return;
      const tag = TAG.exec(head)?.[0];
      head = '';
      const { bytes, close } = answer();
      if (tag !== undefined) said.set(tag, bytes);
      socket.write(bytes, 'latin1');
      if (close) socket.end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closeLater(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return `http://127.0.0.1:${String((server.address() as AddressInfo).port)}`;
}

export interface AnswerRun {
  answers: number;
  findings: string[];
  statuses: Map<string, number>;
}

/**
 * Asks for one answer after another, each followed on its connection by a request to an upstream that answers with the name
 * it is given: nobody may get what is left of another's.
 */
export async function fuzzAnswers(options: {
  port: number;
  cookie: string;
  isOver: () => boolean;
  parallel: number;
}): Promise<AnswerRun> {
  const run: AnswerRun = { answers: 0, findings: [], statuses: new Map() };
  const ask = (path: string, tag: string): string =>
    `GET ${path}${tag} HTTP/1.1\r\nHost: app.example.test\r\nX-Forwarded-Proto: https\r\nCookie: ${options.cookie}\r\nX-CSRF: 1\r\nIdempotency-Key: ${tag}\r\n\r\n`;
  const lane = async (lane: number): Promise<void> => {
    for (let count = 0; !options.isOver(); count += 1) {
      const tag = tagOf(1_000_000_000 + lane * 10_000_000 + count);
      run.answers += 1;
      const { text, late } = await exchange(options.port, ask('/raw/', tag) + ask('/api/', tag), tag);
      const status = /^HTTP\/1\.1 (\d{3})/.exec(text)?.[1] ?? (text === '' ? 'none' : 'odd');
      run.statuses.set(status, (run.statuses.get(status) ?? 0) + 1);
      const wrong =
        (late && 'neither an answer nor an end') ||
        (status === '500' && 'an internal error') ||
        (status === 'odd' && 'no answer at all') ||
        (FORBIDDEN.test(head(text).replaceAll(/\nset-cookie: __Host-cloakroom[^\n]*Max-Age=0/gi, '')) &&
          'a header that must not pass');
      const others = [...text.matchAll(/up:(fz\d+x[0-9a-z]+z);/g)].filter(([, named]) => named !== tag);
      if (wrong)
        run.findings.push(
          `${wrong}: ${JSON.stringify(text.slice(0, 1500))} for ${JSON.stringify(said.get(tag))}`,
        );
      said.delete(tag);
      if (others.length > 0) run.findings.push("somebody else's answer");
    }
  };
  await Promise.all(Array.from({ length: options.parallel }, (_, index) => lane(index)));
  return run;
}

function exchange(port: number, bytes: string, tag: string): Promise<{ text: string; late: boolean }> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port, noDelay: true });
    let text = '';
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      socket.destroy();
    }, PATIENCE);
    socket.setEncoding('latin1');
    socket.on('connect', () => socket.write(bytes, 'latin1'));
    socket.on('data', (chunk: string) => {
      text += chunk;
      if (text.includes(`up:${tag};`)) socket.destroy();
    });
    socket.on('error', () => undefined);
    socket.on('close', () => {
      clearTimeout(timer);
      resolve({ text, late });
    });
  });
}
