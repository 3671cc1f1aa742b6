import type { ChildProcessByStdio } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { BrowserClient } from './browser-client.js';
import { repository, type Cloakroom } from './cloakroom.js';
import { closeLater, eventually, guard } from './lifetime.js';
import { BrowserSocket } from './web-socket.js';

// What tests behind a gateway of somebody else have in common.

/** Waits for a gateway that was started for the tests, and ends it with them. */
export async function untilItListens(
  name: string,
  child: ChildProcessByStdio<null, null, Readable>,
  port: number,
): Promise<void> {
  guard(child);
  closeLater(() => {
    child.kill('SIGKILL');
  });
  let complaints = '';
  child.stderr.on('data', (chunk: Buffer) => (complaints += chunk.toString('utf8')));
  await eventually(
    async () => {
      if (child.exitCode !== null)
        throw new Error(`${name} ended with ${String(child.exitCode)}: ${complaints}`);
      return isListening(port);
    },
    { timeout: 10_000, what: `${name} to listen` },
  );
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/** A configuration of docs/ with changes, each of which must find its place. */
export function fromDocs(name: string, changes: Record<string, string>): string {
  let text = readFileSync(join(repository, 'docs', name), 'utf8');
  for (const [from, to] of Object.entries(changes)) {
    if (!text.includes(from)) throw new Error(`docs/${name} does not say ${from}`);
    text = text.replaceAll(from, to);
  }
  return text;
}

/** A browser whose requests go to a gateway. */
export function browserAt(c: Cloakroom, port: number): BrowserClient {
  return new BrowserClient({
    publicUrl: c.publicUrl,
    replicas: () => [`http://127.0.0.1:${String(port)}`],
  });
}

/** Opens a WebSocket through a gateway; what the proxy in front says of itself, that one says. */
export function openSocketAt(
  port: number,
  client: BrowserClient,
  path: string,
  headers: Record<string, string | undefined> = {},
): Promise<BrowserSocket> {
  const room = { replica: () => ({ clientPort: port }) } as unknown as Cloakroom;
  return BrowserSocket.open(room, client, path, { headers: { 'x-forwarded-proto': undefined, ...headers } });
}
