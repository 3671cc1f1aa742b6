import { TAG, isTag, type Sent, type Somebody } from './requests.js';

/** A request as an upstream received it. */
export interface Received {
  method: string;
  url: string;
  rawHeaders: readonly string[];
  body: string;
  isUpgrade: boolean;
}

interface RouteRule {
  /** As the upstream sees it. */
  prefix: string;
  path: string;
  token: 'user' | 'none' | 'user-or-none';
  csrf: 'header' | 'origin';
  methods: readonly string[];
  cookies?: readonly string[];
  headers?: readonly string[];
  websocket?: boolean;
}

const ALL = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'];

/** What is configured, said once more in the words of the oracle. Longest prefixes first. */
export const RULES: readonly RouteRule[] = [
  { path: '/api/public/', prefix: '/api/public/', token: 'none', csrf: 'header', methods: ['GET'] },
  { path: '/media/', prefix: '/inner/', token: 'user', csrf: 'origin', methods: ['GET', 'HEAD', 'POST'] },
  { path: '/maybe/', prefix: '/maybe/', token: 'user-or-none', csrf: 'header', methods: ALL },
  {
    path: '/open/',
    prefix: '/open/',
    token: 'none',
    csrf: 'header',
    methods: ['GET', 'POST'],
    cookies: ['theme'],
    headers: ['x-tenant'],
  },
  { path: '/api/', prefix: '/api/', token: 'user', csrf: 'header', methods: ALL },
  { path: '/ws/', prefix: '/ws/', token: 'user', csrf: 'header', methods: ALL, websocket: true },
];

/** As the configuration says it. */
export function routesFor(upstream: string): Record<string, unknown>[] {
  return RULES.map(
    ({ path, prefix, token, csrf, methods, cookies = [], headers = [], websocket = false }) => ({
      ...{ path, token, csrf, methods, cookies, websocket },
      upstream: path === prefix ? upstream : upstream + prefix,
      headers: { requestAllow: headers },
    }),
  );
}

/** Requests. What is older cannot come any more. */
const REMEMBERED = 50_000;
const PUBLIC = 'https://app.example.test';

const STANDARD = new Set(
  (
    'accept accept-encoding accept-language baggage cache-control content-digest content-disposition content-encoding ' +
    'content-language content-length content-type idempotency-key if-match if-modified-since if-none-match if-range ' +
    'if-unmodified-since last-event-id pragma prefer priority range repr-digest te tracestate user-agent ' +
    'want-content-digest want-repr-digest'
  ).split(' '),
);
const OURS = [
  'host',
  'x-request-id',
  'x-forwarded-for',
  'x-forwarded-proto',
  'x-forwarded-host',
  'forwarded',
  'traceparent',
];
const PER_HOP = ['connection', 'transfer-encoding', 'authorization'];
const HANDSHAKE = [
  'origin',
  'upgrade',
  'sec-websocket-version',
  'sec-websocket-key',
  'sec-websocket-protocol',
  'sec-websocket-extensions',
];

/**
 * Says what may never reach an upstream. Written from the documents alone, without a line of the server, and it knows what
 * was sent: each request carries a name in its path and in a header.
 */
export class Oracle {
  readonly violations: string[] = [];
  received = 0;
  readonly #sent = new Map<string, Sent>();
  readonly #times = new Map<string, number>();
  readonly #sentAt = new Map<string, number>();

  constructor(
    private readonly parts: {
      /** Name and port of the upstream. */
      host: string;
      /** Whose access token that is. */
      owner: (token: string) => string | undefined;
      /** By subject. */
      somebody: (user: string) => Somebody | undefined;
    },
  ) {}

  sends(sent: Sent): void {
    this.#sent.set(sent.tag, sent);
    this.#sentAt.set(sent.tag, performance.now());
    if (this.#sent.size <= REMEMBERED) return;
    const [oldest] = this.#sent.keys();
    if (oldest === undefined) return;
    this.#sent.delete(oldest);
    this.#times.delete(oldest);
    this.#sentAt.delete(oldest);
  }

  /** @returns its name, where it has one */
  judge(received: Received): string | undefined {
    this.received += 1;
    const values = valuesOf(received.rawHeaders);
    const tag = [TAG.exec(received.url)?.[0] ?? '', ...(values.get('idempotency-key') ?? [])].find(isTag);
    const sent = tag === undefined ? undefined : this.#sent.get(tag);
    const wrong = this.#find(received, values, sent);
    if (wrong !== undefined) {
      const before =
        sent === undefined
          ? 'nothing known'
          : JSON.stringify(sent.bytes.slice(0, 2000)).replaceAll(/s%3A[^;"\\]+/g, '(cookie)');
      this.violations.push(`${wrong}: ${received.method} ${received.url.slice(0, 200)} after ${before}`);
    }
    return tag;
  }

  #find(
    received: Received,
    values: ReadonlyMap<string, string[]>,
    sent: Sent | undefined,
  ): string | undefined {
    const { method, url } = received;
    const path = url.includes('?') ? url.slice(0, url.indexOf('?')) : url;
    const rule = RULES.find(({ prefix }) => path.startsWith(prefix));
    if (rule === undefined) return 'outside the routes';
    if (url.includes('smuggled-') || values.has('x-smuggled')) return 'a request from inside a body';
    if (!rule.methods.includes(method)) return 'a method that the route does not have';
    if (received.isUpgrade && rule.websocket !== true) return 'a handshake where none is allowed';
    return (
      wrongPath(path, url) ??
      this.#wrongHeaders(received, rule, values) ??
      this.#wrongCaller(rule, values, sent) ??
      (sent === undefined ? undefined : this.#wrongOrigin(received, rule, sent))
    );
  }

  #wrongHeaders(
    { isUpgrade }: Received,
    rule: RouteRule,
    values: ReadonlyMap<string, string[]>,
  ): string | undefined {
    for (const name of values.keys()) {
      const may =
        STANDARD.has(name) ||
        OURS.includes(name) ||
        PER_HOP.includes(name) ||
        (isUpgrade && HANDSHAKE.includes(name)) ||
        rule.headers?.includes(name) === true ||
        (name === 'cookie' && rule.cookies !== undefined);
      if (!may) return `the header ${JSON.stringify(name)}`;
    }
    for (const name of [...OURS, 'authorization', 'content-length', 'transfer-encoding']) {
      const count = values.get(name)?.length ?? 0;
      if (count > 1 || (count === 0 && OURS.includes(name))) return `${name} ${String(count)} times`;
    }
    const one = (name: string): string => values.get(name)?.[0] ?? '';
    if (one('host') !== this.parts.host) return 'another Host';
    if (one('x-forwarded-proto') !== 'https' || one('x-forwarded-host') !== 'app.example.test')
      return 'another public address';
    if (!/^[0-9a-f.:]+$/i.test(one('x-forwarded-for'))) return 'an address that is none';
    if (!/^for=(?:[0-9.]+|"\[[0-9a-f:]+\]");proto=https;host="app\.example\.test"$/.test(one('forwarded'))) {
      return 'another way than it came';
    }
    if (!/^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/.test(one('traceparent'))) return 'a trace that is none';
    if (values.has('te') && one('te') !== 'trailers') return 'another wish than trailers';
    if (values.has('content-length') && values.has('transfer-encoding')) return 'both framings';
    if (values.has('transfer-encoding') && one('transfer-encoding') !== 'chunked') return 'another coding';
    for (const line of values.get('cookie') ?? []) {
      for (const pair of line.split(';'))
        if (!/^ ?theme=/.test(pair)) return `the cookie ${JSON.stringify(pair.slice(0, 20))}`;
    }
    for (const [name, list] of values)
      for (const value of list) if (/[\r\n\0]/.test(value)) return `a line break in ${name}`;
    return undefined;
  }

  /** Exactly one token where one belongs, of the one whose cookie came with that very request. */
  #wrongCaller(
    rule: RouteRule,
    values: ReadonlyMap<string, string[]>,
    sent: Sent | undefined,
  ): string | undefined {
    const [authorization] = values.get('authorization') ?? [];
    if (authorization === undefined) return rule.token === 'user' ? 'no token' : undefined;
    if (rule.token === 'none') return 'a token where none belongs';
    const user = /^Bearer (\S+)$/.exec(authorization)?.[1];
    const owner = user === undefined ? undefined : this.parts.owner(user);
    const somebody = owner === undefined ? undefined : this.parts.somebody(owner);
    if (somebody === undefined) return 'a token of nobody';
    // Its name was spoilt on the way out: whose cookie came with it is not known.
    if (sent === undefined) return undefined;
    if (!sent.bytes.includes(somebody.cookie)) return 'a token without its session';
    if ((this.#sentAt.get(sent.tag) ?? 0) > (somebody.endedAt ?? Infinity))
      return 'a token after the end of its session';
    return undefined;
  }

  #wrongOrigin(received: Received, rule: RouteRule, sent: Sent): string | undefined {
    const times = (this.#times.get(sent.tag) ?? 0) + 1;
    this.#times.set(sent.tag, times);
    if (times > 1) return 'the same request once more';
    const { isUpgrade } = received;
    if (!isUpgrade && rule.csrf === 'header' && !/x-csrf:[ \t]*1/i.test(sent.bytes))
      return 'no proof of its origin at all';
    if (!sent.whole) return undefined;
    const { headers, method } = sent;
    const of = (wanted: string): string[] =>
      headers.filter(([name]) => name.toLowerCase() === wanted).map(([, value]) => value.trim());
    const [origin] = of('origin');
    const [site] = of('sec-fetch-site');
    if (isUpgrade) return origin === PUBLIC ? undefined : 'a handshake of a foreign origin';
    if (origin !== undefined && origin !== PUBLIC) return 'a foreign origin';
    if (site === 'cross-site' || site === 'same-site') return 'a foreign site';
    const reads = method === 'GET' || method === 'HEAD';
    const says = origin === PUBLIC || site === 'same-origin';
    const byHeader = of('x-csrf')[0] === '1' && (reads || says);
    const byOrigin = rule.csrf === 'origin' && (reads ? says : origin === PUBLIC);
    if (!byHeader && !byOrigin) return 'no proof of its origin';
    if (method !== received.method) return 'another method';
    return wrongBody(sent, received);
  }
}

function valuesOf(rawHeaders: readonly string[]): Map<string, string[]> {
  const values = new Map<string, string[]>();
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = (rawHeaders[i] ?? '').toLowerCase();
    const list = values.get(name);
    if (list === undefined) values.set(name, [rawHeaders[i + 1] ?? '']);
    else list.push(rawHeaders[i + 1] ?? '');
  }
  return values;
}

/** One reading only, also for a server that decodes twice. */
function wrongPath(path: string, url: string): string | undefined {
  if (!/^[\x21-\x7e]+$/.test(url) || url.includes('#')) return 'bytes that a target may not have';
  if (path.includes('//')) return 'an empty segment';
  if (/%(?![0-9A-F]{2})/.test(path)) return 'an escape that is none, or in lower case';
  if (/%(?:2D|2E|5F|7E|3[0-9]|4[1-9A-F]|5[0-9A]|6[1-9A-F]|7[0-9A])/.test(path))
    return 'an escape without need';
  const decode = (text: string): string =>
    text.replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => String.fromCharCode(parseInt(hex, 16)));
  for (const segment of path.split('/')) {
    const once = decode(segment);
    for (const reading of [segment, once, decode(once)]) {
      if (/^\.\.?(?:;|$)/.test(reading)) return 'a dot segment';
      // eslint-disable-next-line no-control-regex -- these are what is looked for
      if (/[/\\\x00-\x1f\x7f]/.test(reading)) return 'an escaped separator or control character';
    }
  }
  return undefined;
}

function wrongBody(sent: Sent, { body }: Received): string | undefined {
  const isChunked = sent.headers.some(([name]) => name.toLowerCase() === 'transfer-encoding');
  const wanted = isChunked ? unchunk(sent.body) : sent.body;
  return body === wanted ? undefined : 'another body';
}

function unchunk(body: string): string {
  let out = '';
  for (let at = 0; ;) {
    const end = body.indexOf('\r\n', at);
    const size = parseInt(body.slice(at, end), 16);
    if (!(size > 0)) return out;
    out += body.slice(end + 2, end + 2 + size);
    at = end + 4 + size;
  }
}
