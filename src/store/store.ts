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
  /** What lists of sessions show, sealed under the server key alone. */
  about: Buffer;
  /** The refresh token, sealed for whoever may revoke it; nobody else can open it. */
  revocation: Buffer | undefined;
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

/** What is written when tokens have been refreshed. */
export interface NextGeneration {
  kid: string;
  sealed: Buffer;
  /** Under the same server key as the rest: otherwise nobody could tell whose it is when an older key is gone. */
  about: Buffer;
  revocation: Buffer | undefined;
  /** The refresh token is the one from before: an earlier attempt may have spent it all the same. */
  keepsDoubt?: boolean;
}

/** Why a session ended, in the log, to front ends and to operators. */
export type EndCause =
  | 'user'
  | 'elsewhere'
  | 'replaced'
  | 'provider'
  | 'operator'
  | 'epoch'
  | 'expired'
  | 'refresh-refused'
  | 'refresh-lost'
  | 'identity-changed'
  | 'token-expired';

export interface Ending {
  cause: EndCause;
  /** Milliseconds for which the envelope of the refresh token is kept for its revocation; 0 throws it away. */
  keepRevocation: number;
  /** Milliseconds for which the cause can be told to whoever still brings the cookie. */
  keepCause: number;
}

/** A session as it was in the moment it ended. */
export interface EndedSession {
  /** Undefined for a record that was damaged. */
  session: StoredSession | undefined;
  about: Buffer | undefined;
  /** Whether an envelope now waits for its revocation. */
  revocation: boolean;
}

/** What a list of sessions shows of one, without its cookie. */
export interface DescribedSession {
  about: Buffer | undefined;
  createdAt: number;
  absoluteAt: number;
  touchedAt: number;
}

/**
 * Small records beside the sessions: a login or logout under way, what became of a session, of a person's sessions or of a
 * logout token, a refresh token to revoke, an ending of many sessions under way.
 */
export type RecordKind =
  'login' | 'logout' | 'ended' | 'mark' | 'revocation' | 'ending' | 'confirmation' | 'audit' | 'epoch';

/** A member of an ordered set. */
export interface Ranked {
  member: string;
  score: number;
}

/** A set ordered by a number: sessions by creation, or work by the time it is due. */
export interface SetName {
  kind: 'sessions' | 'queue';
  id: string;
}

/** Counts what callers do, for all processes together. */
export interface SharedCounter {
  /**
   * Counts one. Nobody should wait for this.
   * @returns how many there are with this one, and in how many milliseconds counting begins anew; undefined when nobody knows
   */
  add(caller: string): Promise<{ count: number; endsIn: number } | undefined>;
}

/** Whether writes outlive the loss of the Redis they went to. */
export type Durability = 'replicated' | 'unreplicated' | 'unconfirmed' | 'memory';

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
    next: NextGeneration,
  ): Promise<'committed' | 'superseded' | 'gone'>;
  /** Gives a claim back without a result. */
  release(handle: string, attempt: string, release: Release): Promise<void>;
  /**
   * Ends a session and tells every process of it, in one step.
   * @param refused end it only if it is still at this generation and no other attempt holds a claim
   * @returns undefined when no session was there to end
   */
  end(
    handle: string,
    ending: Ending,
    refused?: { generation: number; attempt: string },
  ): Promise<EndedSession | undefined>;
  /** As {@link end} for many, without holding up requests; the answers are in the order of the handles. */
  endMany(handles: readonly string[], ending: Ending): Promise<(EndedSession | undefined)[]>;
  describe(handles: readonly string[]): Promise<(DescribedSession | undefined)[]>;

  put(kind: RecordKind, id: string, value: Buffer, ttl: number): Promise<void>;
  /** @returns false when there was such a record already, which stays as it is */
  putNew(kind: RecordKind, id: string, value: Buffer, ttl: number): Promise<boolean>;
  get(kind: RecordKind, id: string): Promise<Buffer | undefined>;
  /** Takes a record away and returns it; of many callers at once exactly one gets it. */
  take(kind: RecordKind, id: string): Promise<Buffer | undefined>;

  /** @param ttl milliseconds the whole set lives at least */
  addTo(set: SetName, members: readonly Ranked[], ttl: number): Promise<void>;
  removeFrom(set: SetName, members: readonly string[]): Promise<void>;
  /** Members in their order (those of equal score by name), beginning after one, up to a score. */
  pageOf(
    set: SetName,
    range: { after?: Ranked | undefined; to?: number | undefined; limit: number },
  ): Promise<Ranked[]>;
  sizeOf(set: SetName): Promise<number>;
  /** Members whose score is a time that has come, by this store's clock; they are due again after the lease. */
  claimDue(set: SetName, limit: number, lease: number): Promise<string[]>;
  /** When a member is due next, by this store's clock; nothing when it is no member any more. */
  postpone(set: SetName, member: string, delay: number): Promise<void>;

  /**
   * @param limit names what is counted
   * @param rate how many there may be; `per` in milliseconds
   * @returns undefined where there are no other processes
   */
  counter(limit: string, rate: { requests: number; per: number }): SharedCounter | undefined;

  /** Milliseconds since the epoch, by the clock that all processes share. */
  now(): Promise<number>;
  /** Whether what `endMany` and `put` of endings and epochs wrote so far would outlive the loss of this store. */
  confirm(): Promise<Durability>;
  announce(message: string): Promise<void>;
  /**
   * @param onMessage every announcement, and `ended <handle> <cause>` for every session that ends
   * @param onGap messages may have been missed
   */
  subscribe(onMessage: (message: string) => void, onGap: () => void): void;
  close(): Promise<void>;
}
