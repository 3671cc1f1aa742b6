import { randomBytes } from 'node:crypto';
import { inParallel, type BrowserResponse } from './browser-client.js';
import type { Administration, Seeded, SeedWish } from './administration.js';
import type { Cloakroom } from './cloakroom.js';
import type { FaultProvider } from './fault-provider.js';

/** Tokens that the provider knows, as if they had come from a login. */
export function issueTokens(
  { ledger }: FaultProvider,
  sub: string,
): { accessToken: string; refreshToken: string } {
  const grant = { family: `family-${randomBytes(9).toString('hex')}`, sub, scope: 'openid' };
  const accessToken = `at-${randomBytes(32).toString('base64url')}`;
  const refreshToken = `rt-${randomBytes(32).toString('base64url')}`;
  const now = Date.now();
  ledger.accessTokens.set(accessToken, {
    ...{ ...grant, token: accessToken, issuedAt: now, expiresAt: now + 3_600_000, revokedAt: undefined },
  });
  ledger.refreshTokens.set(refreshToken, {
    ...{
      ...grant,
      token: refreshToken,
      issuedAt: now,
      nonce: undefined,
      sid: randomBytes(12).toString('hex'),
    },
    ...{
      authTime: now / 1000,
      spentAt: [],
      successor: undefined,
      revokedAt: undefined,
      revokedBy: undefined,
    },
  });
  ledger.see('access_token', accessToken);
  ledger.see('refresh_token', refreshToken);
  return { accessToken, refreshToken };
}

/** Sessions without logins, each of a subject of its own. */
export async function seedSessions(
  room: Cloakroom,
  administration: Administration,
  count: number,
  name: string,
): Promise<(Seeded & { subject: string })[]> {
  return await seedEach(
    room,
    administration,
    Array.from({ length: count }, (_, i) => ({ subject: `${name}-${String(i)}` })),
  );
}

export async function seedEach(
  room: Cloakroom,
  administration: Administration,
  wishes: readonly Omit<SeedWish, 'accessToken' | 'refreshToken'>[],
): Promise<(Seeded & { subject: string })[]> {
  const whole = wishes.map((wish) => ({ ...wish, ...issueTokens(room.provider, wish.subject) }));
  const seeded = await administration.seed(whole);
  return seeded.map((one, i) => ({ ...one, subject: wishes[i]?.subject ?? '' }));
}

/** The Cookie header of a seeded session. */
export function cookieOf({ cookie }: Seeded): string {
  return `__Host-cloakroom-session=${cookie}`;
}

/** The next request of a session on every replica. */
export async function onEveryReplica(room: Cloakroom, cookie: string): Promise<BrowserResponse[]> {
  const client = room.client();
  return await inParallel(room.replicas.map((_, replica) => () => client.api('/api/x', { replica, cookie })));
}

/** Status and reason of the next request of many sessions, each on every replica, as the set of what was answered. */
export async function answersOf(room: Cloakroom, cookies: readonly string[]): Promise<string[]> {
  const answers = await inParallel(
    cookies.map((cookie) => () => onEveryReplica(room, cookie)),
    8,
  );
  return [...new Set(answers.flat().map(verdict))].sort();
}

export function verdict({ status, problem, text }: BrowserResponse): string {
  if (problem === undefined) return String(status);
  const { reason } = JSON.parse(text) as { reason?: string };
  return [status, problem, ...(reason === undefined ? [] : [reason])].join(' ');
}
