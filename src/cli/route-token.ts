import type { RouteConfig } from '../config/config.js';
import { formatDuration } from '../config/duration.js';

/** Which token goes along with a route, for a person to read. */
export function routeToken({ token, audience, clientScope, exchange, introspect }: RouteConfig): string {
  const parts: string[] = [token];
  if (audience !== undefined) parts.push(`for ${audience}`);
  if (clientScope !== undefined) parts.push(`(${clientScope})`);
  if (exchange !== undefined) {
    const { resource, scope } = exchange;
    const whom = [exchange.audience, resource].filter((name) => name !== undefined).join(', ');
    parts.push(whom === '' ? 'exchanged' : `exchanged for ${whom}`);
    if (scope !== undefined) parts.push(`(${scope})`);
  }
  if (introspect !== undefined) parts.push(`introspected every ${formatDuration(introspect)}`);
  return parts.join(' ');
}
