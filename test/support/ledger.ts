import { appendFileSync } from 'node:fs';
import { join } from 'node:path';
import { runSubfolder, uniqueName } from './run-folder.js';
import { abridged } from './secret-search.js';

export type Endpoint =
  | 'discovery'
  | 'jwks'
  | 'authorize'
  /** The token endpoint, authorization_code grant. */
  | 'token'
  /** The token endpoint, refresh_token grant. */
  | 'refresh'
  | 'client_credentials'
  | 'token_exchange'
  | 'introspection'
  | 'userinfo'
  | 'revocation'
  | 'end_session';

export type SecretKind =
  'access_token' | 'refresh_token' | 'id_token' | 'verifier' | 'client_secret' | 'code';

export interface Hit {
  endpoint: Endpoint;
  at: number;
  endedAt: number | undefined;
  /** What was answered; undefined when the connection was cut or is still open. */
  status: number | undefined;
  params: URLSearchParams;
  headers: Record<string, string | string[] | undefined>;
}

export interface CodeRecord {
  code: string;
  family: string;
  sub: string;
  redirectUri: string;
  challenge: string | undefined;
  challengeMethod: string | undefined;
  nonce: string | undefined;
  scope: string;
  issuedAt: number;
  spentAt: number | undefined;
}

export interface AccessTokenRecord {
  token: string;
  family: string;
  sub: string;
  scope: string;
  /** Whom it was asked for. */
  audience?: string | undefined;
  issuedAt: number;
  expiresAt: number;
  revokedAt: number | undefined;
}

export interface RefreshTokenRecord {
  token: string;
  family: string;
  sub: string;
  scope: string;
  nonce: string | undefined;
  authTime: number;
  sid: string;
  issuedAt: number;
  /** Every use that reached the point of commit, the refused ones too. */
  spentAt: number[];
  successor: string | undefined;
  revokedAt: number | undefined;
  revokedBy: 'endpoint' | 'reuse' | 'test' | 'delete' | undefined;
}

export interface DoubleSpend {
  token: string;
  family: string;
  at: number;
  /** Milliseconds since the first use. */
  after: number;
  /** Whether the rotation policy let it pass (leeway). */
  accepted: boolean;
}

/** Where the providers of this test file write down their secrets. */
export const secretFiles: string[] = [];

/** What the provider knows about everything it handed out and everything it was shown. */
export class Ledger {
  readonly codes = new Map<string, CodeRecord>();
  readonly accessTokens = new Map<string, AccessTokenRecord>();
  readonly refreshTokens = new Map<string, RefreshTokenRecord>();
  readonly idTokens = new Set<string>();
  readonly verifiers = new Set<string>();
  readonly clientSecrets = new Set<string>();
  readonly hits: Hit[] = [];
  readonly doubleSpends: DoubleSpend[] = [];
  /** How clients proved who they are, in order: `basic`, `post`, `none`. */
  readonly clientAuthentications: string[] = [];
  private readonly running = new Map<Endpoint, number>();
  private readonly highest = new Map<Endpoint, number>();
  private readonly file = join(runSubfolder('secrets'), `${uniqueName('ledger')}.ndjson`);
  private pending: string[] = [];
  private flushing = false;

  constructor() {
    secretFiles.push(this.file);
  }

  begin(endpoint: Endpoint, params: URLSearchParams, headers: Hit['headers']): Hit {
    const hit: Hit = { endpoint, at: Date.now(), endedAt: undefined, status: undefined, params, headers };
    this.hits.push(hit);
    const now = (this.running.get(endpoint) ?? 0) + 1;
    this.running.set(endpoint, now);
    if (now > (this.highest.get(endpoint) ?? 0)) this.highest.set(endpoint, now);
    return hit;
  }

  end(hit: Hit, status: number | undefined): void {
    if (hit.endedAt !== undefined) return;
    hit.endedAt = Date.now();
    hit.status = status;
    this.running.set(hit.endpoint, (this.running.get(hit.endpoint) ?? 1) - 1);
  }

  count(endpoint: Endpoint): number {
    return this.hitsOf(endpoint).length;
  }

  hitsOf(endpoint: Endpoint): Hit[] {
    return this.hits.filter((hit) => hit.endpoint === endpoint);
  }

  /** Requests being answered at this moment. */
  concurrency(endpoint: Endpoint): number {
    return this.running.get(endpoint) ?? 0;
  }

  /** The most requests of this kind that were ever in the air together. */
  highWater(endpoint: Endpoint): number {
    return this.highest.get(endpoint) ?? 0;
  }

  /** Forgets hits, double spends and high-water marks; tokens stay, since the search for leaks needs them. */
  resetCounts(): void {
    this.hits.length = 0;
    this.doubleSpends.length = 0;
    this.clientAuthentications.length = 0;
    this.highest.clear();
  }

  /** Refresh tokens that would still be accepted. */
  liveRefreshTokens(filter: { family?: string; sub?: string } = {}): RefreshTokenRecord[] {
    return [...this.refreshTokens.values()].filter(
      (record) =>
        record.revokedAt === undefined &&
        record.successor === undefined &&
        (filter.family === undefined || filter.family === record.family) &&
        (filter.sub === undefined || filter.sub === record.sub),
    );
  }

  families(): string[] {
    return [...new Set([...this.refreshTokens.values()].map((record) => record.family))];
  }

  revokeFamily(family: string, by: NonNullable<RefreshTokenRecord['revokedBy']>): void {
    const at = Date.now();
    for (const record of this.refreshTokens.values()) {
      if (record.family === family && record.revokedAt === undefined) {
        record.revokedAt = at;
        record.revokedBy = by;
      }
    }
    for (const record of this.accessTokens.values()) {
      if (record.family === family) record.revokedAt ??= at;
    }
  }

  /** Whether an API would take this token now. */
  validAccessToken(token: string): AccessTokenRecord | undefined {
    const record = this.accessTokens.get(token);
    if (record === undefined || record.revokedAt !== undefined || record.expiresAt <= Date.now())
      return undefined;
    return record;
  }

  /** Remembers a secret for the search; everything handed out or shown goes through here. */
  see(kind: SecretKind, value: string): void {
    if (value === '') return;
    if (kind === 'id_token') {
      if (this.idTokens.has(value)) return;
      this.idTokens.add(value);
    } else if (kind === 'verifier') {
      if (this.verifiers.has(value)) return;
      this.verifiers.add(value);
    } else if (kind === 'client_secret') {
      if (this.clientSecrets.has(value)) return;
      this.clientSecrets.add(value);
    }
    this.pending.push(JSON.stringify([kind, abridged(value)]));
    if (this.flushing) return;
    this.flushing = true;
    setImmediate(() => {
      this.flush();
    });
  }

  /** Writes what the search must know; done by itself, and once more before a search. */
  flush(): void {
    this.flushing = false;
    if (this.pending.length === 0) return;
    appendFileSync(this.file, `${this.pending.join('\n')}\n`);
    this.pending = [];
  }

  /** Every string that must never reach a browser. Codes travel through the browser and are not among them. */
  secrets(): string[] {
    return [
      ...this.accessTokens.keys(),
      ...this.refreshTokens.keys(),
      ...this.idTokens,
      ...this.verifiers,
      ...this.clientSecrets,
    ];
  }
}
