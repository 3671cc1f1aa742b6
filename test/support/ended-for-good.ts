import type { Cloakroom } from './cloakroom.js';
import type { FaultProvider } from './fault-provider.js';

// What must be left of people whose sessions were ended: no session, nothing in a queue, no refresh token that is still good.

/** How often each refresh token of these people was revoked. */
export function revocationsOf({ ledger }: FaultProvider, subjects: ReadonlySet<string>): number[] {
  const counts = new Map<string, number>();
  for (const { token, sub } of ledger.refreshTokens.values()) if (subjects.has(sub)) counts.set(token, 0);
  for (const { params } of ledger.hitsOf('revocation')) {
    const token = params.get('token') ?? '';
    const known = counts.get(token);
    if (known !== undefined) counts.set(token, known + 1);
  }
  return [...counts.values()];
}

export function liveTokensOf({ ledger }: FaultProvider, subjects: ReadonlySet<string>): number {
  return ledger.liveRefreshTokens().filter(({ sub }) => subjects.has(sub)).length;
}

export async function sessionsLeft(room: Cloakroom, handles: readonly string[]): Promise<number> {
  const keys = handles.map((handle) => `${room.prefix}:{${handle}}:session`);
  return (await room.redis?.client.exists(...keys)) ?? -1;
}

export async function queued(room: Cloakroom, queue: 'endings' | 'revocations'): Promise<number> {
  return (await room.redis?.client.zcard(`${room.prefix}:{${queue}}:queue`)) ?? -1;
}
