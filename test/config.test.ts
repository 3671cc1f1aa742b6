import { spawn } from 'node:child_process';
import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import {
  createServer as createTcpServer,
  type AddressInfo,
  type Server as TcpServer,
  type Socket,
} from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { stringify } from 'yaml';
import { formatFault, type Fault } from '../src/config/faults.js';
import { loadConfig } from '../src/config/load.js';
import type { Config } from '../src/config/config.js';
import { environmentName, settings } from '../src/config/settings.js';
import { selfSigned } from './support/certificate.js';

const COMMAND = fileURLToPath(new URL('../bin/cloakroom.js', import.meta.url));
const GENERATOR = fileURLToPath(new URL('../scripts/generate-docs.js', import.meta.url));
const EXAMPLE = fileURLToPath(new URL('../cloakroom.example.yaml', import.meta.url));

const folder = mkdtempSync(join(tmpdir(), 'cloakroom-config-'));
const newSecret = () => randomBytes(36).toString('base64');
const [cookieKey, sealKey, clientSecret] = [newSecret(), newSecret(), newSecret()];

beforeAll(() => {
  writeFileSync(join(folder, 'cookie'), `${cookieKey}\n`);
  writeFileSync(join(folder, 'seal'), `${sealKey}\r\n`);
  writeFileSync(join(folder, 'client'), clientSecret);
  writeFileSync(join(folder, 'same'), cookieKey);
  writeFileSync(join(folder, 'revocation'), newSecret());
  writeFileSync(join(folder, 'short'), 'too-short-by-far\n');
  writeFileSync(join(folder, 'placeholder'), 'change-me-change-me-change-me-change-me\n');
  writeFileSync(join(folder, 'repeated'), `${'swordfish'.repeat(6)}\n`);
  writeFileSync(join(folder, 'empty'), '\n');
  mkdirSync(join(folder, 'public'));
  for (const name of ['admin', 'other']) {
    const { cert, key } = selfSigned(['localhost']);
    writeFileSync(join(folder, `${name}-certificate.pem`), cert);
    writeFileSync(join(folder, `${name}-key.pem`), key);
  }
});

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

interface Faultless {
  [setting: string]: unknown;
  secrets: Record<string, unknown>;
  providers: { [name: string]: Record<string, unknown>; main: Record<string, unknown> };
  routes: Record<string, unknown>[];
}

const token = randomBytes(32).toString('base64url');
const sha256 = createHash('sha256').update(token).digest('hex');
const publicKey = String(generateKeyPairSync('x25519').publicKey.export({ format: 'jwk' }).x);
const TOKEN = { name: 'alice', role: 'end', sha256 };
const TLS = { certificate: 'admin-certificate.pem', key: 'admin-key.pem' };

/** A faultless file, as a tree to be spoilt. */
function faultless(): Faultless {
  return {
    publicUrl: 'https://app.example.com',
    store: { redis: { url: 'redis://127.0.0.1:6379' } },
    secrets: { cookie: [{ file: 'cookie' }], seal: [{ file: 'seal' }] },
    providers: {
      main: {
        issuer: 'https://id.example.com/realms/shop',
        clientId: 'shop',
        clientSecret: { file: 'client' },
      },
    },
    routes: [{ path: '/api/', upstream: 'http://orders:8080' }],
  };
}

function spoilt(spoil: (file: Faultless) => unknown): string {
  const file = faultless();
  return stringify(spoil(file) ?? file);
}

let files = 0;

function written(text: string): string {
  files += 1;
  const path = join(folder, `cloakroom-${files}.yaml`);
  writeFileSync(path, text);
  return path;
}

interface Outcome {
  code: number | null;
  stdout: string;
  stderr: string;
}

/** Runs a script of the repository with no environment but the given one. */
function run(script: string, args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<Outcome> {
  const child = spawn(process.execPath, [script, ...args], {
    env: { PATH: process.env['PATH'], ...env },
    cwd: folder,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => (stdout += chunk));
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => (stderr += chunk));
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => {
      resolve({ code, stdout, stderr });
    });
  });
}

function load(text: string | undefined, env: NodeJS.ProcessEnv = {}) {
  return loadConfig({ file: text === undefined ? undefined : written(text), env, cwd: folder });
}

function configOf(text: string | undefined, env: NodeJS.ProcessEnv = {}): Config {
  const loaded = load(text, env);
  if ('faults' in loaded) throw new Error(JSON.stringify(loaded.faults, null, 2));
  return loaded.config;
}

function faultsOf(text: string | undefined, env: NodeJS.ProcessEnv = {}): readonly Fault[] {
  const loaded = load(text, env);
  return 'faults' in loaded ? loaded.faults : [];
}

describe('A-112: start refuses unsafe production settings', () => {
  /** What is spoilt, how, and the one line that tells it, without the name of the file. */
  const cases: [string, (file: Faultless) => unknown, RegExp][] = [
    [
      'publicUrl on plain http',
      (f) => ((f['publicUrl'] = 'http://app.example.com'), f),
      /:1: publicUrl: .*is plain http; write https:\/\/app\.example\.com/,
    ],
    [
      'publicUrl with a path',
      (f) => ({ ...f, publicUrl: 'https://app.example.com/shop' }),
      /publicUrl: .*has a path; write https:\/\/app\.example\.com/,
    ],
    [
      'publicUrl that only looks like loopback',
      (f) => ({ ...f, publicUrl: 'http://localhost.example.com' }),
      /publicUrl: .*is plain http/,
    ],
    [
      'no publicUrl',
      (f) => ({ ...f, publicUrl: undefined }),
      /publicUrl: is missing; write publicUrl: https:\/\/app\.example\.com/,
    ],
    [
      'memory store in production',
      (f) => ({ ...f, store: 'memory' }),
      /store: memory keeps sessions in one process only.*singleProcess: true/,
    ],
    [
      'two stores',
      (f) => ({ ...f, store: { memory: { singleProcess: true }, redis: { url: 'redis://x' } } }),
      /store: must name exactly one store/,
    ],
    [
      'a Redis URL of another scheme',
      (f) => ({ ...f, store: { redis: { url: 'http://redis:6379' } } }),
      /store\.redis\.url: is not a Redis URL; write redis:\/\//,
    ],
    [
      'a Redis URL with options of the client library',
      (f) => ({ ...f, store: { redis: { url: 'rediss://redis:6380/0?rejectUnauthorized=false' } } }),
      /store\.redis\.url: is not a Redis URL/,
    ],
    [
      'an inline secret',
      (f) => ((f.secrets['cookie'] = [cookieKey]), f),
      /secrets\.cookie\[0\]: holds the secret itself; write \{ file: .* \} or \{ env: NAME \}/,
    ],
    [
      'an inline client secret',
      (f) => ((f.providers.main['clientSecret'] = clientSecret), f),
      /providers\.main\.clientSecret: holds the secret itself/,
    ],
    [
      'a secret shorter than 32 bytes',
      (f) => ((f.secrets['seal'] = [{ file: 'short' }]), f),
      /secrets\.seal\[0\]: has 16 bytes, fewer than 32; make a new one/,
    ],
    [
      'a secret from an example',
      (f) => ((f.secrets['seal'] = [{ file: 'placeholder' }]), f),
      /secrets\.seal\[0\]: is a placeholder/,
    ],
    [
      'a secret that repeats a word',
      (f) => ((f.secrets['seal'] = [{ file: 'repeated' }]), f),
      /secrets\.seal\[0\]: repeats one pattern/,
    ],
    [
      'one secret for two purposes',
      (f) => ((f.secrets['seal'] = [{ file: 'same' }]), f),
      /secrets\.seal\[0\]: holds the same secret as secrets\.cookie\[0\]/,
    ],
    [
      'a secret file that does not exist',
      (f) => ((f.secrets['seal'] = [{ file: 'nowhere' }]), f),
      /secrets\.seal\[0\]: names the file "nowhere", which does not exist/,
    ],
    [
      'a secret variable that is not set',
      (f) => ((f.secrets['seal'] = [{ env: 'NOT_SET' }]), f),
      /secrets\.seal\[0\]: names the environment variable NOT_SET, which is not set/,
    ],
    [
      'an empty secret',
      (f) => ((f.providers.main['clientSecret'] = { file: 'empty' }), f),
      /providers\.main\.clientSecret: is empty/,
    ],
    [
      'no secrets',
      (f) => ((f.secrets['cookie'] = []), f),
      /secrets\.cookie: is empty; write cookie: \[\{ file: /,
    ],
    [
      'an http issuer',
      (f) => ((f.providers.main['issuer'] = 'http://id.example.com'), f),
      /providers\.main\.issuer: .*is plain http/,
    ],
    [
      'an issuer with a password',
      (f) => ((f.providers.main['issuer'] = 'https://a:b@id.example.com'), f),
      /providers\.main\.issuer: has a user name or password in it/,
    ],
    [
      'a metadata address for an issuer',
      (f) => ((f.providers.main['issuer'] = 'https://id.example.com/.well-known/openid-configuration'), f),
      /issuer: is the address of a metadata document; write the issuer itself, "https:\/\/id\.example\.com"/,
    ],
    [
      'a public client',
      (f) => ((f.providers.main['clientAuth'] = 'none'), f),
      /providers\.main\.clientAuth: none would make this a public client; register a confidential client/,
    ],
    [
      'scopes without openid',
      (f) => ((f.providers.main['scopes'] = ['profile']), f),
      /providers\.main\.scopes: lacks openid; write \[openid, profile\]/,
    ],
    [
      'unsigned ID tokens',
      (f) => ((f.providers.main['idTokenAlgs'] = ['none']), f),
      /idTokenAlgs\[0\]: none is refused: it is no signature/,
    ],
    [
      'ID tokens signed by the client secret',
      (f) => ((f.providers.main['idTokenAlgs'] = ['HS256']), f),
      /idTokenAlgs\[0\]: HS256 is refused: the key would be the client secret/,
    ],
    [
      'a parameter that the flow sets itself',
      (f) => ((f.providers.main['authorizationParameters'] = { redirect_uri: 'https://evil.example' }), f),
      /authorizationParameters\.redirect_uri: is set by Cloakroom itself/,
    ],
    [
      'a clock tolerance of hours',
      (f) => ((f.providers.main['clockTolerance'] = '2h'), f),
      /clockTolerance: 2h is too long; write .* between 10s and 60s/,
    ],
    [
      'a duration without a unit',
      (f) => ((f.providers.main['timeout'] = 10), f),
      /timeout: is a number, not a duration; write a number and a unit/,
    ],
    [
      'an endpoint host with a scheme',
      (f) => ((f.providers.main['endpointHosts'] = ['https://login.example.com']), f),
      /endpointHosts\[0\]: .*is not a host name/,
    ],
    [
      'a provider name that is no name',
      (f) => ((f.providers['Main_IdP'] = { ...f.providers.main, clientId: 'other' }), f),
      /providers\.Main_IdP: "Main_IdP" cannot name a provider/,
    ],
    [
      'the same client twice',
      (f) => ((f.providers['other'] = { ...f.providers.main }), f),
      /providers\.other: has the issuer and the client id of providers\.main/,
    ],
    ['no provider', (f) => ({ ...f, providers: {} }), /providers: names no provider/],
    ['no route: nothing says what may be reached', (f) => ({ ...f, routes: [] }), /routes: is empty/],
    ['routes left out', (f) => ({ ...f, routes: undefined }), /routes: is missing/],
    [
      'an upstream with a password',
      (f) => ((f.routes[0] = { path: '/api/', upstream: 'http://a:b@orders' }), f),
      /routes\[0\]\.upstream: has a user name or password in it/,
    ],
    [
      'upstreams with different paths',
      (f) => ((f.routes[0] = { path: '/api/', upstream: ['http://a/v1/', 'http://b'] } as never), f),
      /routes\[0\]\.upstream: has "\/v1\/" in the first and no path in "http:\/\/b"; write the same path in all, such as "http:\/\/b\/v1\/"/,
    ],
    [
      'an upstream that is named twice',
      (f) => ((f.routes[0] = { path: '/api/', upstream: ['http://a', 'http://a:80'] } as never), f),
      /routes\[0\]\.upstream: names "http:\/\/a" twice; write each upstream once/,
    ],
    [
      'a fault in one of several upstreams',
      (f) => ((f.routes[0] = { path: '/api/', upstream: ['http://a', 'ftp://b'] } as never), f),
      /routes\[0\]\.upstream\[1\]: "ftp:\/\/b" is not an http or https URL/,
    ],
    [
      'no upstream at all',
      (f) => ((f.routes[0] = { path: '/api/', upstream: [] } as never), f),
      /routes\[0\]\.upstream: is empty; write upstream: http:\/\/orders:8080/,
    ],
    [
      'an upstream that is not http',
      (f) => ((f.routes[0] = { path: '/api/', upstream: 'file:///etc/' }), f),
      /routes\[0\]\.upstream: .*is not an http or https URL/,
    ],
    [
      'an upstream whose path is no folder',
      (f) => ((f.routes[0] = { path: '/api/', upstream: 'http://orders/v1' }), f),
      /routes\[0\]\.upstream: .*does not end with "\/"; write "http:\/\/orders\/v1\/"/,
    ],
    [
      'a route that covers the login',
      (f) => ((f.routes[0] = { path: '/', upstream: 'http://orders' }), f),
      /routes\[0\]\.path: "\/" would cover \/auth\//,
    ],
    [
      'a route under /auth/',
      (f) => ((f.routes[0] = { path: '/auth/x/', upstream: 'http://orders' }), f),
      /routes\[0\]\.path: .*lies under \/auth/,
    ],
    [
      'a route at /livez',
      (f) => ((f.routes[0] = { path: '/livez/', upstream: 'http://orders' }), f),
      /routes\[0\]\.path: .*lies under \/livez/,
    ],
    [
      'a route that is not canonical',
      (f) => ((f.routes[0] = { path: '/api//x/', upstream: 'http://orders' }), f),
      /routes\[0\]\.path: .*is not canonical/,
    ],
    [
      'a route with an escape',
      (f) => ((f.routes[0] = { path: '/api/%2e%2e/', upstream: 'http://orders' }), f),
      /routes\[0\]\.path: .*is not canonical/,
    ],
    [
      'a route without a final slash',
      (f) => ((f.routes[0] = { path: '/api', upstream: 'http://orders' }), f),
      /routes\[0\]\.path: .*write "\/api\/"/,
    ],
    [
      'one path twice',
      (f) => (f.routes.push({ path: '/api/', upstream: 'http://stock' }), f),
      /routes\[1\]\.path: "\/api\/" is also the path of routes\[0\]/,
    ],
    [
      'cookies of the browser for the upstream',
      (f) => ((f.routes[0] = { ...f.routes[0], headers: { requestAllow: ['Cookie'] } }), f),
      /requestAllow\[0\]: "Cookie" never passes/,
    ],
    [
      'an address that the browser may claim',
      (f) => ((f.routes[0] = { ...f.routes[0], headers: { requestAllow: ['X_Forwarded_For'] } }), f),
      /requestAllow\[0\]: "X_Forwarded_For" never passes/,
    ],
    [
      'all headers',
      (f) => ((f.routes[0] = { ...f.routes[0], headers: { requestAllow: ['*'] } }), f),
      /requestAllow\[0\]: "\*" is not the name of a header; .*no wildcards/,
    ],
    [
      'cross-origin permissions of the upstream',
      (f) => (
        (f.routes[0] = { ...f.routes[0], headers: { responseAllow: ['Access-Control-Allow-Origin'] } }),
        f
      ),
      /responseAllow\[0\]: "Access-Control-Allow-Origin" never passes/,
    ],
    [
      'pages that everybody may frame',
      (f) => ((f.routes[0] = { ...f.routes[0], headers: { security: { frameAncestors: '*' } } }), f),
      /routes\[0\]\.headers\.security\.frameAncestors: "\*" is not one of none, self/,
    ],
    [
      'pages that tell everybody where they are',
      (f) => ((f.routes[0] = { ...f.routes[0], headers: { security: { referrerPolicy: 'unsafe-url' } } }), f),
      /routes\[0\]\.headers\.security\.referrerPolicy: "unsafe-url" is not one of no-referrer, same-origin/,
    ],
    [
      'a security header that is not for a route to say',
      (f) => ((f.routes[0] = { ...f.routes[0], headers: { security: { hsts: false } } }), f),
      /routes\[0\]\.headers\.security/,
    ],
    [
      'a handshake header as a response header',
      (f) => ((f.routes[0] = { ...f.routes[0], headers: { responseAllow: ['Sec-WebSocket-Accept'] } }), f),
      /responseAllow\[0\]: "Sec-WebSocket-Accept" never passes/,
    ],
    [
      'a handshake header as a request header',
      (f) => ((f.routes[0] = { ...f.routes[0], headers: { requestAllow: ['Sec-WebSocket-Accept'] } }), f),
      /requestAllow\[0\]: "Sec-WebSocket-Accept" never passes/,
    ],
    [
      'our session cookie for the upstream',
      (f) => ((f.routes[0] = { ...f.routes[0], cookies: ['__Host-cloakroom-session'] }), f),
      /cookies\[0\]: .*is a cookie of Cloakroom itself/,
    ],
    [
      'wildcard CORS',
      (f) => ({ ...f, cors: '*' }),
      /cors: is text, not a block of settings; write cors: \{ origins: … \}/,
    ],
    [
      'a route without methods',
      (f) => ((f.routes[0] = { ...f.routes[0], methods: [] }), f),
      /routes\[0\]\.methods: is empty; write methods: \[GET, POST\]/,
    ],
    [
      'a method that never passes',
      (f) => ((f.routes[0] = { ...f.routes[0], methods: ['GET', 'TRACE'] }), f),
      /routes\[0\]\.methods\[1\]: TRACE never passes; write some of GET/,
    ],
    [
      'a method in lower case',
      (f) => ((f.routes[0] = { ...f.routes[0], methods: ['get'] }), f),
      /routes\[0\]\.methods\[0\]: "get" is not one of GET, .*; did you mean GET\?/,
    ],
    [
      'a method named twice',
      (f) => ((f.routes[0] = { ...f.routes[0], methods: ['GET', 'POST', 'GET'] }), f),
      /routes\[0\]\.methods: names GET twice; write each method once/,
    ],
    [
      'one method that is no list',
      (f) => ((f.routes[0] = { ...f.routes[0], methods: 'GET' }), f),
      /routes\[0\]\.methods: is text, not a list; write methods: \[GET, POST\]/,
    ],
    [
      'a token that is none of the three',
      (f) => ((f.routes[0] = { ...f.routes[0], token: 'anonymous' }), f),
      /routes\[0\]\.token: "anonymous" is not one of user, none, user-or-none/,
    ],
    [
      'no CSRF check at all',
      (f) => ((f.routes[0] = { ...f.routes[0], csrf: 'off' }), f),
      /routes\[0\]\.csrf: "off" is not one of header, origin/,
    ],
    [
      'CSRF switched off by a word',
      (f) => ((f.routes[0] = { ...f.routes[0], csrf: false }), f),
      /routes\[0\]\.csrf: false is not one of header, origin/,
    ],
    [
      'a body size without a unit',
      (f) => ((f.routes[0] = { ...f.routes[0], limits: { requestBody: 1000000 } }), f),
      /limits\.requestBody: is a number, not a size; write a number and a unit/,
    ],
    [
      'a body size that is none',
      (f) => ((f.routes[0] = { ...f.routes[0], limits: { requestBody: '10MB' } }), f),
      /limits\.requestBody: "10MB" is not a size; write a whole number and a unit \(B, KiB/,
    ],
    [
      'a body size nobody has',
      (f) => ((f.routes[0] = { ...f.routes[0], limits: { requestBody: '9999GiB' } }), f),
      /limits\.requestBody: 9999GiB is too large/,
    ],
    [
      'nobody at a time',
      (f) => ((f.routes[0] = { ...f.routes[0], limits: { parallel: 0 } }), f),
      /limits\.parallel: 0 is out of range/,
    ],
    [
      'a rate without its time',
      (f) => ((f.routes[0] = { ...f.routes[0], limits: { rate: { requests: 5 } } }), f),
      /limits\.rate\.per: is missing/,
    ],
    [
      'a rate in parts of a second',
      (f) => ((f.routes[0] = { ...f.routes[0], limits: { rate: { requests: 5, per: '1500ms' } } }), f),
      /limits\.rate\.per: is not a whole number of seconds; write whole seconds/,
    ],
    [
      'a rate of nothing',
      (f) => ({ ...f, rateLimits: { login: { requests: 0 } } }),
      /rateLimits\.login\.requests: 0 is out of range/,
    ],
    ['a limit that is on', (f) => ({ ...f, rateLimits: { login: 'on' } }), /rateLimits\.login: /],
    [
      'event streams of nobody',
      (f) => ((f.routes[0] = { ...f.routes[0], token: 'none', limits: { eventStreams: 5 } }), f),
      /routes\[0\]\.limits\.eventStreams: is about a session, and with token: none/,
    ],
    [
      'what a session may move where there is none',
      (f) => ((f.routes[0] = { ...f.routes[0], token: 'none', limits: { bandwidth: '1MiB' } }), f),
      /routes\[0\]\.limits\.bandwidth: is about a session, and with token: none/,
    ],
    [
      'a limit by session where there is none',
      (f) => ((f.routes[0] = { ...f.routes[0], token: 'none', limits: { parallel: 5 } }), f),
      /routes\[0\]\.limits\.parallel: is about a session, and with token: none/,
    ],
    [
      'WebSockets by session where there is none',
      (f) => ((f.routes[0] = { ...f.routes[0], token: 'none', websocket: { perSession: 5 } }), f),
      /routes\[0\]\.websocket\.perSession: is about a session, and with token: none/,
    ],
    [
      'more event streams than requests',
      (f) => ((f.routes[0] = { ...f.routes[0], limits: { parallel: 4, eventStreams: 5 } }), f),
      /routes\[0\]\.limits\.eventStreams: 5 is more than parallel, which is 4/,
    ],
    [
      'a header about caching that is written anew',
      (f) => ((f.routes[0] = { ...f.routes[0], headers: { responseAllow: ['Expires'] } }), f),
      /routes\[0\]\.headers\.responseAllow\[0\]: "Expires" passes with cache: upstream alone/,
    ],
    [
      'a request id of the browser',
      (f) => ((f.routes[0] = { ...f.routes[0], headers: { requestAllow: ['X-Request-Id'] } }), f),
      /routes\[0\]\.headers\.requestAllow\[0\]: "X-Request-Id" never passes/,
    ],
    [
      'another word for the body limit',
      (f) => ((f.routes[0] = { ...f.routes[0], bodyLimit: '1MiB' }), f),
      /routes\[0\]\.bodyLimit: is not a setting; write limits: \{ requestBody: 10MiB \}/,
    ],
    [
      'a wildcard among the origins',
      (f) => ({ ...f, cors: { origins: ['https://*.example.com'] } }),
      /cors\.origins\[0\]: .*is a wildcard; write each origin in full/,
    ],
    ['every origin', (f) => ({ ...f, cors: { origins: ['*'] } }), /cors\.origins\[0\]: .*is a wildcard/],
    [
      'the origin of nobody',
      (f) => ({ ...f, cors: { origins: ['null'] } }),
      /cors\.origins\[0\]: null is the origin of every sandboxed frame/,
    ],
    [
      'an origin on plain http',
      (f) => ({ ...f, cors: { origins: ['http://shop.example.com'] } }),
      /cors\.origins\[0\]: .*is plain http; write https:\/\/shop\.example\.com/,
    ],
    [
      'an origin with a path',
      (f) => ({ ...f, cors: { origins: ['https://shop.example.com/app'] } }),
      /cors\.origins\[0\]: .*has a path; write https:\/\/shop\.example\.com/,
    ],
    [
      'an origin with a final slash',
      (f) => ({ ...f, cors: { origins: ['https://shop.example.com/'] } }),
      /cors\.origins\[0\]: .*is not written as browsers send it; write https:\/\/shop\.example\.com/,
    ],
    [
      'an origin with its default port',
      (f) => ({ ...f, cors: { origins: ['https://shop.example.com:443'] } }),
      /cors\.origins\[0\]: .*is not written as browsers send it; write https:\/\/shop\.example\.com/,
    ],
    [
      'an origin in capitals',
      (f) => ({ ...f, cors: { origins: ['https://Shop.example.com'] } }),
      /cors\.origins\[0\]: .*is not written as browsers send it/,
    ],
    [
      'an origin that ends with a dot',
      (f) => ({ ...f, cors: { origins: ['https://shop.example.com.'] } }),
      /cors\.origins\[0\]: .*ends with a dot/,
    ],
    [
      'a host that is no origin',
      (f) => ({ ...f, cors: { origins: ['shop.example.com'] } }),
      /cors\.origins\[0\]: .*is not a URL; write an origin such as/,
    ],
    [
      'an origin with a user in it',
      (f) => ({ ...f, cors: { origins: ['https://a:b@shop.example.com'] } }),
      /cors\.origins\[0\]: has a user name or password in it/,
    ],
    [
      'our own origin on the list',
      (f) => ({ ...f, cors: { origins: ['https://app.example.com'] } }),
      /cors\.origins\[0\]: is publicUrl itself; remove it/,
    ],
    [
      'an origin twice',
      (f) => ({ ...f, cors: { origins: ['https://shop.example.com', 'https://shop.example.com'] } }),
      /cors\.origins\[1\]: is also cors\.origins\[0\]/,
    ],
    [
      'origins of one route',
      (f) => ((f.routes[0] = { ...f.routes[0], cors: true }), f),
      /routes\[0\]\.cors: is not a setting; write cors: .* at the top level/,
    ],
    [
      'session cookies for every site',
      (f) => ({ ...f, session: { sameSite: 'none' } }),
      /session\.sameSite: none would send the session cookie/,
    ],
    [
      'an idle time that is never reached',
      (f) => ({ ...f, session: { idle: '13h' } }),
      /session\.idle: is longer than session\.absolute/,
    ],
    [
      'proxies believed everywhere',
      (f) => ({ ...f, listen: { trustedProxies: ['0.0.0.0/0'] } }),
      /listen\.trustedProxies\[0\]: .*would believe everybody/,
    ],
    [
      'a proxy that is no address',
      (f) => ({ ...f, listen: { trustedProxies: ['loadbalancer'] } }),
      /listen\.trustedProxies\[0\]: .*is not an IP address or CIDR range/,
    ],
    [
      'a port out of range',
      (f) => ({ ...f, listen: { port: 65536 } }),
      /listen\.port: 65536 is not a port; write a number from 0 to 65535/,
    ],
    [
      'a front end that is not there',
      (f) => ({ ...f, frontend: { folder: './nowhere' } }),
      /frontend\.folder: .*nowhere" does not exist/,
    ],
    [
      'a front end without its page',
      (f) => ({ ...f, frontend: { folder: '.' } }),
      /frontend\.fallback: .*index\.html" does not exist; build the front end first/,
    ],
    [
      'a fallback that is no page',
      (f) => ({ ...f, frontend: { folder: '.', fallback: '../index.html' } }),
      /frontend\.fallback: .*is not a page directly in the folder; write index\.html, or none/,
    ],
    [
      'a front end from nowhere',
      (f) => ({ ...f, frontend: { fallback: 'none' } }),
      /frontend: says neither folder nor devServer/,
    ],
    [
      'a folder that is no path',
      (f) => ({ ...f, frontend: { folder: '.', fallback: 'none', immutable: ['assets'] } }),
      /frontend\.immutable\[0\]: .*is not the path of a folder; write a prefix such as \/assets\//,
    ],
    [
      'a policy with a nonce for everybody',
      (f) => ({
        ...f,
        frontend: {
          folder: '.',
          fallback: 'none',
          csp: "script-src 'nonce-aaaaaaaaaaaaaaaaaaaaaa'; frame-ancestors 'none'",
        },
      }),
      /frontend\.csp: has a nonce that is the same in every answer; write 'nonce-\{nonce\}'/,
    ],
    [
      'a policy that lets everybody frame the page',
      (f) => ({ ...f, frontend: { folder: '.', fallback: 'none', csp: "default-src 'self'" } }),
      /frontend\.csp: does not say who may show the page in a frame; add frame-ancestors 'none'/,
    ],
    [
      'a policy that would be another header',
      (f) => ({ ...f, frontend: { folder: '.', fallback: 'none', csp: 'frame-ancestors a\r\nx: y' } }),
      /frontend\.csp: is empty, or holds what cannot stand in a header/,
    ],
    [
      'a development server in production',
      (f) => ({ ...f, frontend: { devServer: 'http://localhost:5173' } }),
      /frontend\.devServer: hands out the source of the application, and publicUrl is not http on a loopback host/,
    ],
    [
      'a development server with a path',
      (f) => ({
        ...f,
        publicUrl: 'http://localhost:3000',
        frontend: { devServer: 'http://localhost:5173/app/' },
      }),
      /frontend\.devServer: .*has a path; write http:\/\/localhost:5173/,
    ],
    [
      'a development server and a folder',
      (f) => ({
        ...f,
        publicUrl: 'http://localhost:3000',
        frontend: { devServer: 'http://localhost:5173', fallback: 'none' },
      }),
      /frontend\.fallback: stands beside frontend\.devServer, for which it means nothing/,
    ],
    [
      'forward-auth for nobody',
      (f) => ({ ...f, forwardAuth: { gateway: 'nginx', peers: [] } }),
      /forwardAuth\.peers: .*write peers: \[10\.0\.0\.0\/8\]/,
    ],
    [
      'forward-auth for everybody',
      (f) => ({ ...f, forwardAuth: { gateway: 'nginx', peers: ['0.0.0.0/0'] } }),
      /forwardAuth\.peers\[0\]: .*would believe everybody/,
    ],
    [
      'forward-auth for an unknown gateway',
      (f) => ({ ...f, forwardAuth: { gateway: 'ngnix', peers: ['10.0.0.1'] } }),
      /forwardAuth\.gateway: .*did you mean nginx\?/,
    ],
    [
      'forward-auth on the port of browsers',
      (f) => ({ ...f, forwardAuth: { gateway: 'nginx', peers: ['10.0.0.1'], port: 3000 } }),
      /forwardAuth\.port: 3000 is also the port of listen; choose another port/,
    ],
    ['a setting misspelt', (f) => ({ ...f, sesion: {} }), /sesion: is not a setting; did you mean session\?/],
    [
      'a nested setting misspelt',
      (f) => ((f.providers.main['client_secrets'] = 1), f),
      /providers\.main\.client_secrets: is not a setting; did you mean providers\.main\.clientSecret\?/,
    ],
    [
      'a revocation secret that is also another key',
      (f) => ((f.secrets['revocation'] = [{ file: 'same' }]), f),
      /secrets\.revocation\[0\]: holds the same secret as secrets\.cookie\[0\]/,
    ],
    [
      'a short revocation secret',
      (f) => ((f.secrets['revocation'] = [{ file: 'short' }]), f),
      /secrets\.revocation\[0\]: has 16 bytes, fewer than 32/,
    ],
    [
      'a public key beside the secret that it follows from',
      (f) => ((f.secrets['revocation'] = [{ file: 'revocation' }]), { ...f, revocation: { publicKey } }),
      /revocation\.publicKey: stands beside secrets\.revocation.*; remove one of the two/,
    ],
    [
      'a public key that is too short',
      (f) => ({ ...f, revocation: { publicKey: publicKey.slice(1) } }),
      /revocation\.publicKey: is not an X25519 public key, 32 bytes in base64url/,
    ],
    [
      'a public key with whose holder everybody could agree',
      (f) => ({ ...f, revocation: { publicKey: Buffer.alloc(32).toString('base64url') } }),
      /revocation\.publicKey: is not an X25519 public key/,
    ],
    [
      'revocation tried for ever',
      (f) => ({ ...f, revocation: { retryFor: '8d' } }),
      /revocation\.retryFor: 8d is too long; .* between 1m and 7d/,
    ],
    [
      'a database of a Redis Cluster',
      (f) => ({ ...f, store: { redis: { url: 'redis://redis:6379/2', cluster: true } } }),
      /store\.redis\.url: names the database 2, and a Redis Cluster has only database 0/,
    ],
    [
      'an admin listener for nobody',
      (f) => ({ ...f, admin: {} }),
      /admin: has neither tokens nor client certificates.*; run `cloakroom admin-token/,
    ],
    [
      'an admin listener that other machines reach without TLS',
      (f) => ({ ...f, admin: { host: '10.0.0.7', tokens: [TOKEN] } }),
      /admin\.host: "10\.0\.0\.7" can be reached from other machines.*; write 127\.0\.0\.1, or admin\.tls/,
    ],
    [
      'an admin listener on every address without TLS',
      (f) => ({ ...f, admin: { host: '::', tokens: [TOKEN] } }),
      /admin\.host: "::" can be reached from other machines/,
    ],
    [
      'an admin listener on the public port',
      (f) => ({ ...f, admin: { port: 3000, tokens: [TOKEN] } }),
      /admin\.port: 3000 is also the port of listen/,
    ],
    [
      'an admin token instead of its hash',
      (f) => ({ ...f, admin: { tokens: [{ ...TOKEN, sha256: token }] } }),
      /admin\.tokens\[0\]\.sha256: is not the SHA-256 of a token.*; `cloakroom admin-token` makes/,
    ],
    [
      'an admin token beside its hash',
      (f) => ({ ...f, admin: { tokens: [{ ...TOKEN, token }] } }),
      /admin\.tokens\[0\]\.token: is not a setting; write sha256: /,
    ],
    [
      'a hash in capital letters',
      (f) => ({ ...f, admin: { tokens: [{ ...TOKEN, sha256: sha256.toUpperCase() }] } }),
      /admin\.tokens\[0\]\.sha256: is not the SHA-256 of a token, in 64 lower-case/,
    ],
    [
      'a role that does not exist',
      (f) => ({ ...f, admin: { tokens: [{ ...TOKEN, role: 'root' }] } }),
      /admin\.tokens\[0\]\.role: "root" is not one of read, end/,
    ],
    [
      'two admin tokens of one name',
      (f) => ({ ...f, admin: { tokens: [TOKEN, { ...TOKEN, sha256: '0'.repeat(64) }] } }),
      /admin\.tokens\[1\]\.name: is also the name of admin\.tokens\[0\]/,
    ],
    [
      'one admin token under two names',
      (f) => ({ ...f, admin: { tokens: [TOKEN, { ...TOKEN, name: 'bob' }] } }),
      /admin\.tokens\[1\]\.sha256: is also the sha256 of admin\.tokens\[0\]/,
    ],
    [
      'client certificates of no authority',
      (f) => ({ ...f, admin: { tls: TLS, clients: [{ name: 'bot', role: 'read' }] } }),
      /admin\.clients: names client certificates, and nothing says which authority issues them/,
    ],
    [
      'an authority whose certificates name nobody',
      (f) => ({ ...f, admin: { tls: { ...TLS, clientAuthority: 'admin-certificate.pem' } } }),
      /admin\.tls\.clientAuthority: is given, and no client certificate is named/,
    ],
    [
      'an admin certificate that is not there',
      (f) => ({ ...f, admin: { tokens: [TOKEN], tls: { ...TLS, certificate: 'nowhere.pem' } } }),
      /admin\.tls\.certificate: .*nowhere\.pem" does not exist/,
    ],
    [
      'an admin key of another certificate',
      (f) => ({ ...f, admin: { tokens: [TOKEN], tls: { ...TLS, key: 'other-key.pem' } } }),
      /admin\.tls\.certificate: and admin\.tls\.key are not a certificate and its private key/,
    ],
    [
      'an authority that is none',
      (f) => ({
        ...f,
        admin: {
          tls: { ...TLS, clientAuthority: 'admin-key.pem' },
          clients: [{ name: 'bot', role: 'read' }],
        },
      }),
      /admin\.tls\.clientAuthority: holds no certificate/,
    ],
    [
      'a block left empty',
      (f) => ({ ...f, session: null }),
      /session: is empty; .*or remove the line for the default/,
    ],
  ];

  // One line of each kind comes from the command itself, below.
  test.each(cases)('%s', (_name, spoil, line) => {
    const told = faultsOf(spoilt(spoil)).map(formatFault);
    expect(told).toEqual([expect.stringMatching(line)]);
    expect(told[0]).toMatch(/^\S+\.yaml(:\d+)?: /);
    for (const secret of [cookieKey, sealKey, clientSecret, token]) expect(told[0]).not.toContain(secret);
  });

  const files: [string, string, RegExp][] = [
    ['an empty file', '', /: is empty; start from cloakroom\.example\.yaml/],
    ['a file of comments', '# nothing\n', /: is empty/],
    ['a list', '- publicUrl\n', /: is not a block of settings/],
    ['a tab', 'session:\n\tidle: 30m\n', /\.yaml:2: /],
    ['broken YAML', 'publicUrl: "https://app.example.com\n', /\.yaml:\d+: is not valid YAML/],
    ['two documents', 'session: {}\n---\nsession: {}\n', /: starts a second document/],
    ['a YAML tag', 'publicUrl: !secret x\n', /\.yaml:1: has a YAML tag/],
    [
      'a key written twice',
      `${spoilt(() => undefined)}publicUrl: https://other.example.com\n`,
      /\.yaml:\d+: has a setting that is already set above/,
    ],
  ];

  test.each(files)('%s', (_name, text, line) => {
    expect(faultsOf(text).map(formatFault)).toContainEqual(expect.stringMatching(line));
  });

  test('a file that does not exist', async () => {
    const outcome = await run(COMMAND, ['check', '--config', 'nowhere.yaml']);
    expect(outcome.stderr).toMatch(/^cloakroom: nowhere\.yaml: does not exist; name the file by --config/);
    expect(outcome.code).toBe(78);
  });

  const variables: [string, NodeJS.ProcessEnv, RegExp][] = [
    [
      'certificates not verified',
      { NODE_TLS_REJECT_UNAUTHORIZED: '0' },
      /variable NODE_TLS_REJECT_UNAUTHORIZED: switches off the verification of certificates; unset it/,
    ],
    [
      'a lenient HTTP parser',
      { NODE_OPTIONS: '--insecure-http-parser' },
      /variable NODE_OPTIONS: makes the HTTP parser lenient/,
    ],
    [
      'a variable misspelt',
      { CLOAKROOM_LISTEN__PROT: '3000' },
      /variable CLOAKROOM_LISTEN__PROT: is not a setting.*; did you mean CLOAKROOM_LISTEN__PORT\?/,
    ],
    [
      'a variable of nothing',
      { CLOAKROOM_MAGIC: 'yes' },
      /variable CLOAKROOM_MAGIC: is not a setting, and no \{ env: … \} names it/,
    ],
    [
      'a variable without a value',
      { CLOAKROOM_LOG__LEVEL: '' },
      /variable CLOAKROOM_LOG__LEVEL: log\.level: is set but empty/,
    ],
    [
      'a gap in a list',
      { CLOAKROOM_ROUTES__3__PATH: '/x/' },
      /variable CLOAKROOM_ROUTES__3__PATH: routes\[3\]\.path: leaves a gap/,
    ],
    [
      'a wrong value in a variable',
      { CLOAKROOM_SESSION__IDLE: 'soon' },
      /variable CLOAKROOM_SESSION__IDLE: session\.idle: "soon" is not a duration/,
    ],
    [
      'a secret in the variable of its setting',
      { CLOAKROOM_SECRETS__SEAL__0: newSecret() },
      /variable CLOAKROOM_SECRETS__SEAL__0: secrets\.seal\[0\]: holds the secret itself/,
    ],
  ];

  test.each(variables)('%s', (_name, env, line) => {
    expect(
      faultsOf(
        spoilt(() => undefined),
        env,
      ).map(formatFault),
    ).toContainEqual(expect.stringMatching(line));
  });

  test('check tells them on stderr, a line each, and ends with 78; no secret is in them', async () => {
    const file = written(spoilt((f) => ((f.secrets['cookie'] = [cookieKey]), f)));
    const outcome = await run(COMMAND, ['check', '--config', file], { CLOAKROOM_SESSION__IDLE: 'soon' });
    expect(outcome).toMatchObject({ code: 78, stdout: '' });
    expect(outcome.stderr).toMatch(
      /^cloakroom: environment variable CLOAKROOM_SESSION__IDLE: session\.idle: "soon" is /m,
    );
    expect(outcome.stderr).toMatch(
      /^cloakroom: \S+\.yaml:\d+: secrets\.cookie\[0\]: holds the secret itself/m,
    );
    expect(outcome.stderr.trimEnd().split('\n')).toHaveLength(2);
    expect(outcome.stderr).not.toContain(cookieKey);
  });

  test('start refuses them too, before it listens', async () => {
    const file = written(spoilt((f) => ({ ...f, store: 'memory' })));
    const outcome = await run(COMMAND, ['start', '--config', file]);
    expect(outcome.stderr).toMatch(/store: memory keeps sessions in one process only/);
    expect(outcome).toMatchObject({ code: 78, stdout: '' });
  });

  test('all faults at once, one line each, in the order of the file', async () => {
    const text = [
      'publicUrl: http://app.example.com',
      'store: memory',
      'secrets: { cookie: [{ file: short }], seal: [{ file: nowhere }] }',
      'providers: { main: { issuer: http://id.example.com, clientId: 7, clientSecret: { file: client }, rotation: sometimes } }',
      'session: { idle: 20h, absolut: 12h }',
      'routes:',
      '  - { path: /api/, upstream: http://orders:8080, timeouts: { connect: 3 } }',
      '  - { path: /api/ }',
      'log: { level: loud }',
    ].join('\n');
    const { stderr, code } = await run(COMMAND, ['check', '-c', written(text)], { CLOAKROOM_PORT: '3000' });
    const places = stderr
      .trimEnd()
      .split('\n')
      .map((line) =>
        /^cloakroom: (?:\S+\.yaml:(\d+)|environment variable \S+): (?:([\w.[\]]+): )?/.exec(line)?.slice(1),
      );
    expect(places).toEqual([
      [undefined, undefined],
      ['1', 'publicUrl'],
      ['2', 'store'],
      ['3', 'secrets.cookie[0]'],
      ['3', 'secrets.seal[0]'],
      ['4', 'providers.main.issuer'],
      ['4', 'providers.main.clientId'],
      ['4', 'providers.main.rotation'],
      ['5', 'session.absolut'],
      ['5', 'session.idle'],
      ['7', 'routes[0].timeouts.connect'],
      ['8', 'routes[1].upstream'],
      ['8', 'routes[1].path'],
      ['9', 'log.level'],
    ]);
    expect(code).toBe(78);
  });

  test('nothing in the file can forge a line of the report', () => {
    const [fault, ...others] = faultsOf(spoilt((f) => ({ ...f, 'a\ncloakroom: all is well\u001b[2J': 1 })));
    expect(others).toEqual([]);
    expect(fault?.path).toBe(String.raw`"a\ncloakroom: all is well\u001b[2J"`);
  });
});

describe('what a configuration comes to', () => {
  test('defaults, milliseconds, and the names the server uses', () => {
    const config = configOf(spoilt(() => undefined));
    expect(config).toMatchObject({
      publicUrl: 'https://app.example.com',
      secureCookies: true,
      listen: { host: '0.0.0.0', port: 3000, trustedProxies: [] },
      store: {
        kind: 'redis',
        url: 'redis://127.0.0.1:6379',
        prefix: 'cloakroom',
        connectTimeout: 500,
        commandTimeout: 250,
        cluster: false,
      },
      secrets: { revocation: [] },
      revocation: { publicKey: undefined, retryFor: 86_400_000 },
      session: {
        idle: 1_800_000,
        absolute: 43_200_000,
        sameSite: 'strict',
        address: 'network',
        warnBefore: 120_000,
        freshLoginFor: 3_600_000,
      },
      admin: undefined,
      me: { anonymous: 'problem' },
      frontend: undefined,
      log: { level: 'info' },
      shutdown: { delay: 5000, drain: 25_000 },
    });
    expect(config.providers[0]).toMatchObject({
      name: 'main',
      clientAuth: 'client_secret_basic',
      scopes: ['openid'],
      rotation: { policy: 'strict' },
      timeout: 10_000,
      metadataTimeout: 3000,
      idTokenAlgs: ['RS256', 'PS256', 'ES256', 'EdDSA'],
      clockTolerance: 30_000,
      userinfo: 'off',
      accessTokenLifetime: 300_000,
      pkceUnadvertised: 'refuse',
      backchannelLogout: 'lenient',
      revokeOnBackchannelLogout: false,
      frontchannelLogout: false,
    });
    expect(config.routes[0]).toEqual({
      path: '/api/',
      upstreams: ['http://orders:8080'],
      methods: ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'],
      token: 'user',
      csrf: 'header',
      limits: { parallel: 128, eventStreams: 16 },
      websocket: undefined,
      cache: 'no-store',
      headers: {
        requestAllow: [],
        responseAllow: [],
        security: { frameAncestors: 'none', referrerPolicy: 'no-referrer' },
      },
      cookies: [],
      timeouts: { connect: 2000, firstByte: 30_000, idle: 60_000 },
    });
    expect(config.cors).toEqual({ origins: [] });
  });

  test.each([
    ['0B', 0],
    ['512B', 512],
    ['64KiB', 65_536],
    ['10MiB', 10_485_760],
    ['1024GiB', 1_099_511_627_776],
  ])('%s is %d bytes', (requestBody, bytes) => {
    const text = spoilt((f) => ((f.routes[0] = { ...f.routes[0], limits: { requestBody } }), f));
    expect(configOf(text).routes[0]?.limits.requestBody).toBe(bytes);
  });

  test('a route and the other origins can come from variables', () => {
    const config = configOf(
      spoilt(() => undefined),
      {
        CLOAKROOM_ROUTES__0__METHODS: '[GET, POST]',
        CLOAKROOM_ROUTES__0__LIMITS__REQUEST_BODY: '1KiB',
        CLOAKROOM_ROUTES__0__LIMITS__PARALLEL: '7',
        CLOAKROOM_CORS__ORIGINS: '[https://shop.example.com]',
      },
    );
    expect(config.routes[0]).toMatchObject({
      methods: ['GET', 'POST'],
      limits: { requestBody: 1024, parallel: 7 },
    });
    expect(config.cors.origins).toEqual(['https://shop.example.com']);
  });

  test.each<[unknown, unknown]>([
    [false, undefined],
    [true, { idle: 300_000, perSession: 16, keepsSession: false }],
    [{}, { idle: 300_000, perSession: 16, keepsSession: false }],
    [
      { idle: '1h', keepsSession: true },
      { idle: 3_600_000, perSession: 16, keepsSession: true },
    ],
  ])('websocket: %j becomes %j', (websocket, rules) => {
    const text = spoilt((f) => ((f.routes[0] = { ...f.routes[0], websocket }), f));
    expect(configOf(text).routes[0]?.websocket).toEqual(rules);
  });

  test('WebSockets can be switched on from variables', () => {
    const config = configOf(
      spoilt(() => undefined),
      {
        CLOAKROOM_ROUTES__0__WEBSOCKET__PER_SESSION: '3',
        CLOAKROOM_ROUTES__0__WEBSOCKET__KEEPS_SESSION: 'true',
      },
    );
    expect(config.routes[0]?.websocket).toEqual({ idle: 300_000, perSession: 3, keepsSession: true });
  });

  test('it cannot be changed while the server runs', () => {
    const config = configOf(spoilt(() => undefined));
    const changes: (() => unknown)[] = [
      () => ((config as { publicUrl: string }).publicUrl = 'x'),
      () => (config.providers as unknown[]).push({}),
      () => ((config.routes[0]?.timeouts as { idle: number }).idle = 1),
    ];
    for (const change of changes) expect(change).toThrow(TypeError);
  });

  test('providers keep the order of the file, since the first one is the default', () => {
    const config = configOf(
      spoilt((f) => ({
        ...f,
        providers: { zebra: f.providers.main, apple: { ...f.providers.main, clientId: 'other' } },
      })),
    );
    expect(config.providers.map(({ name }) => name)).toEqual(['zebra', 'apple']);
  });

  test('the final slash of an upstream, which decides whether the prefix is replaced, stays as written', () => {
    const config = configOf(
      spoilt((f) => ({
        ...f,
        routes: [
          { path: '/a/', upstream: 'http://orders:8080' },
          { path: '/b/', upstream: 'http://orders:8080/' },
          { path: '/c/', upstream: 'http://orders:8080/v1/' },
        ],
      })),
    );
    expect(config.routes.map(({ upstreams }) => upstreams[0])).toEqual([
      'http://orders:8080',
      'http://orders:8080/',
      'http://orders:8080/v1/',
    ]);
  });

  test('several upstreams are a list, in the file and from the environment', () => {
    const two = ['http://a:8080/v1/', 'http://b:8080/v1/'];
    const written = configOf(spoilt((f) => ({ ...f, routes: [{ path: '/api/', upstream: two }] })));
    expect(written.routes[0]?.upstreams).toEqual(two);
    const same = spoilt(() => undefined);
    for (const env of [
      { CLOAKROOM_ROUTES__0__UPSTREAM: `[${two.join(', ')}]` },
      { CLOAKROOM_ROUTES__0__UPSTREAM__0: two[0] ?? '', CLOAKROOM_ROUTES__0__UPSTREAM__1: two[1] ?? '' },
    ]) {
      expect(configOf(same, env).routes[0]?.upstreams).toEqual(two);
    }
    expect(configOf(same, { CLOAKROOM_ROUTES__0__UPSTREAM: 'http://c' }).routes[0]?.upstreams).toEqual([
      'http://c',
    ]);
  });

  test('memory is accepted on a loopback host, and anywhere when said in full', () => {
    for (const publicUrl of [
      'http://localhost:3000',
      'http://127.0.0.1',
      'http://[::1]:8',
      'https://app.localhost',
    ]) {
      expect(configOf(spoilt((f) => ({ ...f, publicUrl, store: 'memory' }))).store).toEqual({
        kind: 'memory',
      });
    }
    const store = { memory: { singleProcess: true } };
    expect(configOf(spoilt((f) => ({ ...f, store }))).store).toEqual({ kind: 'memory' });
  });

  test('http on a loopback host has cookies without Secure', () => {
    expect(configOf(spoilt((f) => ({ ...f, publicUrl: 'http://localhost:3000/' })))).toMatchObject({
      publicUrl: 'http://localhost:3000',
      secureCookies: false,
    });
  });

  test('rotation takes a leeway', () => {
    const config = configOf(spoilt((f) => ((f.providers.main['rotation'] = { leeway: '30s' }), f)));
    expect(config.providers[0]?.rotation).toEqual({ policy: 'leeway', leeway: 30_000 });
  });

  test('folders and files start from the folder of the configuration file', () => {
    const config = configOf(spoilt((f) => ({ ...f, frontend: { folder: './public', fallback: 'none' } })));
    expect(config.frontend).toEqual({
      kind: 'folder',
      folder: join(folder, 'public'),
      fallback: undefined,
      immutable: 'by-name',
      csp: expect.stringContaining("script-src 'self' 'nonce-{nonce}';"),
    });
  });

  test('a front end and forward-auth from the environment', () => {
    const config = configOf(
      spoilt((f) => ({ ...f, publicUrl: 'http://localhost:3000' })),
      {
        CLOAKROOM_FRONTEND__DEV_SERVER: 'http://localhost:5173',
        CLOAKROOM_FORWARD_AUTH__GATEWAY: 'traefik',
        CLOAKROOM_FORWARD_AUTH__PEERS: '[10.0.0.0/8]',
      },
    );
    expect(config.frontend).toEqual({ kind: 'devServer', origin: 'http://localhost:5173' });
    expect(config.forwardAuth).toEqual({
      gateway: 'traefik',
      peers: ['10.0.0.0/8'],
      host: '0.0.0.0',
      port: 3020,
    });
    const listed = configOf(
      spoilt((f) => f),
      {
        CLOAKROOM_FRONTEND__FOLDER: './public',
        CLOAKROOM_FRONTEND__FALLBACK: 'none',
        CLOAKROOM_FRONTEND__IMMUTABLE: '[/assets/]',
      },
    );
    expect(listed.frontend).toMatchObject({ kind: 'folder', immutable: ['/assets/'] });
  });

  test('an admin listener: on the loopback address unless said otherwise', () => {
    expect(configOf(spoilt((f) => ({ ...f, admin: { tokens: [TOKEN] } }))).admin).toEqual({
      host: '127.0.0.1',
      port: 3010,
      tokens: [TOKEN],
      tls: undefined,
      clients: [],
      requestsPerMinute: 120,
    });
  });

  test('an admin listener for other machines, whose files start from the folder of the configuration file', () => {
    const clients = [{ name: 'incident bot', role: 'read' }];
    const tls = { ...TLS, clientAuthority: join(folder, 'other-certificate.pem') };
    expect(configOf(spoilt((f) => ({ ...f, admin: { host: '::', tls, clients } }))).admin).toMatchObject({
      host: '::',
      clients,
      tls: {
        certificate: join(folder, 'admin-certificate.pem'),
        key: join(folder, 'admin-key.pem'),
        clientAuthority: join(folder, 'other-certificate.pem'),
      },
    });
  });

  test.each(['localhost', '127.0.0.2', '::1'])('an admin listener on %s needs no TLS', (host) => {
    const admin = { host, port: 4000, tokens: [TOKEN] };
    expect(configOf(spoilt((f) => ({ ...f, admin }))).admin).toMatchObject({ host });
  });

  test('the admin listener may have the number of the public port at another address', () => {
    const admin = { port: 3000, tokens: [TOKEN] };
    const listen = { host: '10.0.0.7' };
    expect(configOf(spoilt((f) => ({ ...f, listen, admin }))).admin).toMatchObject({ port: 3000 });
  });

  test('revocation: a secret here, or its public key', () => {
    const secret = configOf(spoilt((f) => ((f.secrets['revocation'] = [{ file: 'revocation' }]), f)));
    expect(secret.secrets.revocation[0]?.toString()).toBe(readFileSync(join(folder, 'revocation'), 'utf8'));
    const half = configOf(spoilt((f) => ({ ...f, revocation: { publicKey, retryFor: '1m' } })));
    expect(half.revocation).toEqual({ publicKey, retryFor: 60_000 });
  });
});

describe('secrets', () => {
  test('come from files, without their final line break', () => {
    const config = configOf(spoilt(() => undefined));
    expect(config.secrets.cookie[0]?.toString()).toBe(cookieKey);
    expect(config.secrets.seal[0]?.toString()).toBe(sealKey);
    expect(config.providers[0]?.clientSecret.read()).toBe(clientSecret);
  });

  test('come from variables, even ones that begin with CLOAKROOM_', () => {
    const value = newSecret();
    const text = spoilt((f) => ((f.secrets['seal'] = [{ env: 'CLOAKROOM_SEAL' }, { file: 'seal' }]), f));
    const config = configOf(text, { CLOAKROOM_SEAL: value });
    expect(config.secrets.seal.map(String)).toEqual([value, sealKey]);
  });

  test('a client secret that is replaced in its file is the new one at the next use', () => {
    writeFileSync(join(folder, 'rotating'), 'the-first-one\n');
    const config = configOf(spoilt((f) => ((f.providers.main['clientSecret'] = { file: 'rotating' }), f)));
    const reference = config.providers[0]?.clientSecret;
    expect(reference?.read()).toBe('the-first-one');
    writeFileSync(join(folder, 'rotating'), 'the-second-one\n');
    expect(reference?.read()).toBe('the-second-one');
    rmSync(join(folder, 'rotating'));
    expect(() => reference?.read()).toThrow(/which does not exist/);
  });

  test('a Redis URL with its password comes from a file, and is never repeated', () => {
    writeFileSync(join(folder, 'redis'), 'rediss://:s3cr3t-password@redis:6380/1\n');
    const config = configOf(spoilt((f) => ({ ...f, store: { redis: { url: { file: 'redis' } } } })));
    expect(config.store).toMatchObject({ url: 'rediss://:s3cr3t-password@redis:6380/1' });
    const faults = faultsOf(
      spoilt((f) => ({ ...f, store: { redis: { url: 'http://:s3cr3t-password@redis' } } })),
    );
    expect(faults).toHaveLength(1);
    expect(JSON.stringify(faults)).not.toContain('s3cr3t');
  });
});

describe('a secret written in the wrong place is never repeated', () => {
  const leak = '9182736450918273645';
  const cases: [string, (file: Faultless) => unknown][] = [
    ['as a number', (f) => ((f.secrets['cookie'] = [Number(leak)]), f)],
    ['instead of the list', (f) => ((f.secrets['cookie'] = Number(leak)), f)],
    ['as a file name that is a number', (f) => ((f.secrets['cookie'] = [{ file: Number(leak) }]), f)],
    ['as the name of a variable', (f) => ((f.secrets['cookie'] = [{ env: `${leak}+/=` }]), f)],
    ['as a client secret', (f) => ((f.providers.main['clientSecret'] = Number(leak)), f)],
    [
      'instead of the hash of an admin token',
      (f) => ({ ...f, admin: { tokens: [{ ...TOKEN, sha256: Number(leak) }] } }),
    ],
    ['instead of a public key', (f) => ({ ...f, revocation: { publicKey: `${leak}x` } })],
    ['instead of the store', (f) => ({ ...f, store: { redis: { url: Number(leak) } } })],
  ];

  test.each(cases)('%s', (_name, spoil) => {
    const faults = faultsOf(spoilt(spoil));
    expect(faults).toHaveLength(1);
    expect(JSON.stringify(faults)).not.toContain(leak.slice(0, 10));
  });

  test('in the variable of the setting', () => {
    const faults = faultsOf(
      spoilt(() => undefined),
      { CLOAKROOM_SECRETS__SEAL__0: `${leak}: ${leak} #` },
    );
    expect(faults).toHaveLength(1);
    expect(JSON.stringify(faults)).not.toContain(leak.slice(0, 10));
  });
});

describe('settings from the environment', () => {
  const bare = (): NodeJS.ProcessEnv => ({
    CLOAKROOM_PUBLIC_URL: 'https://app.example.com',
    CLOAKROOM_STORE__REDIS__URL: 'redis://redis:6379',
    CLOAKROOM_SECRETS__COOKIE__0__FILE: './cookie',
    CLOAKROOM_SECRETS__SEAL__0__ENV: 'SEAL_KEY',
    SEAL_KEY: sealKey,
    CLOAKROOM_PROVIDERS__MY_IDP__ISSUER: 'https://id.example.com',
    CLOAKROOM_PROVIDERS__MY_IDP__CLIENT_ID: '0042',
    CLOAKROOM_PROVIDERS__MY_IDP__CLIENT_SECRET__FILE: 'client',
    CLOAKROOM_ROUTES__0__PATH: '/api/',
    CLOAKROOM_ROUTES__0__UPSTREAM: 'http://orders:8080',
    CLOAKROOM_ROUTES__0__TIMEOUTS__FIRST_BYTE: '90s',
  });

  test('are enough: no file is needed', () => {
    const config = configOf(undefined, {
      ...bare(),
      CLOAKROOM_PROVIDERS__MY_IDP__SCOPES: '[openid, email]',
      CLOAKROOM_PROVIDERS__MY_IDP__ID_TOKEN_HINT: 'false',
      CLOAKROOM_PROVIDERS__MY_IDP__AUTHORIZATION_PARAMETERS__ACCESS_TYPE: 'offline',
      CLOAKROOM_LISTEN__PORT: '8080',
    });
    expect(config.providers[0]).toMatchObject({
      name: 'my-idp',
      clientId: '0042',
      scopes: ['openid', 'email'],
      idTokenHint: false,
      authorizationParameters: { access_type: 'offline' },
    });
    expect(config.listen.port).toBe(8080);
    expect(config.routes[0]?.timeouts.firstByte).toBe(90_000);
  });

  test('win over the file, and leave the rest of a block alone', () => {
    const text = spoilt((f) => ({ ...f, session: { idle: '10m', absolute: '1h' } }));
    expect(configOf(text, { CLOAKROOM_SESSION__IDLE: '5m' }).session).toMatchObject({
      idle: 300_000,
      absolute: 3_600_000,
    });
  });

  test('a container needs no file for its admin listener either', () => {
    const config = configOf(undefined, {
      ...bare(),
      CLOAKROOM_ADMIN__TOKENS__0__NAME: 'alice',
      CLOAKROOM_ADMIN__TOKENS__0__ROLE: 'read',
      CLOAKROOM_ADMIN__TOKENS__0__SHA256: sha256,
      CLOAKROOM_SECRETS__REVOCATION__0__FILE: 'revocation',
    });
    expect(config.admin?.tokens).toEqual([{ name: 'alice', role: 'read', sha256 }]);
    expect(config.secrets.revocation).toHaveLength(1);
  });

  test('a store chosen there replaces the one of the file', () => {
    const memory = spoilt((f) => ({ ...f, publicUrl: 'http://localhost:3000', store: 'memory' }));
    const url = { CLOAKROOM_STORE__REDIS__URL: 'redis://redis:6379' };
    expect(configOf(memory, url).store).toMatchObject({ kind: 'redis' });
    const explicit = spoilt((f) => ({ ...f, store: { memory: { singleProcess: true } } }));
    expect(configOf(explicit, url).store).toMatchObject({ kind: 'redis' });
    const redis = spoilt((f) => ({ ...f, publicUrl: 'http://localhost:3000' }));
    expect(configOf(redis, { CLOAKROOM_STORE: 'memory' }).store).toEqual({ kind: 'memory' });
  });

  test('a place of a secret given there replaces the one of the file', () => {
    const env = { CLOAKROOM_SECRETS__SEAL__0__ENV: 'SEAL_KEY', SEAL_KEY: newSecret() };
    expect(
      String(
        configOf(
          spoilt(() => undefined),
          env,
        ).secrets.seal[0],
      ),
    ).toBe(env.SEAL_KEY);
  });

  test('two variables that contradict each other are a fault', () => {
    const env = { ...bare(), CLOAKROOM_STORE: 'memory' };
    expect(faultsOf(undefined, env)).toContainEqual({
      path: 'store.redis.url',
      problem: 'contradicts CLOAKROOM_STORE, which gives the whole of it',
      remedy: 'unset one of the two',
      where: 'environment variable CLOAKROOM_STORE__REDIS__URL',
    });
  });

  test('whole lists and blocks can be given as YAML', () => {
    const env = bare();
    delete env['CLOAKROOM_ROUTES__0__PATH'];
    delete env['CLOAKROOM_ROUTES__0__UPSTREAM'];
    delete env['CLOAKROOM_ROUTES__0__TIMEOUTS__FIRST_BYTE'];
    env['CLOAKROOM_ROUTES'] = '[{ path: /a/, upstream: "http://a" }, { path: /b/, upstream: "http://b" }]';
    expect(configOf(undefined, env).routes.map(({ path }) => path)).toEqual(['/a/', '/b/']);
  });

  test('a variable changes one use of a YAML anchor, not the others', () => {
    const text = spoilt(() => undefined).replace(
      /routes:[^]*$/,
      'routes:\n  - { path: /a/, upstream: http://a, timeouts: &t { idle: 5s } }\n  - { path: /b/, upstream: http://b, timeouts: *t }\n',
    );
    const { routes } = configOf(text, { CLOAKROOM_ROUTES__0__TIMEOUTS__IDLE: '7s' });
    expect(routes.map(({ timeouts }) => timeouts.idle)).toEqual([7000, 5000]);
  });

  test('the file itself can be named there', () => {
    const file = written(spoilt(() => undefined));
    const loaded = loadConfig({ env: { CLOAKROOM_CONFIG: file }, cwd: '/' });
    expect(loaded).toHaveProperty('config.publicUrl', 'https://app.example.com');
  });

  test('what Kubernetes announces about a Service called cloakroom is left alone', () => {
    const env = {
      ...bare(),
      CLOAKROOM_SERVICE_HOST: '10.1.2.3',
      CLOAKROOM_SERVICE_PORT: '80',
      CLOAKROOM_SERVICE_PORT_HTTP: '80',
      CLOAKROOM_PORT: 'tcp://10.1.2.3:80',
      CLOAKROOM_PORT_80_TCP: 'tcp://10.1.2.3:80',
      CLOAKROOM_PORT_80_TCP_ADDR: '10.1.2.3',
    };
    expect(configOf(undefined, env).listen.port).toBe(3000);
  });

  test('no two settings share a variable', () => {
    const names = [...settings()].map(({ path }) => environmentName(path));
    expect(new Set(names).size).toBe(names.length);
  });
});

describe('cloakroom check', () => {
  let server: Server;
  let silent: TcpServer;
  let origin: string;
  const held = new Set<Socket>();

  beforeAll(async () => {
    server = createServer((request, response) => {
      const json = (body: unknown) =>
        response.setHeader('content-type', 'application/json').end(JSON.stringify(body));
      if (request.url === '/.well-known/openid-configuration') {
        json({
          issuer: origin,
          authorization_endpoint: `${origin}/authorize`,
          token_endpoint: `${origin}/token`,
          jwks_uri: `${origin}/keys`,
          end_session_endpoint: `${origin}/end`,
          response_types_supported: ['code'],
          subject_types_supported: ['public'],
          id_token_signing_alg_values_supported: ['RS256'],
          code_challenge_methods_supported: ['S256'],
        });
      } else if (request.url === '/keys')
        json({ keys: [{ kty: 'RSA', use: 'sig', kid: 'k', n: 'AQ', e: 'AQAB' }] });
      else response.writeHead(404).end();
    });
    silent = createTcpServer((socket) => {
      held.add(socket);
      socket.on('error', () => undefined);
    });
    await Promise.all(
      [server, silent].map((each) => new Promise<void>((done) => each.listen(0, '127.0.0.1', done))),
    );
    origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });

  afterAll(() => {
    server.closeAllConnections();
    server.close();
    for (const socket of held) socket.destroy();
    silent.close();
  });

  const local = (f: Faultless) => {
    f.providers.main['issuer'] = origin;
    const routes = [{ path: '/api/', upstream: origin, timeouts: { idle: '90s' } }];
    return { ...f, publicUrl: 'http://localhost:3000', store: 'memory', routes };
  };

  test('tells what it found, the timeouts and the cookies, and no secret', async () => {
    const { code, stdout, stderr } = await run(COMMAND, ['check', '-c', written(spoilt(local))]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/cloakroom-session +HttpOnly; Path=\/; SameSite=Strict +the session/);
    expect(stdout).toMatch(/redirect URI +http:\/\/localhost:3000\/auth\/callback/);
    expect(stdout).toMatch(/ok +token_endpoint http:\/\/127\.0\.0\.1/);
    expect(stdout).toMatch(/ok +PKCE with S256/);
    expect(stdout).toMatch(/ok +1 signing key/);
    expect(stdout).toMatch(/note +no revocation_endpoint/);
    expect(stdout).toMatch(/ok +\/api\/ http:\/\/127\.0\.0\.1:\d+ answered \(404\)/);
    expect(stdout).toMatch(/route \/api\/ +connect 2s, first byte 30s, idle 90s/);
    for (const secret of [cookieKey, sealKey, clientSecret]) expect(stdout).not.toContain(secret);
  });

  test('what cannot be reached is a fault, told within its time limit', async () => {
    const { port } = silent.address() as AddressInfo;
    const text = spoilt((f) => ({
      ...local(f),
      providers: {
        main: { ...f.providers.main, issuer: `http://127.0.0.1:${port}`, metadataTimeout: '300ms' },
      },
      store: {
        redis: { url: `redis://:s3cr3t@127.0.0.1:${port}`, connectTimeout: '200ms', commandTimeout: '100ms' },
      },
      routes: [{ path: '/api/', upstream: 'http://127.0.0.1:1' }],
    }));
    const { code, stdout, stderr } = await run(COMMAND, ['check', '-c', written(text)]);
    expect(stderr.trimEnd().split('\n')).toEqual([
      expect.stringMatching(
        /^cloakroom: store: Redis at redis:\/\/127\.0\.0\.1:\d+: no answer (in time|within 300ms)$/,
      ),
      expect.stringMatching(/^cloakroom: providers\.main: metadata: /),
      expect.stringMatching(/^cloakroom: routes\[0\]: \/api\/ http:\/\/127\.0\.0\.1:1 connection refused$/),
    ]);
    expect(code).toBe(78);
    expect(stdout + stderr).not.toContain('s3cr3t');
  });
});

describe('the command', () => {
  test.each([
    ['no command', []],
    ['an unknown command', ['begin']],
    ['an unknown option', ['start', '--verbose']],
    ['an argument too many', ['start', 'now']],
    ['an option without its value', ['check', '--config']],
  ])('%s: usage, exit code 64', async (_name, args) => {
    const { code, stdout, stderr } = await run(COMMAND, args);
    expect(stderr).toMatch(/^cloakroom: .+\n\nusage: cloakroom <command>/);
    expect({ code, stdout }).toEqual({ code: 64, stdout: '' });
  });

  test('a Node that is too old: one clear line, exit code 1', async () => {
    const pretend =
      "Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '18.20.4' } })";
    const script = `data:text/javascript,${encodeURIComponent(pretend)}`;
    const outcome = await run('--import', [script, COMMAND, 'start']);
    expect(outcome).toEqual({
      code: 1,
      stdout: '',
      stderr: 'cloakroom: Node 20.19.0 or later is needed, and this is Node 18.20.4\n',
    });
  });

  test('no configuration at all', async () => {
    const { code, stderr } = await run(COMMAND, ['start']);
    expect(stderr).toMatch(/^cloakroom: there is no configuration; name a file by --config .+\n$/);
    expect(code).toBe(78);
  });

  test('help and version', async () => {
    expect(await run(COMMAND, ['help'])).toMatchObject({ code: 0, stderr: '' });
    const { stdout } = await run(COMMAND, ['--version']);
    expect(stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
  });

  test('schema prints the JSON Schema that editors use', async () => {
    const { code, stdout } = await run(COMMAND, ['schema']);
    const committed: unknown = JSON.parse(
      readFileSync(new URL('../cloakroom.schema.json', import.meta.url), 'utf8'),
    );
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toEqual(committed);
  });
});

describe('what is made from the schema', () => {
  test('the example is faultless once its secrets are there', () => {
    const text = readFileSync(EXAMPLE, 'utf8');
    expect(text).toMatch(/^# yaml-language-server: \$schema=/);
    const config = configOf(text, {
      CLOAKROOM_SECRETS__COOKIE__0__FILE: 'cookie',
      CLOAKROOM_SEAL: sealKey,
      CLOAKROOM_PROVIDERS__MAIN__CLIENT_SECRET__FILE: 'client',
    });
    expect(config.routes).toHaveLength(2);
  });

  test('the example shows every setting', () => {
    const text = readFileSync(EXAMPLE, 'utf8');
    const missing = [...settings()]
      .map(({ path }) => String(path.at(-1)))
      .filter((key) => !key.startsWith('<') && !new RegExp(`\\b${key}:`).test(text));
    expect(missing).toEqual([]);
  });

  test('every setting is described and has an example', () => {
    for (const { path, node, block } of settings()) {
      expect({ path, text: node.meta.description }).toEqual({ path, text: expect.stringMatching(/\.$/) });
      if (!block) expect({ path, example: node.meta.example }).toEqual({ path, example: expect.anything() });
    }
  });

  test('docs/configuration.md and cloakroom.schema.json are fresh', async () => {
    expect(await run(GENERATOR, ['--check'])).toEqual({ code: 0, stdout: '', stderr: '' });
  });
});
