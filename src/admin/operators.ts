import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { TLSSocket } from 'node:tls';
import type { AdminConfig, AdminRole } from '../config/config.js';

export interface Operator {
  name: string;
  role: AdminRole;
}

/** A token as RFC 6750 section 2.1 spells it; anything longer is nobody's. */
const BEARER = /^Bearer ([A-Za-z0-9\-._~+/]{1,512}=*)$/i;

/** Who may use the admin listener, and which of them is calling. */
export class Operators {
  readonly #tokens: readonly (Operator & { hash: Buffer })[];
  readonly #clients: ReadonlyMap<string, Operator>;

  constructor({ tokens, clients }: AdminConfig) {
    this.#tokens = tokens.map(({ name, role, sha256 }) => ({ name, role, hash: Buffer.from(sha256, 'hex') }));
    this.#clients = new Map(clients.map((client) => [client.name, client]));
  }

  /** By the token, where one is shown, else by the client certificate. Cookies and addresses of the caller mean nothing. */
  identify(request: IncomingMessage): Operator | undefined {
    const { authorization } = request.headers;
    return authorization === undefined ? this.#byCertificate(request) : this.#byToken(authorization);
  }

  /** Every hash is compared, and in full: how long it takes tells nothing about any of them. */
  #byToken(authorization: string): Operator | undefined {
    const hash = createHash('sha256')
      .update(BEARER.exec(authorization)?.[1] ?? '')
      .digest();
    let found: Operator | undefined;
    for (const token of this.#tokens) if (timingSafeEqual(token.hash, hash)) found = token;
    return BEARER.test(authorization) ? found : undefined;
  }

  #byCertificate({ socket }: IncomingMessage): Operator | undefined {
    // Set only when the certificate leads to the configured authority and is within its time.
    if (!(socket instanceof TLSSocket) || !socket.authorized) return undefined;
    const { subject } = socket.getPeerX509Certificate() ?? { subject: '' };
    // One attribute a line. A name given twice is nobody's: two readers might take different ones.
    const names = subject.split('\n').filter((line) => line.startsWith('CN='));
    return names.length === 1 ? this.#clients.get(names[0]?.slice('CN='.length) ?? '') : undefined;
  }
}
