import { expect } from '@jest/globals';
import { BrowserClient, type BrowserResponse } from '../test/support/browser-client.js';
import { startCloakroom, type Cloakroom } from '../test/support/cloakroom.js';
import { FRAMING_CASES, SMUGGLED } from '../test/support/framing-cases.js';
import { random } from '../test/support/random.js';
import { AMBIGUOUS, randomPath } from '../test/support/random-paths.js';
import { sendRaw } from '../test/support/raw.js';
import { scriptRequest, sessionPair } from '../test/support/script-request.js';
import { startRawUpstream, type RawRequest, type RawUpstream } from '../test/support/upstream.js';
import { nginxVersion, startNginx, type Nginx } from './nginx.js';
import { scenario } from './scenario.js';

const HOST = 'app.example.test';
const RANDOM_PATHS = 2000;
const PAIRS = 100;
const skipped = nginxVersion === undefined ? 'no nginx on PATH' : undefined;

interface Front {
  c: Cloakroom;
  upstream: RawUpstream;
  nginx: Nginx;
  /** Signed in through nginx; `port` is one of its two. */
  browser: (port: number) => BrowserClient;
  signIn: (user: string) => Promise<BrowserClient>;
}

async function startBehindNginx(answer: (request: RawRequest, user: string) => string): Promise<Front> {
  const upstream = await startRawUpstream();
  // One process: everybody's requests travel on the same connections, from nginx and to the upstream.
  const c = await startCloakroom({
    replicas: 1,
    tap: false,
    upstream,
    config: {
      routes: [
        { path: '/api/', upstream: upstream.url },
        { path: '/pub/', upstream: upstream.url, cache: 'upstream' },
      ],
    },
  });
  upstream.handler = (request) => {
    const bearer = /^Bearer (.+)$/.exec(request.header('authorization') ?? '')?.[1] ?? '';
    return answer(request, c.provider.ledger.validAccessToken(bearer)?.sub ?? 'nobody');
  };
  const nginx = await startNginx(HOST, c.first.port);
  const browser = (port: number): BrowserClient =>
    new BrowserClient({ publicUrl: c.publicUrl, replicas: () => [`http://127.0.0.1:${String(port)}`] });
  return {
    c,
    upstream,
    nginx,
    browser,
    signIn: async (user) => {
      const client = browser(nginx.asItCame);
      const answered = await client.login({ as: user });
      if (answered.status !== 303 || client.sessionCookie === undefined)
        throw new Error(`login through nginx: ${String(answered.status)} ${answered.text}`);
      return client;
    },
  };
}

const echo = ({ requestLine, method }: RawRequest): string =>
  `HTTP/1.1 200 OK\r\nContent-Length: ${String(requestLine.length)}\r\n\r\n${method === 'HEAD' ? '' : requestLine}`;

/** What an upstream could take for another path than the one that was authorised. */
/** Tricks with paths: dot segments, separators, escapes, doubled and broken ones, in every place. */
function pathTricks(): string[] {
  const dots = [
    '..',
    '.',
    '%2e%2e',
    '%2E%2E',
    '.%2e',
    '%2e.',
    '%2e',
    '..;',
    '.;x',
    '..;a=b',
    '%2e%2e;',
    '..%3b',
  ];
  const ends = ['', '/', '/admin', '/x/y?z', '//'];
  const characters = ['%2f', '%2F', '%5c', '%5C', '%00', '%0a', '%0D', '%09', '%7f', '%1b', '\\', '\\..\\'];
  const doubled = ['%252e', '%252e%252e', '%252f', '%255c', '%2500', '%25%32%65', '%25252e', '%%32%65'];
  const broken = ['%', '%2', '%zz', '%%', '%%0000', '%u002e', '%x41', '%c0%af', '%c0%ae', '%e0%80%af', '%fe'];
  return [
    ...dots.flatMap((dot) => ends.map((end) => `/api/${dot}${end}`)),
    ...dots.flatMap((dot) => [`/api/x/${dot}/y`, `/api/${dot}/${dot}/auth/me`]),
    ...characters.flatMap((one) => [`/api/${one}x`, `/api/..${one}x`, `/api/x${one}`, `/api/x/${one}/..`]),
    ...[...doubled, ...broken].flatMap((one) => [`/api/${one}/x`, `/api/x${one}y`]),
    ...['/api/\u00e9', '/api/\u00c0\u00af', '/api/<script>', '/api/"', '/api/{x}', '/api/a|b', '/api/^'],
    ...['/api/x#y', '/api/#/../admin', '/api/x?a#b', '/%2e%2e/api/x', '/x/../api/y', '/./api/x', '/api/.'],
    ...[
      '/api',
      '/apiadmin',
      '/api;x',
      '/API/x',
      '/api.',
      '/api%20/x',
      '/api%2fx',
      '//api/x',
      '/api//x',
      '///',
    ],
    ...[
      '//evil.example/api/x',
      `https://${HOST}/api/x`,
      'http://evil.example/api/x',
      '/pub/../api/x',
      '/api/%61',
    ],
  ];
}

scenario(
  'A-083',
  'behind nginx: whatever is sent, the upstream sees the canonical path or nothing, nothing is smuggled, nobody gets an answer of somebody else',
  10,
  async (say) => {
    const { upstream, nginx, signIn } = await startBehindNginx(echo);
    say(`nginx ${nginxVersion ?? ''} ends TLS and keeps connections to one replica`);
    const attacker = await signIn('alice');
    const victim = await signIn('bob');

    const draw = random('behind nginx');
    const paths = pathTricks();
    for (let n = 0; n < RANDOM_PATHS; n += 1) {
      paths.push(randomPath(draw, ['/api/', '/pub/', '/api', '/']));
    }
    for (const [what, port] of [
      ['passed on as it came', nginx.asItCame],
      ['put in order by nginx', nginx.normalised],
    ] as const) {
      upstream.clear();
      const statuses: Record<string, number> = {};
      for (const target of paths) {
        const { responses } = await sendRaw(port, scriptRequest(attacker, { target }), {
          answers: 1,
          timeout: 5000,
        });
        const status = String(responses[0]?.status ?? 'closed');
        statuses[status] = (statuses[status] ?? 0) + 1;
      }
      const arrived = upstream.requests.map(({ target }) => target.split('?')[0] ?? '');
      const wrong = arrived.filter((path) => !/^\/(api|pub)\//.test(path) || AMBIGUOUS.test(path));
      say(
        `${String(paths.length)} paths, ${what}: ${JSON.stringify(statuses)}; ${String(arrived.length)} reached the upstream`,
      );
      expect(wrong).toEqual([]);
      expect(Object.keys(statuses).filter((status) => Number(status) >= 500)).toEqual([]);
      expect(arrived.length).toBeGreaterThan(50);
    }

    const usual = `Host: ${HOST}\r\nCookie: ${sessionPair(attacker)}\r\nX-CSRF: 1\r\nOrigin: https://${HOST}\r\n`;
    let served = 0;
    let marker = 0;
    const victimUnharmed = async (): Promise<void> => {
      marker += 1;
      const target = `/api/marker?${String(marker)}`;
      const { responses } = await sendRaw(nginx.asItCame, scriptRequest(victim, { target }), { answers: 1 });
      expect([responses[0]?.status, responses[0]?.body.toString()]).toEqual([200, `GET ${target} HTTP/1.1`]);
    };
    for (const one of FRAMING_CASES) {
      upstream.clear();
      const bytes = one.bytes(usual);
      await Promise.all([
        sendRaw(nginx.asItCame, bytes + scriptRequest(attacker, { target: '/api/marker?pipelined' }), {
          timeout: 1500,
          answers: 2,
          head: bytes.startsWith('HEAD'),
        }),
        victimUnharmed(),
      ]);
      await victimUnharmed();
      const arrived = upstream.requests.filter(({ target }) => !target.startsWith('/api/marker'));
      served += arrived.length;
      expect([one.name, arrived.length <= 1]).toEqual([one.name, true]);
      for (const request of arrived) {
        const framing = request.headers.filter(([name]) =>
          /^(content-length|transfer-encoding)$/i.test(name),
        );
        expect([one.name, request.target, framing.length <= 1]).toEqual([one.name, '/api/x', true]);
        expect(request.headers.filter(([name]) => /^(x-evil|cookie|expect|upgrade)$/i.test(name))).toEqual(
          [],
        );
      }
      const seen = upstream.requests.map(({ head }) => head).join('\n');
      expect([one.name, seen.includes('/api/smuggled') || seen.includes('X-Evil')]).toEqual([
        one.name,
        false,
      ]);
    }
    say(
      `${String(FRAMING_CASES.length)} framings: ${String(served)} arrived as one well-formed request, the others not at all; ${String(marker)} answers to the other person were that person's`,
    );
    expect(SMUGGLED).toContain('/api/smuggled');
  },
  skipped,
);

scenario(
  'A-092',
  'behind an nginx that stores what it may: an answer of one person is never given to another',
  5,
  async (say) => {
    // An API that would have everything stored, in every way that nginx knows.
    let extra: string[] = [];
    const { upstream, nginx, browser, signIn } = await startBehindNginx((request, user) => {
      const body = `${request.target} of ${user}`;
      const head = [
        'HTTP/1.1 200 OK',
        `Content-Length: ${String(body.length)}`,
        'Content-Type: text/css',
        ...extra,
      ];
      return `${head.join('\r\n')}\r\n\r\n${body}`;
    });
    const [alice, bob] = [await signIn('alice'), await signIn('bob')];
    const nobody = browser(nginx.asItCame);
    const ways: [string, string[]][] = [
      ['nothing', []],
      ['Cache-Control: public', ['Cache-Control: public, max-age=3600, s-maxage=3600']],
      ['Expires', [`Expires: ${new Date(Date.now() + 3_600_000).toUTCString()}`]],
      ['X-Accel-Expires', ['X-Accel-Expires: 3600']],
      ['ETag and Vary', ['Cache-Control: max-age=3600', 'ETag: "1"', 'Vary: Accept-Encoding']],
      ['Vary: *', ['Cache-Control: max-age=3600', 'Vary: *']],
      ['X-Accel-Redirect', ['X-Accel-Redirect: /livez', 'Cache-Control: max-age=3600']],
    ];
    const stored = (answer: BrowserResponse): boolean => answer.headers['x-stored'] === 'HIT';
    const paths = ['x', 'me/x.css', 'logo.png', 'x;a=b.js', 'x?v=1'];
    for (const prefix of ['/api/', '/pub/']) {
      for (const [what, headers] of ways) {
        extra = headers;
        let hits = 0;
        let own = 0;
        for (let round = 0; round < PAIRS; round += 1) {
          const path = `${prefix}${paths[round % paths.length] ?? ''}${round % 5 === 4 ? '&' : '?'}n=${String(Math.floor(round / 10))}&${what.replaceAll(/\W/g, '')}`;
          for (const [name, client] of [
            ['alice', alice],
            ['bob', bob],
          ] as const) {
            const answer = await client.api(path);
            expect([what, path, answer.status, answer.text]).toEqual([what, path, 200, `${path} of ${name}`]);
            if (stored(answer)) hits += 1;
            own += 1;
          }
          const anonymous = await nobody.api(path);
          expect([what, path, anonymous.status]).toEqual([what, path, 401]);
          if (round % 10 === 9) expect((await nobody.fetch(path)).status).toBe(403);
        }
        say(
          `${prefix} with ${what}: ${String(own)} answers, all the asker's own; ${String(hits)} came from nginx's store`,
        );
        // Only a route that opts out may be stored at all.
        if (prefix === '/api/') expect([what, hits]).toEqual([what, 0]);
      }
    }
    expect(upstream.requests.length).toBeGreaterThan(PAIRS);

    const others: BrowserResponse[] = [];
    for (let round = 0; round < 3; round += 1) {
      for (const client of [alice, bob, nobody]) {
        others.push(await client.me(), await client.navigate('/auth/login?returnTo=/x'));
        others.push(
          await client.navigate('/auth/callback?state=x&code=y'),
          await client.navigate('/nowhere'),
        );
      }
    }
    say(
      `${String(others.length)} answers under /auth/ and 404s: ${String(others.filter(stored).length)} came from nginx's store`,
    );
    expect(others.filter(stored).map(({ url }) => url)).toEqual([]);
    const locations = others.map(({ location }) => location).filter((location) => location !== undefined);
    expect(new Set(locations).size).toBe(locations.length);
  },
  skipped,
);
