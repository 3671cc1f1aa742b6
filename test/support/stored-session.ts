import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Sealer } from '../../src/store/sealer.js';
import type { SessionContents } from '../../src/store/session-contents.js';
import { sessionScripts } from '../../src/store/session-scripts.js';
import type { BrowserClient } from './browser-client.js';
import type { Cloakroom } from './cloakroom.js';
import type { RedisServer } from './redis.js';

/** A session as Redis holds it, found and opened with what the test knows: the browser's cookie and the server's key. */
export class StoredSession {
  readonly secret: Buffer;
  readonly handle: string;
  readonly key: string;

  constructor(
    private readonly room: Cloakroom,
    client: BrowserClient,
  ) {
    const id = /^s(?::|%3A)([A-Za-z0-9_-]{43})\./.exec(client.sessionCookie?.value ?? '')?.[1];
    if (id === undefined) throw new Error('this browser has no session cookie');
    this.secret = Buffer.from(id, 'base64url');
    this.handle = createHash('sha256').update('cloakroom/handle/v1').update(this.secret).digest('base64url');
    this.key = `${room.prefix}:{${this.handle}}:session`;
  }

  private get redis(): RedisServer {
    if (this.room.redis === undefined) throw new Error('these replicas have no Redis of the test');
    return this.room.redis;
  }

  async exists(): Promise<boolean> {
    return (await this.redis.client.exists(this.key)) === 1;
  }

  /** As an operator does it. */
  async delete(): Promise<void> {
    await this.redis.command('DEL', this.key);
  }

  async field(name: string): Promise<string | null> {
    return await this.redis.client.hget(this.key, name);
  }

  async generation(): Promise<number> {
    return Number(await this.field('gen'));
  }

  async contents(): Promise<SessionContents> {
    const [sealed] = await this.redis.client.hmgetBuffer(this.key, 'sealed');
    const key = Buffer.from(readFileSync(join(this.room.folder, 'seal-0'), 'utf8'));
    const context = { type: 'session', id: this.handle, generation: await this.generation() } as const;
    const kid = (await this.field('kid')) ?? '';
    const opened = new Sealer([key], this.room.prefix).open(
      this.secret,
      context,
      kid,
      sealed ?? Buffer.alloc(0),
    );
    if (typeof opened !== 'object' || opened === null)
      throw new Error(`the record does not open: ${String(opened)}`);
    return opened as SessionContents;
  }
}

/** What `dropNextReply` looks for to catch one of our scripts and no other: the client library sends it whole or by hash. */
export function scriptCall(name: keyof typeof sessionScripts): RegExp {
  const lua = sessionScripts[name];
  const text = lua.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`${createHash('sha1').update(lua).digest('hex')}|${text}`);
}
