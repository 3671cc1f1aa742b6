import type { BrowserClient, BrowserResponse, FinishOptions, LoginOptions } from './browser-client.js';
import type { Cloakroom, LogEvent } from './cloakroom.js';

/** What a login that led nowhere showed, to the browser and in the log. */
export interface RefusedLogin {
  status: number;
  /** `event` of the log line that carries the page's reference. */
  event: string | undefined;
  reason: string | undefined;
  line: LogEvent | undefined;
  response: BrowserResponse;
}

const EVENTS = new Set([
  'id_token_rejected',
  'callback_refused',
  'code_exchange_refused',
  'code_exchange_failed',
  'client_misconfigured',
  'userinfo_failed',
  'request_failed',
]);

/**
 * Tries to sign in and reports how that was refused.
 *
 * @throws when it led to a session after all, or when the answer is not the plain page with a reference
 */
export async function refusedLogin(
  room: Cloakroom,
  options: LoginOptions & FinishOptions & { client?: BrowserClient } = {},
): Promise<RefusedLogin> {
  const { client = room.client(), ...login } = options;
  const response = await client.login(login);
  if (response.status < 400) throw new Error(`the login was not refused: ${String(response.status)}`);
  if (client.sessionCookie !== undefined || response.setCookies.some((line) => line.includes('-session='))) {
    throw new Error('the refused login set a session cookie');
  }
  const reference = /Reference: ([\w-]+)/.exec(response.text)?.[1];
  if (!(response.headers['content-type'] ?? '').startsWith('text/html') || reference === undefined) {
    throw new Error(`no page with a reference: ${response.text.slice(0, 300)}`);
  }
  const mentions = (line: LogEvent): boolean =>
    EVENTS.has(line.event ?? '') && (line['reference'] === reference || line['request'] === reference);
  // The line is written before the answer, but may reach us after it.
  let line: LogEvent | undefined;
  for (let tries = 0; tries < 100 && line === undefined; tries += 1) {
    line = room.replicas.flatMap((replica) => replica.log.slice(-500)).find(mentions);
    if (line === undefined) await new Promise((resolve) => setTimeout(resolve, 10));
  }
  const reason = line?.['reason'];
  return {
    status: response.status,
    event: line?.event,
    reason: typeof reason === 'string' ? reason : undefined,
    line,
    response,
  };
}

/** How many sessions the store holds. */
export async function sessionCount(room: Cloakroom): Promise<number> {
  return ((await room.redis?.keys(`${room.prefix}:*:session`)) ?? []).length;
}
