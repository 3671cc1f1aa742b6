import type { Random } from '../random.js';

/** Somebody who is signed in, as the fuzzer needs to know them. */
export interface Somebody {
  /** Name and value, as in a `Cookie` header. */
  cookie: string;
  /** The subject that their access tokens belong to. */
  user: string;
  /** Since when they are signed out, by `performance.now()`. */
  endedAt?: number;
}

/** One request as it was sent. */
export interface Sent {
  tag: string;
  bytes: string;
  /** Neither its bytes nor its framing were spoilt: it ends where it seems to end. */
  whole: boolean;
  method: string;
  target: string;
  headers: readonly (readonly [string, string])[];
  body: string;
  /** Whether its body, if any, was sent by one of the two framings as the protocol wants it. */
  isUpgrade: boolean;
}

export const TAG = /fz\d+x[0-9a-z]+z/;

/** A name for each request that a changed byte does not turn into that of another. */
export function tagOf(number: number): string {
  const mixed = (Math.imul(number ^ 0x5bd1e995, 0x9e3779b1) >>> 0).toString(36);
  return `fz${String(number)}x${mixed}z`;
}

export function isTag(text: string): boolean {
  const number = /^fz(\d+)x/.exec(text)?.[1];
  return number !== undefined && tagOf(Number(number)) === text;
}

const METHODS = ['GET', 'GET', 'GET', 'POST', 'POST', 'PUT', 'PATCH', 'DELETE', 'HEAD', 'OPTIONS'];
const ODD_METHODS = [
  'TRACE',
  'CONNECT',
  'PROPFIND',
  'get',
  'GE T',
  '',
  'PRI',
  'GET\t',
  'POST\0',
  'M-SEARCH',
  'X'.repeat(300),
];
const PREFIXES = ['/api/', '/api/', '/api/', '/api/public/', '/media/', '/open/', '/maybe/', '/ws/'];
const ODD_PREFIXES = [
  ...[
    '/',
    '/apiadmin/',
    '/API/',
    '/api',
    '//api/',
    '/api;x/',
    '/inner/',
    '/admin/',
    '/api/../inner/',
    '/%61pi/',
    '/api%2f',
  ],
  ...[
    '/open/../api/',
    '/open/%2e%2e/api/',
    '/api/public/../',
    '/api/public/%2E%2E/',
    '/api/public/..;/',
    '/api\\',
    '/./api/',
  ],
  ...[
    'http://evil.example/api/',
    'https://app.example.test/api/',
    'HTTPS://APP.EXAMPLE.TEST/api/',
    '*',
    'api/',
    '@evil/api/',
  ],
];
const SEGMENTS = [
  ...[
    'a',
    'orders',
    '7',
    'x.css',
    'a-b_c~d',
    'a;b=c',
    'a,b',
    "it's",
    '%20',
    '%C3%A9',
    '%c3%a9',
    '%41',
    '%7e',
    'a%2Cb',
  ],
  ...[
    '..',
    '.',
    '%2e%2e',
    '%2E',
    '.%2e',
    '..%2f',
    '..%5c',
    '%5c..',
    '..\\',
    '%252e%252e',
    '%25%32%65',
    '%%',
    '%',
    '%4',
    '%zz',
  ],
  ...[
    '%00',
    '%0d%0a',
    '%0dX-CSRF:%201',
    '',
    '',
    '..;x',
    '.;',
    '%2e%2e;',
    '%c0%ae%c0%ae',
    '%c0%af',
    '%e0%80%af',
    '%ff',
    '\u00e9',
    '\0',
    '#',
    '\t',
    '\x7f',
    '%7F',
    '%2F',
    '%3B',
    '....',
    '..a',
  ],
];
const QUERIES = [
  '',
  '',
  '?',
  '?a=1&b=2',
  '?q=%2e%2e%2f',
  '?x=#y',
  '?"',
  '?a=\\',
  '?%',
  '?%00',
  '?a=\u00e9',
  '?u=http://evil.example/',
  '??',
  '?a=..%2F..',
];
const HOSTS = [
  'app.example.test',
  'app.example.test',
  'app.example.test',
  'evil.example',
  '127.0.0.1',
  '',
  'a b',
  'app.example.test:443',
  'app.example.test, evil',
];
const ORIGINS = [
  'https://app.example.test',
  'https://app.example.test',
  'https://evil.example',
  'null',
  'http://app.example.test',
  'https://app.example.test.evil.example',
  'https://app.example.test ',
  '',
];
const SITES = ['same-origin', 'same-origin', 'same-site', 'cross-site', 'none', 'SAME-ORIGIN', ''];
const PLAIN_HEADERS: readonly (readonly [string, string])[] = [
  ...([
    ['Accept', '*/*'],
    ['Accept-Language', 'de, en;q=0.5'],
    ['User-Agent', 'fuzz'],
    ['If-None-Match', '"x"'],
    ['Range', 'bytes=0-3'],
  ] as const),
  ...([
    ['Priority', 'u=1'],
    ['traceparent', '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'],
    ['Last-Event-ID', '7'],
    ['X-Tenant', 'acme'],
  ] as const),
];
const ODD_HEADERS: readonly (readonly [string, string])[] = [
  ...([
    ['X-Forwarded-For', '6.6.6.6'],
    ['X_Forwarded_For', '6.6.6.6'],
    ['Forwarded', 'for=6.6.6.6'],
    ['X-Forwarded-Host', 'evil'],
    ['X-Real-IP', '6.6.6.6'],
  ] as const),
  ...([
    ['X-User-Id', 'root'],
    ['X-Original-URL', '/admin'],
    ['X-Rewrite-URL', '/admin'],
    ['X-HTTP-Method-Override', 'DELETE'],
    ['X-Request-Id', 'mine'],
  ] as const),
  ...([
    ['Authorization', 'Bearer stolen'],
    ['Proxy-Authorization', 'Basic eDp5'],
    ['authorization', 'Basic eDp5'],
    ['AUTHORIZATION', ''],
    ['Cookie2', '$Version=1'],
  ] as const),
  ...([
    ['Connection', 'close'],
    ['Connection', 'keep-alive, Authorization, Cookie, X-Forwarded-For'],
    ['Connection', 'upgrade'],
    ['Keep-Alive', 'timeout=9999'],
  ] as const),
  ...([
    ['TE', 'trailers, gzip'],
    ['Trailer', 'X-CSRF'],
    ['Upgrade', 'h2c'],
    ['HTTP2-Settings', 'AAMAAABkAARAAAAAAAIAAAAA'],
    ['Expect', '100-continue'],
  ] as const),
  ...([
    ['Expect', '200-ok'],
    ['Via', '1.1 x'],
    ['Max-Forwards', '0'],
    ['X-CSRF', '1'],
    ['X-CSRF', '0'],
    ['x_csrf', '1'],
    ['X-CSRF ', '1'],
    [' X-CSRF', '1'],
  ] as const),
  ...([
    ['Content-Type', 'application/x-www-form-urlencoded'],
    ['Host', 'evil.example'],
    ['Content-Length', '0'],
    ['Content-Length', '+1'],
    ['Content-Length', '1, 1'],
  ] as const),
  ...([
    ['Transfer-Encoding', 'chunked'],
    ['Transfer-Encoding', 'gzip, chunked'],
    ['Transfer-Encoding', 'identity'],
    ['Transfer-Encoding ', 'chunked'],
  ] as const),
  ...([
    ['X-A', 'a\r\n b'],
    ['X-B', 'a\nX-CSRF: 1'],
    ['X-C', 'a\rb'],
    ['X-D', 'a\0b'],
    ['X-E', '\u00ff\u00fe'],
    ['X-Long', 'x'.repeat(9000)],
    ['X-Longer', 'x'.repeat(20_000)],
  ] as const),
  ...([
    ['Origin', 'https://evil.example'],
    ['Sec-Fetch-Site', 'cross-site'],
    ['Sec-Fetch-Mode', 'navigate'],
    ['Access-Control-Request-Method', 'PUT'],
  ] as const),
  ...([
    ['constructor', 'x'],
    ['__proto__', 'x'],
    ['', 'x'],
    [':path', '/admin'],
    ['Referer', 'https://evil.example/'],
  ] as const),
];
const FOREIGN_COOKIES = [
  'theme=dark',
  'other=1',
  'theme="d;rk"',
  '__Host-cloakroom=',
  '=x',
  '$Version=1',
  'theme=a=b',
  '\u00a0x=1',
  ';;;',
  'a'.repeat(4000),
];

interface Draft {
  method: string;
  target: string;
  headers: [string, string][];
  body: string;
}

/** Requests by a grammar that knows how each part may be wrong; the same seed gives the same ones, cookies aside. */
export class RequestFuzzer {
  #count = 0;
  private readonly random: Random;
  private readonly people: () => readonly Somebody[];

  constructor(random: Random, people: () => readonly Somebody[]) {
    this.random = random;
    this.people = people;
  }

  /** @param spoils whether its end may be anywhere; what follows it on its connection would then have no meaning */
  next(spoils: boolean): Sent {
    const { random } = this;
    const tag = tagOf((this.#count += 1));
    // A connection ends with the first request that is malformed: most that are followed by others are not.
    const draft = random.chance(0.15)
      ? this.#endpoint(tag)
      : this.#call(tag, random.chance(spoils ? 0.2 : 0.9));
    const isUpgrade = draft.headers.some(([name]) => name.toLowerCase() === 'upgrade');
    const whole = !spoils || random.chance(0.4);
    if (whole) this.#frame(draft);
    else this.#misframe(draft, tag);
    const version =
      whole || random.chance(0.7)
        ? 'HTTP/1.1'
        : random.pick(['HTTP/1.0', 'HTTP/1.2', 'HTTP/2.0', 'HTTP/0.9', 'http/1.1', '']);
    const lines = draft.headers.map(([name, value]) => `${name}: ${value}\r\n`).join('');
    let bytes = `${draft.method} ${draft.target} ${version}\r\n${lines}\r\n${draft.body}`;
    if (!whole && random.chance(0.6)) bytes = this.#mutate(bytes);
    return { ...draft, tag, bytes, whole: whole && isSound(draft), isUpgrade };
  }

  /** A call through a route. @param good with everything that it needs */
  #call(tag: string, good: boolean): Draft {
    const { random } = this;
    const method = good || random.chance(0.93) ? random.pick(METHODS) : random.pick(ODD_METHODS);
    const prefix = good || random.chance(0.8) ? random.pick(PREFIXES) : random.pick(ODD_PREFIXES);
    const tail = Array.from({ length: random.int(0, 3) }, () =>
      good || random.chance(0.6) ? SEGMENTS[random.int(0, 6)] : random.pick(SEGMENTS),
    );
    const query = good ? random.pick(['', '?a=1', '?x=%2e']) : random.pick(QUERIES);
    const before = !good && random.chance(0.15) ? `${random.pick(SEGMENTS)}/` : '';
    const target = `${prefix}${before}${tag}${tail.map((segment) => `/${segment ?? ''}`).join('')}${query}`;
    const headers = this.#usual(good);
    headers.push(['Idempotency-Key', tag]);
    if (prefix === '/ws/' && random.chance(0.7)) headers.push(...this.#handshake());
    const extra = random.int(0, 3);
    for (let i = 0; i < extra; i += 1) {
      const [name, value] =
        good || random.chance(0.4) ? random.pick(PLAIN_HEADERS) : random.pick(ODD_HEADERS);
      headers.push([name, value]);
    }
    if (!good && random.chance(0.01)) for (let i = 0; i < 250; i += 1) headers.push([`X-N${String(i)}`, '1']);
    const hasBody = ['POST', 'PUT', 'PATCH'].includes(method) ? random.chance(0.8) : random.chance(0.04);
    const body = hasBody
      ? random.pick(['{}', 'x', `{"tag":"${tag}"}`, random.string(random.int(1, 3000))])
      : '';
    return { method, target, headers: random.chance(0.3) ? random.shuffle(headers) : headers, body };
  }

  /** Host, cookies, and the proof of where it comes from. */
  #usual(good: boolean): [string, string][] {
    const { random } = this;
    const sloppy = (chance: number): boolean => !good && random.chance(chance);
    const headers: [string, string][] = [];
    if (!sloppy(0.03)) headers.push(['Host', sloppy(0.15) ? random.pick(HOSTS) : 'app.example.test']);
    if (!sloppy(0.01))
      headers.push([
        'X-Forwarded-Proto',
        sloppy(0.03) ? random.pick(['http', 'ftp', 'https, http', '']) : 'https',
      ]);
    const cookies = this.#cookies(good);
    if (cookies.length > 0) headers.push(['Cookie', cookies.join(random.chance(0.95) ? '; ' : ';')]);
    if (sloppy(0.05)) headers.push(['Cookie', random.pick(FOREIGN_COOKIES)]);
    if (!sloppy(0.25))
      headers.push(['X-CSRF', sloppy(0.05) ? random.pick(['0', 'true', '1, 1', '', '11']) : '1']);
    if (!sloppy(0.3))
      headers.push(['Origin', sloppy(0.25) ? random.pick(ORIGINS) : 'https://app.example.test']);
    if (random.chance(0.3)) headers.push(['Sec-Fetch-Site', good ? 'same-origin' : random.pick(SITES)]);
    return headers;
  }

  #cookies(good: boolean): string[] {
    const { random } = this;
    const people = this.people();
    const ours = people.length === 0 ? '__Host-cloakroom=none' : random.pick(people).cookie;
    if (good) return [ours];
    const cookies: string[] = [];
    const kind = random.next();
    if (kind < 0.45) cookies.push(ours);
    else if (kind < 0.55) cookies.push(flip(ours, random));
    else if (kind < 0.6) cookies.push(ours.slice(0, random.int(3, ours.length - 1)));
    else if (kind < 0.65)
      cookies.push(`${ours.slice(0, ours.indexOf('=') + 1)}s%3A${random.string(43)}.${random.string(43)}`);
    else if (kind < 0.7 && people.length > 0) cookies.push(ours, random.pick(people).cookie);
    else if (kind < 0.75) cookies.push(ours, flip(ours, random));
    else if (kind < 0.78) cookies.push(ours.toLowerCase());
    while (random.chance(0.3)) cookies.splice(random.int(0, cookies.length), 0, random.pick(FOREIGN_COOKIES));
    return cookies;
  }

  #handshake(): [string, string][] {
    const { random } = this;
    return [
      ['Connection', random.pick(['Upgrade', 'keep-alive, Upgrade', 'Upgrade', 'close'])],
      ['Upgrade', random.pick(['websocket', 'websocket', 'WebSocket', 'websocket, h2c', 'h2c'])],
      ['Sec-WebSocket-Version', random.pick(['13', '13', '13', '8', '', '13, 8'])],
      [
        'Sec-WebSocket-Key',
        random.pick(['dGhlIHNhbXBsZSBub25jZQ==', 'dGhlIHNhbXBsZSBub25jZQ==', 'short', '', 'x'.repeat(100)]),
      ],
      ...(random.chance(0.2) ? ([['Sec-WebSocket-Protocol', 'chat']] as [string, string][]) : []),
      ...(random.chance(0.2)
        ? ([['Sec-WebSocket-Extensions', 'permessage-deflate; x=\u00ff']] as [string, string][])
        : []),
    ];
  }

  /** Our own endpoints, with whatever can be said to them. */
  #endpoint(tag: string): Draft {
    const { random } = this;
    const value = (): string =>
      random.pick([
        ...[
          '',
          '/',
          'x',
          '%00',
          '%0d%0aSet-Cookie:a=b',
          '//evil.example',
          'https://evil.example',
          '%',
          '..%2f',
          '1',
          'none',
          'login',
          '\u00e9',
        ],
        ...[
          'true',
          'a'.repeat(3000),
          '[object%20Object]',
          '__proto__',
          '-1',
          '9'.repeat(30),
          tag,
          random.string(43),
          '{}',
          '%F0%9F%92%A9',
          '%ff',
        ],
      ]);
    const names = [
      'returnTo',
      'provider',
      'prompt',
      'login_hint',
      'acr_values',
      'max_age',
      'ui_locales',
      'restart',
      'code',
      'state',
      'iss',
      'error',
      'token',
      'sid',
      'slide',
      'everywhere',
      'limit',
      'cursor',
      'session_state',
      'id',
      '__proto__',
      'returnTo[]',
      'logout_token',
      '',
    ];
    const parameters = Array.from(
      { length: random.int(0, 5) },
      () => `${random.pick(names)}=${value()}`,
    ).join('&');
    const [method, path] = random.pick([
      ...([
        ['GET', '/auth/login'],
        ['GET', '/auth/callback'],
        ['POST', '/auth/callback'],
        ['GET', '/auth/me'],
        ['GET', '/auth/sessions'],
      ] as const),
      ...([
        ['DELETE', `/auth/sessions/${random.string(22)}`],
        ['GET', '/auth/logout'],
        ['POST', '/auth/logout'],
        ['GET', '/auth/frontchannel-logout'],
      ] as const),
      ...([
        ['POST', '/auth/backchannel-logout'],
        ['POST', '/auth/backchannel-logout/main'],
        ['GET', '/livez'],
        ['GET', '/readyz'],
        ['GET', '/auth/nothing'],
      ] as const),
      ...([
        ['GET', '/auth/../api/x'],
        ['GET', '/auth/events'],
        ['POST', '/auth/me'],
        ['GET', '/AUTH/login'],
        ['GET', '/auth/login/'],
        ['GET', '/auth%2flogin'],
      ] as const),
    ]);
    const headers = this.#usual(false);
    const isForm = method === 'POST' && random.chance(0.9);
    // Those that end a session with its own cookie are in the hands of the run, which has to know what it ended.
    const ends = /logout|sessions/.test(path);
    const kept = ends ? headers.filter(([name]) => name !== 'Cookie') : headers;
    if (isForm)
      kept.push([
        'Content-Type',
        random.pick([
          'application/x-www-form-urlencoded',
          'application/json',
          'text/plain',
          'multipart/form-data; boundary=x',
          'application/x-www-form-urlencoded; charset=\u00ff',
        ]),
      ]);
    const token = this.#jws();
    const body = isForm
      ? random.pick([
          parameters,
          `logout_token=${token}`,
          `logout_token=${token}&${parameters}`,
          '{"a":',
          '&'.repeat(2000),
          'a=1&'.repeat(900),
        ])
      : '';
    const query = parameters === '' || random.chance(0.2) ? '' : `?${parameters}`;
    return { method, target: path + query, headers: kept, body };
  }

  /** A logout token that nobody signed. */
  #jws(): string {
    const { random } = this;
    const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');
    const header = {
      alg: random.pick(['none', 'RS256', 'HS256', 'ES256', '', null]),
      typ: random.pick(['logout+jwt', 'JWT', 7]),
      kid: random.pick(['x', '../../x', null, {}]),
    };
    const claims = {
      iss: 'x',
      aud: random.pick(['x', [], null]),
      iat: random.pick([0, 1e99, 'x']),
      jti: random.string(8),
      sub: random.pick(['', 'a', 7]),
      sid: random.pick(['a', null]),
      events: random.pick([{}, { 'http://schemas.openid.net/event/backchannel-logout': {} }, [], 'x']),
      nonce: 'n',
    };
    return random.pick([
      `${part(header)}.${part(claims)}.${random.string(random.int(0, 80))}`,
      `${part(header)}.${part(claims)}.`,
      `${random.string(10)}.${random.string(10)}`,
      'e30.e30.e30',
      '..',
      part([]),
    ]);
  }

  /** Says how long the body is, by one of the two ways. */
  #frame(draft: Draft): void {
    const { random } = this;
    if (draft.body === '') return;
    if (random.chance(0.6)) {
      draft.headers.push(['Content-Length', String(Buffer.byteLength(draft.body, 'latin1'))]);
      return;
    }
    draft.headers.push(['Transfer-Encoding', 'chunked']);
    draft.body = chunked(draft.body, random);
  }

  /** Says it wrongly, with a request inside that must not be taken for one. */
  #misframe(draft: Draft, tag: string): void {
    const { random } = this;
    const inner = `GET /api/smuggled-${tag}/x HTTP/1.1\r\nHost: app.example.test\r\nX-Smuggled: 1\r\n\r\n`;
    if (random.chance(0.4)) {
      this.#frame(draft);
      return;
    }
    const body = random.pick([
      inner,
      `0\r\n\r\n${inner}`,
      `5\r\nhello\r\n0\r\n\r\n${inner}`,
      `1;x=\n${inner}`,
      draft.body,
    ]);
    const length = random.pick([
      body.length,
      0,
      4,
      body.length + 50,
      -1,
      '0x10',
      `${String(body.length)} `,
      '1e3',
      '',
    ]);
    const coding = random.pick([
      'chunked',
      'Chunked',
      ' chunked',
      'chunked, identity',
      'x',
      'gzip, chunked',
      'chunked\x0b',
      '"chunked"',
    ]);
    if (random.chance(0.7)) draft.headers.push(['Content-Length', String(length)]);
    if (random.chance(0.2)) draft.headers.push(['Content-Length', String(body.length)]);
    if (random.chance(0.6)) draft.headers.push(['Transfer-Encoding', coding]);
    if (random.chance(0.1)) draft.headers.push(['Transfer-Encoding', 'chunked']);
    draft.body = body;
  }

  #mutate(bytes: string): string {
    const { random } = this;
    let out = bytes;
    for (let times = random.int(1, 4); times > 0; times -= 1) {
      const at = random.int(0, Math.max(0, out.length - 1));
      const odd = random.pick([
        '\r',
        '\n',
        '\r\n',
        '\0',
        ' ',
        '\t',
        ':',
        '%',
        '/',
        '\\',
        '\x0b',
        '\xa0',
        '\x80',
        '\xff',
        ';',
        '=',
        '"',
        ',',
        '\r\n\r\n',
        '0',
        '-',
      ]);
      const kind = random.int(0, 6);
      if (kind === 0) out = out.slice(0, at) + odd + out.slice(at);
      else if (kind === 1) out = out.slice(0, at) + odd + out.slice(at + 1);
      else if (kind === 2) out = out.slice(0, at) + out.slice(at + random.int(1, 8));
      else if (kind === 3)
        out =
          out.slice(0, at) +
          String.fromCharCode((out.charCodeAt(at) || 0) ^ (1 << random.int(0, 7))) +
          out.slice(at + 1);
      else if (kind === 4) out = out.slice(0, at);
      else if (kind === 5) out = out.slice(0, at) + out.slice(at, at + random.int(1, 40)) + out.slice(at);
      else out = out.replace(/\r\n/g, (end) => (random.chance(0.2) ? '\n' : end));
    }
    return out;
  }
}

function flip(text: string, random: Random): string {
  const at = random.int(text.indexOf('=') + 1, text.length - 1);
  const other = random.pick('abcXYZ019-_'.split('').filter((letter) => letter !== text[at]));
  return text.slice(0, at) + other + text.slice(at + 1);
}

function chunked(body: string, random: Random): string {
  let out = '';
  for (let at = 0; at < body.length;) {
    const size = random.int(1, Math.max(1, body.length - at));
    out += `${size.toString(16)}\r\n${body.slice(at, at + size)}\r\n`;
    at += size;
  }
  return `${out}0\r\n\r\n`;
}

/** Whether its lines are what they look like: nothing in them breaks a line or says anything about the framing twice. */
function isSound({ method, target, headers, body }: Draft): boolean {
  if (!/^[A-Z]{1,20}$/.test(method) || method === 'CONNECT' || method === 'PRI' || /[\s\0]/.test(target))
    return false;
  const framing = headers.filter(([name]) =>
    /^(?:content-length|transfer-encoding|expect|upgrade|connection)\s*$/i.test(name),
  );
  const own = framing.filter(
    ([name, value]) =>
      /^\d+$/.test(value) ||
      (name === 'Transfer-Encoding' && value === 'chunked' && body.endsWith('\r\n\r\n')),
  );
  if (own.length !== framing.length || own.length > 1) return false;
  return headers.every(
    ([name, value]) => /^[A-Za-z0-9_-]+$/.test(name) && !/[\r\n\0]/.test(value) && value.length < 5000,
  );
}
