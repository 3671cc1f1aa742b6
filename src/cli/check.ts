import { formatDuration } from '../config/duration.js';
import {
  METHODS,
  type Config,
  type ProviderConfig,
  type RateConfig,
  type RouteConfig,
} from '../config/config.js';
import { formatSize } from '../config/size.js';
import { backchannelLogoutPath, callbackPath, frontchannelLogoutPath } from '../oidc/providers.js';
import { loginSameSite } from '../auth/login-attempts.js';
import { cookieNames } from '../session/cookie-names.js';
import { RevocationEnvelopes } from '../store/revocation-envelope.js';
import { routeToken } from './route-token.js';
import { probeProvider, probeStore, probeUpstream, type Finding } from './probes.js';
import { requirementText } from './route-requirements.js';

/** `cloakroom check`: what this configuration comes to, and whether everything it points at is there. */

const EX_CONFIG = 78;

type Row = readonly string[];

/** @returns the exit code */
export async function check(config: Config): Promise<number> {
  const report = new Report();
  report.section('Server');
  report.table([
    ['public URL', config.publicUrl],
    ['listens on', `${config.listen.host}:${config.listen.port}`],
    ['believed proxies', config.listen.trustedProxies.join(', ') || 'none'],
    ['other origins', config.cors.origins.join(', ') || 'none may call'],
    ['front end', frontendRow(config)],
    ['one address may', limitsRow(config)],
    ['log level', config.log.level],
    ['keys', `${config.secrets.cookie.length} for cookies, ${config.secrets.seal.length} for sealing`],
    ['forced logout', revocationRow(config)],
    ['admin listener', adminRow(config)],
    ['forward-auth', forwardAuthRow(config)],
  ]);

  report.section('Cookies');
  report.table(cookieRows(config));

  const [stores, providers, upstreams] = await Promise.all([
    probeStore(config.store),
    Promise.all(
      config.providers.map((provider, index) =>
        probeProvider(provider, config.publicUrl + callbackPath(index, provider.name)),
      ),
    ),
    Promise.all(
      config.routes.map(({ upstreams: origins, timeouts }) =>
        Promise.all(origins.map((upstream) => probeUpstream(upstream, timeouts))),
      ),
    ),
  ]);

  report.section('Store');
  report.findings('store', stores);
  if (config.store.kind === 'redis') report.table([['prefix', config.store.prefix]]);

  config.providers.forEach((provider, index) => {
    report.section(`Provider ${provider.name}`);
    report.table(providerRows(provider, index, config.publicUrl));
    report.findings(`providers.${provider.name}`, providers[index] ?? []);
  });

  report.section('Routes');
  report.table(routeRows(config));
  config.routes.forEach(({ path, upstreams: origins }, index) => {
    const findings = (upstreams[index] ?? []).map(({ verdict, text }, at) => ({
      verdict,
      text: `${path} ${origins[at] ?? ''} ${text}`,
    }));
    report.findings(`routes[${index}]`, findings);
  });

  report.section('Timeouts');
  report.table(timeoutRows(config));

  return report.end();
}

function revocationRow({ secrets, revocation, store }: Config): string {
  if (secrets.revocation.length === 0 && revocation.publicKey === undefined) {
    return 'ends sessions, but cannot revoke their refresh tokens: set secrets.revocation';
  }
  const prefix = store.kind === 'redis' ? store.prefix : 'memory';
  const envelopes = new RevocationEnvelopes({ secrets: secrets.revocation, ...revocation, prefix });
  return envelopes.canOpen
    ? `ends sessions and revokes their refresh tokens; revocation.publicKey of other processes: ${envelopes.publicKey ?? ''}`
    : 'ends sessions; their refresh tokens are revoked by another process (cloakroom revoker)';
}

function adminRow({ admin }: Config): string {
  if (admin === undefined) return 'none';
  const who = [
    ...admin.tokens.map(({ name, role }) => `${name} (${role}, token)`),
    ...admin.clients.map(({ name, role }) => `${name} (${role}, certificate)`),
  ];
  return `${admin.host}:${admin.port}${admin.tls === undefined ? '' : ', TLS'}: ${who.join(', ')}`;
}

function frontendRow({ frontend }: Config): string {
  if (frontend === undefined) return 'served by something else';
  return frontend.kind === 'folder' ? frontend.folder : `development server ${frontend.origin}`;
}

function forwardAuthRow({ forwardAuth }: Config): string {
  if (forwardAuth === undefined) return 'none';
  const { host, port, gateway, peers } = forwardAuth;
  return `${host}:${port}, for ${gateway} at ${peers.join(', ')}`;
}

function cookieRows(config: Config): Row[] {
  const { secureCookies, session } = config;
  const names = cookieNames(secureCookies);
  const flags = (sameSite: string) =>
    `HttpOnly; Path=/; SameSite=${sameSite}${secureCookies ? '; Secure' : ''}`;
  const own = session.sameSite === 'strict' ? 'Strict' : 'Lax';
  return [
    [names.session, flags(own), 'the session'],
    [names.last, flags('Lax'), "signed handle of the browser's session, for its next login"],
    [`${names.loginPrefix}*`, flags(loginSameSite(config)), 'one login under way'],
    [names.logout, flags('Lax'), 'one logout under way'],
    [names.silent, flags('Lax'), 'mark: a silent login was tried'],
    [names.restart, flags('Lax'), 'mark: a login was restarted'],
  ];
}

function providerRows(provider: ProviderConfig, index: number, publicUrl: string): Row[] {
  const { name, rotation, backchannelLogout, frontchannelLogout } = provider;
  return [
    ['issuer', provider.issuer],
    ['client', `${provider.clientId}, ${provider.clientAuth}`],
    ['redirect URI', `${publicUrl}${callbackPath(index, name)}, to be registered at the provider`],
    ['after logout', `${publicUrl}/auth/logout, to be registered as well`],
    [
      'back-channel logout',
      backchannelLogout === 'off'
        ? 'off'
        : `${publicUrl}${backchannelLogoutPath(index, name)}, to be registered where the provider offers it (${backchannelLogout})`,
    ],
    ...(frontchannelLogout
      ? [
          [
            'front-channel logout',
            `${publicUrl}${frontchannelLogoutPath(index, name)}, with iss and sid (frontchannel_logout_session_required)`,
          ],
        ]
      : []),
    ['scopes', provider.scopes.join(' ')],
    [
      'rotation',
      rotation.policy === 'leeway' ? `leeway ${formatDuration(rotation.leeway)}` : rotation.policy,
    ],
  ];
}

function limitsRow({ rateLimits }: Config): string {
  return Object.entries(rateLimits)
    .map(([name, rate]) => `${name} ${rate === 'off' ? 'off' : formatRate(rate)}`)
    .join(', ');
}

function formatRate({ requests, per }: RateConfig): string {
  return `${requests}/${formatDuration(per)}`;
}

/** One line a route, in the order in which they are matched. */
function routeRows({ routes }: Config): Row[] {
  const head =
    'path,upstream,methods,token,requires,csrf,body,parallel,streams,rate,bandwidth,websocket,cache,headers,cookies'.split(
      ',',
    );
  const rows = routes
    .toSorted((a, b) => b.path.length - a.path.length)
    .map((route) => {
      const { path, upstreams, methods, token, csrf, limits, websocket, cache, headers, cookies } = route;
      return [
        path,
        `-> ${upstreams.join(', ')}`,
        methods.length === METHODS.length ? 'all' : methods.join(' '),
        routeToken(route),
        requirementText(route),
        csrf,
        limits.requestBody === undefined ? 'any' : formatSize(limits.requestBody),
        token === 'none' ? '-' : String(limits.parallel),
        token === 'none' ? '-' : String(limits.eventStreams),
        limits.rate === undefined ? 'any' : formatRate(limits.rate),
        limits.bandwidth === undefined ? 'any' : `${formatSize(limits.bandwidth)}/s`,
        websocket === undefined ? '-' : webSocketCell(websocket, token),
        cache,
        `+${headers.requestAllow.length}/+${headers.responseAllow.length}${headers.security.frameAncestors === 'self' ? ', may be framed' : ''}`,
        cookies.join(' ') || 'none',
      ];
    });
  return [head, ...rows];
}

function webSocketCell(
  { idle, perSession, keepsSession }: NonNullable<RouteConfig['websocket']>,
  token: RouteConfig['token'],
): string {
  const limits = token === 'none' ? '' : `, ${String(perSession)} a session`;
  return `${formatDuration(idle)}${limits}${keepsSession ? ', keeps it' : ''}`;
}

function timeoutRows(config: Config): Row[] {
  const line = (times: Readonly<Record<string, number>>) =>
    Object.entries(times)
      .map(([name, value]) => `${name} ${formatDuration(value)}`)
      .join(', ');
  const { idle, absolute, lifetimes } = config.session;
  const rows: Row[] = [['session', line({ idle, absolute })]];
  for (const lifetime of lifetimes) {
    const { idle: itsIdle = idle, absolute: itsAbsolute = absolute } = lifetime;
    const whose = requirementText({ require: { claims: lifetime.claims } });
    rows.push([`session of ${whose}`, line({ idle: itsIdle, absolute: itsAbsolute })]);
  }
  if (config.store.kind === 'redis') {
    const { connectTimeout, commandTimeout } = config.store;
    rows.push(['Redis', line({ connect: connectTimeout, command: commandTimeout })]);
  }
  for (const { name, timeout, metadataTimeout, clockTolerance } of config.providers) {
    rows.push([
      `provider ${name}`,
      line({ calls: timeout, metadata: metadataTimeout, 'clock tolerance': clockTolerance }),
    ]);
  }
  for (const { path, timeouts } of config.routes) {
    rows.push([
      `route ${path}`,
      line({ connect: timeouts.connect, 'first byte': timeouts.firstByte, idle: timeouts.idle }),
    ]);
  }
  rows.push(['shutdown', line(config.shutdown)]);
  return rows;
}

class Report {
  readonly #faults: string[] = [];

  section(title: string): void {
    process.stdout.write(`\n${title}\n`);
  }

  table(rows: readonly Row[]): void {
    const widths: number[] = [];
    for (const row of rows) {
      row.forEach((cell, index) => (widths[index] = Math.max(widths[index] ?? 0, cell.length)));
    }
    for (const row of rows) {
      const cells = row.map((cell, index) =>
        index === row.length - 1 ? cell : cell.padEnd(widths[index] ?? 0),
      );
      process.stdout.write(`  ${cells.join('  ')}\n`);
    }
  }

  findings(subject: string, findings: readonly Finding[]): void {
    for (const { verdict, text } of findings) {
      process.stdout.write(`  ${verdict.padEnd(5)}  ${text}\n`);
      if (verdict === 'fault') this.#faults.push(`${subject}: ${text}`);
    }
  }

  end(): number {
    if (this.#faults.length === 0) {
      process.stdout.write('\nEverything was reached.\n');
      return 0;
    }
    process.stdout.write('\n');
    for (const line of this.#faults) process.stderr.write(`cloakroom: ${line}\n`);
    return EX_CONFIG;
  }
}
