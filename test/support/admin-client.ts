import { createHash, randomBytes } from 'node:crypto';
import type { Cloakroom, ConfigFile, Replica } from './cloakroom.js';

export interface AdminToken {
  name: string;
  role: 'read' | 'end';
  token: string;
}

export function adminToken(name: string, role: 'read' | 'end'): AdminToken {
  return { name, role, token: randomBytes(32).toString('base64url') };
}

/** The block of the configuration for these tokens: a free port, and no limit that tests would meet by accident. */
export function adminConfig(tokens: AdminToken[], changes: ConfigFile = {}): ConfigFile {
  return {
    port: 0,
    tokens: tokens.map(({ name, role, token }) => ({
      name,
      role,
      sha256: createHash('sha256').update(token).digest('hex'),
    })),
    requestsPerMinute: 100_000,
    ...changes,
  };
}

/** Where a replica's admin listener is. */
export function adminPort(replica: Replica): number {
  const port = replica.events('admin_listening').at(-1)?.['port'];
  if (typeof port !== 'number') throw new Error(`no admin listener\n${replica.tail()}`);
  return port;
}

export interface AdminAnswer<T = Record<string, unknown>> {
  status: number;
  headers: Headers;
  text: string;
  /** The JSON body, or undefined. */
  body: T;
}

/** An operator with a token. */
export class AdminClient {
  constructor(
    private readonly room: Cloakroom,
    private readonly token: AdminToken | undefined,
    private readonly replica = 0,
  ) {}

  /** The same operator at another replica. */
  at(replica: number): AdminClient {
    return new AdminClient(this.room, this.token, replica);
  }

  async get<T = Record<string, unknown>>(path: string, headers = {}): Promise<AdminAnswer<T>> {
    return await this.send<T>('GET', path, undefined, headers);
  }

  async delete(path: string, headers = {}): Promise<AdminAnswer> {
    return await this.send('DELETE', path, undefined, headers);
  }

  async post<T = Record<string, unknown>>(
    path: string,
    body: unknown,
    headers: Record<string, string> = {},
  ): Promise<AdminAnswer<T>> {
    return await this.send<T>('POST', path, JSON.stringify(body), {
      'content-type': 'application/json',
      ...headers,
    });
  }

  async send<T>(
    method: string,
    path: string,
    body: string | undefined,
    headers: Record<string, string>,
  ): Promise<AdminAnswer<T>> {
    const answer = await fetch(
      `http://127.0.0.1:${String(adminPort(this.room.replica(this.replica)))}${path}`,
      {
        method,
        headers: {
          ...(this.token === undefined ? {} : { authorization: `Bearer ${this.token.token}` }),
          ...headers,
        },
        ...(body === undefined ? {} : { body }),
        redirect: 'manual',
      },
    );
    const text = await answer.text();
    const json = /json/.test(answer.headers.get('content-type') ?? '');
    return {
      status: answer.status,
      headers: answer.headers,
      text,
      body: (json ? JSON.parse(text) : undefined) as T,
    };
  }

  /** The two steps of what reaches beyond one person. */
  async confirmed(path: string, body: Record<string, unknown>, headers = {}): Promise<AdminAnswer> {
    const planned = await this.post<{ confirm?: string }>(path, { ...body, dryRun: true });
    return await this.post(path, { ...body, confirm: planned.body.confirm }, headers);
  }
}

export interface AdminSession {
  handle: string;
  provider: string;
  issuer: string;
  subject: string;
  email?: string;
  sid?: string;
  createdAt: string;
  usedAt: string;
  absoluteExpiresAt: string;
  browser?: string;
  platform?: string;
  address?: string;
  bound: string;
}

export interface SessionPage {
  sessions: AdminSession[];
  next?: string;
}
