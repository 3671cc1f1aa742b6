import { Agent, request } from 'undici';
import { formatDuration } from '../config/duration.js';
import type { Config, ProviderConfig, RouteConfig } from '../config/config.js';
import { Logger } from '../observability/logger.js';
import { OidcClient } from '../oidc/oidc-client.js';
import { TOKEN_EXCHANGE } from '../oidc/further-grants.js';
import { providerFetch } from '../oidc/provider-fetch.js';
import type { RedisSettings } from '../store/redis-clients.js';
import { probeRedis, type ClusterShards, type RedisReport } from '../store/redis-probe.js';

/** Whether what the configuration points at is there. One attempt each, within the configured time limits. */

export interface Finding {
  readonly verdict: 'ok' | 'note' | 'fault';
  readonly text: string;
}

const ok = (text: string): Finding => ({ verdict: 'ok', text });
const note = (text: string): Finding => ({ verdict: 'note', text });
const fault = (text: string): Finding => ({ verdict: 'fault', text });

/** Hears why the client could not use the provider: the server itself only logs that. */
class Overhearing extends Logger {
  cause: unknown;

  constructor() {
    super('error', { write: () => undefined });
  }

  override error(_event: string, fields?: Record<string, unknown>): void {
    this.cause ??= fields?.['error'];
  }
}

export async function probeProvider(provider: ProviderConfig, redirectUri: string): Promise<Finding[]> {
  const logger = new Overhearing();
  const client = new OidcClient(provider, redirectUri, logger);
  const began = performance.now();
  try {
    const metadata = await client.serverMetadata();
    const findings = [ok(`metadata read in ${since(began)}`)];
    for (const name of ['authorization_endpoint', 'token_endpoint'] as const) {
      findings.push(ok(`${name} ${String(metadata[name])}`));
    }
    for (const [name, without] of [
      ['end_session_endpoint', 'logout ends our session only, not the one at the provider'],
      ['revocation_endpoint', 'refresh tokens cannot be revoked at logout'],
    ] as const) {
      const value = metadata[name];
      if (value !== undefined) findings.push(ok(`${name} ${value}`));
      else findings.push(note(`no ${name}: ${without}`));
    }
    if (provider.userinfo !== 'off' && metadata.userinfo_endpoint === undefined) {
      const missing = `no userinfo_endpoint, but userinfo is ${provider.userinfo}`;
      findings.push(provider.userinfo === 'required' ? fault(missing) : note(missing));
    }
    if (provider.wanted.introspection) {
      const endpoint = metadata.introspection_endpoint;
      const without = 'no introspection_endpoint, but routes have introspect: nothing would pass there';
      findings.push(endpoint === undefined ? fault(without) : ok(`introspection_endpoint ${endpoint}`));
    }
    const s256 = metadata.code_challenge_methods_supported?.includes('S256') === true;
    findings.push(
      s256 ? ok('PKCE with S256') : note('PKCE with S256 is not advertised; allowed by pkceUnadvertised'),
    );
    findings.push(...advertised(provider, metadata), await probeKeys(provider, String(metadata.jwks_uri)));
    return findings;
  } catch (error) {
    return [fault(`metadata: ${describe(logger.cause ?? error)}`)];
  } finally {
    await client.close();
  }
}

function advertised(provider: ProviderConfig, metadata: Readonly<Record<string, unknown>>): Finding[] {
  const findings: Finding[] = [];
  const compare = (member: string, wanted: readonly string[], setting: string) => {
    const offered = metadata[member];
    if (!Array.isArray(offered)) return;
    const missing = wanted.filter((value) => !offered.includes(value));
    if (missing.length > 0) findings.push(note(`${setting} ${missing.join(', ')} is not in ${member}`));
  };
  compare('scopes_supported', provider.scopes, 'scope');
  compare('token_endpoint_auth_methods_supported', [provider.clientAuth.replace('_plain', '')], 'clientAuth');
  compare('response_modes_supported', [provider.responseMode], 'responseMode');
  const { clientCredentials, tokenExchange } = provider.wanted;
  if (clientCredentials) compare('grant_types_supported', ['client_credentials'], 'token: client needs');
  if (tokenExchange) compare('grant_types_supported', [TOKEN_EXCHANGE], 'exchange needs');
  const signing = metadata['id_token_signing_alg_values_supported'];
  if (Array.isArray(signing) && !provider.idTokenAlgs.some((alg) => signing.includes(alg))) {
    findings.push(
      fault(`the provider signs ID tokens by ${signing.join(', ')}, none of which is in idTokenAlgs`),
    );
  }
  return findings;
}

async function probeKeys(provider: ProviderConfig, uri: string): Promise<Finding> {
  const { fetch, close } = providerFetch(provider.issuer, provider.endpointHosts);
  try {
    const response = await fetch(uri, { signal: AbortSignal.timeout(provider.metadataTimeout) });
    if (response.status !== 200) return fault(`keys: ${uri} answered ${response.status}`);
    const { keys } = (await response.json()) as { keys?: readonly { use?: string; kty?: string }[] };
    if (!Array.isArray(keys)) return fault(`keys: ${uri} is not a key set`);
    const signing = (keys as readonly { use?: string }[]).filter(
      ({ use }) => use === undefined || use === 'sig',
    );
    return signing.length > 0
      ? ok(`${signing.length} signing ${signing.length === 1 ? 'key' : 'keys'} at ${uri}`)
      : fault(`keys: ${uri} holds no signing key`);
  } catch (error) {
    return fault(`keys: ${describe(error)}`);
  } finally {
    await close();
  }
}

export async function probeStore(store: Config['store']): Promise<Finding[]> {
  if (store.kind === 'memory')
    return [note('memory: sessions end with the process, and there can be one process only')];
  const place = redisPlace(store.url);
  const began = performance.now();
  try {
    const report = await probeRedis(store);
    const findings = [ok(`Redis at ${place} answered PING in ${since(began)}`)];
    if (report.shards !== undefined) return [...findings, ...(await probeShards(store, report.shards))];
    return [...findings, ...judgeTopology(store.cluster, report), ...judgeServer(report)];
  } catch (error) {
    return [fault(`Redis at ${place}: ${describe(error)}`)];
  }
}

function judgeTopology(cluster: boolean, { clustered, role, replicas }: RedisReport): Finding[] {
  if (cluster && clustered === false)
    return [fault('this Redis is no node of a Cluster, but store.redis.cluster is true')];
  if (!cluster && clustered === true)
    return [fault('this Redis is a node of a Cluster: set store.redis.cluster: true')];
  if (role === 'slave') return [fault('this Redis is a replica, which takes no writes')];
  return [copies(replicas)];
}

function copies(replicas: number | undefined): Finding {
  if (replicas === undefined) return note('replicas not readable');
  if (replicas === 0) return note('no replica: what is written is in one place only');
  return ok(replicas === 1 ? '1 replica' : `${replicas} replicas`);
}

function judgeServer({ version, eviction, limit }: RedisReport): Finding[] {
  return [judgeVersion(version), evictionOf(eviction, limit)];
}

/** Every master has sessions of its own, so each must do. */
async function probeShards(store: RedisSettings, { masters, slots }: ClusterShards): Promise<Finding[]> {
  const found = `Redis Cluster with ${masters.length} ${masters.length === 1 ? 'master' : 'masters'}`;
  const missing = 16384 - slots;
  const each = await Promise.all(
    masters.map(async (at) => {
      const place = `${at.host}:${at.port}`;
      try {
        const report = await probeRedis(store, at);
        return [copies(report.replicas), ...judgeServer(report)].map(({ verdict, text }) => ({
          verdict,
          text: `${place} ${text}`,
        }));
      } catch (error) {
        return [fault(`${place}: ${describe(error)}`)];
      }
    }),
  );
  return [
    missing === 0 ? ok(found) : fault(`${found}, but ${missing} of 16384 slots have none`),
    ...each.flat(),
  ];
}

/** GETDEL, by which a login or logout under way is used once only, came with 6.2. */
function judgeVersion(version: string | undefined): Finding {
  if (version === undefined) return note('version not readable; 6.2 or later is needed');
  const [major = 0, minor = 0] = version.split('.').map(Number);
  const old = major < 6 || (major === 6 && minor < 2);
  return old ? fault(`version ${version}, but 6.2 or later is needed`) : ok(`version ${version}`);
}

function evictionOf(policy: string | undefined, limit: string | undefined): Finding {
  if (policy === undefined) return note('eviction policy not readable; it should be noeviction');
  if (policy === 'noeviction') return ok('eviction policy noeviction');
  const now = limit === '0' ? ', though no memory limit is set now' : '';
  return note(`eviction policy ${policy}: a full Redis would log people out${now}; set noeviction`);
}

/** Never with user name or password. */
export function redisPlace(url: string): string {
  const { protocol, host, pathname } = new URL(url);
  return `${protocol}//${host}${pathname}`;
}

/** Any HTTP answer will do: what the upstream thinks of this address is its own business. */
export async function probeUpstream(upstream: string, timeouts: RouteConfig['timeouts']): Promise<Finding> {
  const { connect, firstByte } = timeouts;
  const patience = Math.min(firstByte, 5000);
  const agent = new Agent({ connect: { timeout: connect }, headersTimeout: patience, bodyTimeout: patience });
  const began = performance.now();
  try {
    const { statusCode, body } = await request(upstream, { method: 'HEAD', dispatcher: agent });
    await body.dump();
    return ok(`answered (${statusCode}) in ${since(began)}`);
  } catch (error) {
    const code = codeOf(error);
    if (code === 'UND_ERR_HEADERS_TIMEOUT')
      return note(`connected, but no answer to HEAD within ${formatDuration(patience)}`);
    return fault(describe(error));
  } finally {
    await agent.destroy();
  }
}

function since(began: number): string {
  return `${Math.round(performance.now() - began)} ms`;
}

const PLAIN: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused',
  ENOTFOUND: 'no such host name',
  EAI_AGAIN: 'the host name cannot be looked up now',
  EHOSTUNREACH: 'no route to this host',
  ENETUNREACH: 'no route to this network',
  ECONNRESET: 'connection reset',
  ETIMEDOUT: 'no connection in time',
  UND_ERR_CONNECT_TIMEOUT: 'no connection in time',
  UND_ERR_SOCKET: 'the connection was closed without an answer',
  CERT_HAS_EXPIRED: 'its certificate has expired',
  DEPTH_ZERO_SELF_SIGNED_CERT:
    'its certificate is self-signed; NODE_EXTRA_CA_CERTS names further authorities',
  SELF_SIGNED_CERT_IN_CHAIN:
    'its certificate chain is self-signed; NODE_EXTRA_CA_CERTS names further authorities',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'its certificate chain is incomplete',
  ERR_TLS_CERT_ALTNAME_INVALID: 'its certificate is for another host name',
};

function* chainOf(error: unknown): Generator<Error> {
  for (let current = error, depth = 0; current instanceof Error && depth < 8; depth += 1) {
    yield current;
    const several = current instanceof AggregateError ? (current.errors[0] as unknown) : undefined;
    current = several ?? current.cause;
  }
}

function codeOf(error: unknown): string | undefined {
  for (const { code } of chainOf(error) as Generator<NodeJS.ErrnoException>) {
    if (code !== undefined && Object.hasOwn(PLAIN, code)) return code;
  }
  return (error as NodeJS.ErrnoException | undefined)?.code;
}

/** The innermost reason, on one line. */
export function describe(error: unknown): string {
  const code = codeOf(error);
  if (code !== undefined && Object.hasOwn(PLAIN, code)) return PLAIN[code] ?? code;
  const chain = [...chainOf(error)];
  if (chain.some(({ name }) => name === 'TimeoutError')) return 'no answer in time';
  const messages = chain.map(({ message }) => message).filter((message) => message !== '');
  if (messages.includes('Command timed out')) return 'no answer in time';
  // The text may come from the other side: it gets no line of its own and no escape sequences.
  return JSON.stringify([...new Set(messages)].join(': ') || 'unknown failure').slice(1, -1);
}
