import { X509Certificate } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { isIP } from 'node:net';
import type { AdminConfig } from '../config/config.js';
import type { AuditLog } from '../endings/audit-log.js';
import { CloakroomError } from '../errors.js';
import { TokenBuckets, type Rate } from '../limits/token-buckets.js';
import { setCaller } from './caller.js';
import { Operators, type Operator } from './operators.js';

/** Attempts with a wrong token that one address has in a minute, before it is not listened to for a while. */
const MISTAKES_PER_MINUTE = 10;
const LOOPBACK = new Set(['localhost', '127.0.0.1', '::1']);

/** Says nothing about anybody, so anybody may ask. */
const OPEN_PATH = '/livez';

/** What every request passes before anything looks at what it wants. */
export class Gate {
  readonly #config: AdminConfig;
  readonly #operators: Operators;
  readonly #audit: AuditLog;
  readonly #certificate: X509Certificate | undefined;
  readonly #mistakes = new TokenBuckets(perMinute(MISTAKES_PER_MINUTE));
  readonly #byAddress: TokenBuckets;
  readonly #byOperator: TokenBuckets;
  readonly #toldOf = new TokenBuckets(perMinute(1));

  /** @param certificate PEM of the listener's own, when it speaks TLS */
  constructor(config: AdminConfig, certificate: Buffer | undefined, audit: AuditLog) {
    this.#config = config;
    this.#operators = new Operators(config);
    this.#audit = audit;
    this.#certificate = certificate && new X509Certificate(certificate);
    this.#byAddress = new TokenBuckets(perMinute(config.requestsPerMinute));
    this.#byOperator = new TokenBuckets(perMinute(config.requestsPerMinute));
  }

  /** @throws {CloakroomError} `forbidden`, `too-many-requests`, `unauthorized` */
  pass(request: IncomingMessage, path: string): void {
    const address = (request.socket.remoteAddress ?? '').replace(/^::ffff:/i, '');
    if (path === OPEN_PATH) return;
    let operator: Operator | undefined;
    try {
      this.#refuseBrowsers(request);
      this.#refuseForeignHosts(request);
      // Before the token is looked at: an address that guesses learns nothing from its next guess.
      limit(this.#mistakes.wait(address));
      limit(this.#byAddress.take(address));
      operator = this.#operators.identify(request);
      if (operator === undefined) {
        this.#mistakes.take(address);
        throw new CloakroomError('unauthorized');
      }
      setCaller(request, { ...operator, address });
      limit(this.#byOperator.take(operator.name));
      // What only looks is a GET; whatever is added later and is none needs the stronger role.
      const looks = request.method === 'GET' || request.method === 'HEAD';
      if (!looks && operator.role !== 'end') {
        throw new CloakroomError('forbidden', { public: { reason: 'role' } });
      }
    } catch (error) {
      this.#tell(
        request,
        path,
        { name: operator?.name ?? 'unknown', from: address },
        CloakroomError.from(error),
      );
      throw error;
    }
  }

  /** Nobody uses this from a page. What a browser sends on behalf of one, it marks (Fetch, "Origin" and "Sec-Fetch-Site"). */
  #refuseBrowsers({ headers }: IncomingMessage): void {
    const site = headers['sec-fetch-site'];
    if (headers.origin === undefined && (site === undefined || site === 'none')) return;
    throw new CloakroomError('forbidden', { public: { reason: 'browser' } });
  }

  /** A name that its owner points at this address (DNS rebinding) is none of these. */
  #refuseForeignHosts({ headers }: IncomingMessage): void {
    const name = hostName(headers.host ?? '');
    if (LOOPBACK.has(name) || name === this.#config.host.toLowerCase()) return;
    const covered = isIP(name) === 0 ? this.#certificate?.checkHost(name) : this.#certificate?.checkIP(name);
    if (covered !== undefined) return;
    throw new CloakroomError('forbidden', { public: { reason: 'host' } });
  }

  /** Once a minute for each caller and reason: whoever hammers at the door must not fill the log. */
  #tell(
    request: IncomingMessage,
    path: string,
    who: { name: string; from: string },
    { code, public: { reason } }: CloakroomError,
  ): void {
    if (this.#toldOf.take(JSON.stringify([who, code, reason])) > 0) return;
    const { method } = request;
    this.#audit.record(
      'admin_refused',
      { kind: 'operator', ...who },
      { problem: code, reason, method, path },
    );
  }
}

function limit(wait: number): void {
  if (wait > 0) throw new CloakroomError('too-many-requests', { retryAfter: wait / 1000 });
}

function perMinute(requests: number): Rate {
  return { requests, per: 60_000 };
}

/** The name in a Host header, without port and brackets. */
function hostName(host: string): string {
  const bracketed = /^\[([^\]]*)\](?::\d+)?$/.exec(host)?.[1];
  return (bracketed ?? host.replace(/:\d*$/, '')).toLowerCase();
}
