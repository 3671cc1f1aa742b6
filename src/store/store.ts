/** What a store keeps of a session. Only `sealed` says anything about a person, and only its cookie opens it. */
export interface StoredSession {
  generation: number;
  /** Which server key the contents are sealed under. */
  kid: string;
  sealed: Buffer;
  /** Milliseconds since the epoch, as are all times here. */
  touchedAt: number;
}

export interface NewSession {
  kid: string;
  sealed: Buffer;
  createdAt: number;
  absoluteAt: number;
  /** Milliseconds without use after which the session ends. */
  idle: number;
}

/**
 * What became of the wish to refresh a session's tokens.
 * - `claimed`: ours, with the record as it is now; `doubtfulFor`: milliseconds since an earlier attempt began that may have
 *   spent the refresh token
 * - `held`: another attempt is at work, for at most `remaining` more milliseconds
 * - `waiting`: the provider failed a moment ago; not again for `remaining` milliseconds
 * - `superseded`: the record has moved on to a newer generation
 * - `gone`: the session has ended
 */
export type Claim =
  | { kind: 'claimed'; session: StoredSession; doubtfulFor: number | undefined }
  | { kind: 'held' | 'waiting'; remaining: number }
  | { kind: 'superseded' | 'gone' };

export interface Release {
  /** Milliseconds before anybody tries again. */
  backoff: number;
  /** The provider may have spent the refresh token although we have no answer. */
  doubtful: boolean;
}

/** One-time records: a login under way, a logout under way. */
export type OnceKind = 'login' | 'logout';

/**
 * Where sessions live. Only `create` makes a session; everything else changes what exists and can never bring back what
 * was deleted. Every method fails with `store-unavailable` when the store cannot answer in time.
 */
export interface Store {
  readonly kind: 'redis' | 'memory';
  /** Where the records belong to; part of every seal, so that records do not open elsewhere. */
  readonly prefix: string;
  ping(): Promise<void>;
  create(handle: string, session: NewSession): Promise<void>;
  /** Generation and last use alone: what a request needs when it has opened this generation before. */
  peek(handle: string): Promise<{ generation: number; touchedAt: number } | undefined>;
  read(handle: string): Promise<StoredSession | undefined>;
  /** Moves the idle expiry, never past the absolute one. */
  touch(handle: string, idle: number): Promise<void>;
  /** Idempotent by attempt: asking again after a lost reply finds the claim one already holds. */
  claim(handle: string, generation: number, attempt: string, duration: number): Promise<Claim>;
  /** Idempotent by attempt. Succeeds also after the claim ran out, as long as nobody else has written. */
  commit(
    handle: string,
    generation: number,
    attempt: string,
    next: { kid: string; sealed: Buffer },
  ): Promise<'committed' | 'superseded' | 'gone'>;
  /** Gives a claim back without a result. */
  release(handle: string, attempt: string, release: Release): Promise<void>;
  /**
   * Ends a session.
   * @param refused end it only if it is still at this generation and no other attempt holds a claim
   * @returns whether a session was there to end
   */
  end(handle: string, refused?: { generation: number; attempt: string }): Promise<boolean>;
  /** Ends a session and returns what it was in that very moment. */
  take(handle: string): Promise<StoredSession | undefined>;
  putOnce(kind: OnceKind, id: string, value: Buffer, ttl: number): Promise<void>;
  /** Takes a record away and returns it; of many callers at once exactly one gets it. */
  takeOnce(kind: OnceKind, id: string): Promise<Buffer | undefined>;
  close(): Promise<void>;
}
