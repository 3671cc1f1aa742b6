import { CloakroomError } from '../errors.js';
import type { EndedSession, StoredSession } from './store.js';

export type Reply = (Buffer | null)[];

/** A value of another type under our key is no session; an error would keep its owner out for ever. */
export function foreignIsNothing(error: unknown): [] {
  if (
    error instanceof CloakroomError &&
    error.cause instanceof Error &&
    /^WRONGTYPE/.test(error.cause.message)
  ) {
    return [];
  }
  throw error;
}

export function endedSession(reply: unknown): EndedSession | undefined {
  const [ended, generation, kid, sealed, touched, about, revocation] = reply as (Buffer | number | null)[];
  if (ended !== 1) return undefined;
  return {
    session: storedSession([generation, kid, sealed, touched] as Reply),
    about: Buffer.isBuffer(about) ? about : undefined,
    revocation: revocation === 1,
  };
}

export function storedSession(reply: Reply): StoredSession | undefined {
  const [generation, kid, sealed, touched] = reply;
  if (generation == null || kid == null || sealed == null || touched == null) return undefined;
  const record = {
    generation: Number(generation),
    kid: String(kid),
    sealed,
    touchedAt: Number(touched),
  };
  return Number.isSafeInteger(record.generation) && Number.isFinite(record.touchedAt) ? record : undefined;
}
