import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { BrowserClient } from './browser-client.js';
import { repository, type Cloakroom } from './cloakroom.js';
import { BrowserSocket } from './web-socket.js';

// What tests behind a gateway of somebody else have in common.

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
