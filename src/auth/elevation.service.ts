import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Config } from '../config/config.js';
import { SYSTEM } from '../endings/audit-log.js';
import type { EndingsService } from '../endings/endings.service.js';
import { CloakroomError } from '../errors.js';
import type { Logger } from '../observability/logger.js';
import type { Claims } from '../oidc/id-token.js';
import type { OidcClient, TokenAnswer } from '../oidc/oidc-client.js';
import { elevatedUntil, elevationKey, heldElevations } from '../session/elevation.js';
import { endingBy } from '../store/ending.js';
import type { Epoch } from '../store/policy-epoch.js';
import { sessionHandle, type OpenSession, type SessionRecords } from '../store/session-records.js';
import type { SessionContents } from '../store/session-contents.js';
import { takeClaim } from '../tokens/refresh-claim.js';

/** A login that is to bring elevated access to a session that there is. */
export interface ElevationWish {
  scope: string;
  /** Opens the session, as its cookie does: that one stays at home when the provider sends the browser back. */
  secret: string;
}

/** A session about to be replaced by one with the same tokens, which nobody can refresh meanwhile. */
export interface Moving {
  before: OpenSession;
  attempt: string;
  contents: SessionContents;
}

/** Milliseconds a session is held while it is replaced; more than enough for a few commands. */
const HOLD = 10_000;
/** Milliseconds to wait for a refresh that is under way. */
const PATIENCE = 15_000;
const POLL = 50;

/** Puts elevated access into a session, which gets another id with it. */
export class ElevationService {
  readonly #routes: Config['routes'];
  readonly #records: SessionRecords;
  readonly #endings: EndingsService;
  readonly #logger: Logger;

  constructor(parts: { config: Config; records: SessionRecords; endings: EndingsService; logger: Logger }) {
    this.#routes = parts.config.routes;
    this.#records = parts.records;
    this.#endings = parts.endings;
    this.#logger = parts.logger;
  }

  /** Milliseconds that routes allow; undefined for a scope that no route names. */
  limit(scope: string): number | undefined {
    return this.#routes.find(({ elevate }) => elevate?.scope === scope)?.elevate?.for;
  }

  /**
   * Holds the session and works out what it becomes. Its tokens move as they are, so no refresh may be under way: what
   * one brings would be stored nowhere.
   *
   * @throws {CloakroomError} `callback-refused` for a session that is over or somebody else's; `idp-unavailable` while its
   *   tokens cannot be held; `store-unavailable`
   */
  async take(
    wish: ElevationWish,
    signedIn: { provider: OidcClient; tokens: TokenAnswer; claims: Claims; epoch: Epoch },
  ): Promise<Moving> {
    const { provider, claims, epoch } = signedIn;
    const secret = Buffer.from(wish.secret, 'base64url');
    const attempt = randomBytes(12).toString('base64url');
    const before = await this.#hold(secret, attempt);
    const { issuer, subject, ...rest } = before.contents;
    const isSame = issuer === claims.iss && subject === claims.sub && rest.provider === provider.name;
    if (!isSame || rest.epoch < epoch.end) {
      await this.giveBack({ before, attempt });
      throw new CloakroomError('callback-refused');
    }
    const contents = this.#elevated(before.contents, wish.scope, signedIn);
    return { before, attempt, contents };
  }

  /**
   * Ends the session that was held, now that the new one is stored. Where the store does not say whether it did, the new one
   * counts: the browser forgets the cookie of the old one, and nobody can use that.
   *
   * @returns false when it had ended meanwhile: whoever ended it meant the new one as well
   */
  async finish({ before, attempt }: Moving): Promise<boolean> {
    const { handle, generation, contents } = before;
    const held = { generation, attempt };
    try {
      if ((await this.#records.store.end(handle, endingBy('replaced'), held)) === undefined) return false;
    } catch (error) {
      this.#logger.warn('replaced_session_not_ended', { handle, error });
      return true;
    }
    this.#endings.noteEnded(handle, contents, { cause: 'replaced', reason: 'elevation', actor: SYSTEM });
    return true;
  }

  /** What cannot be given back is free again after a while. */
  async giveBack({ before, attempt }: Pick<Moving, 'before' | 'attempt'>): Promise<void> {
    const release = { backoff: 0, doubtful: false };
    await this.#records.store.release(before.handle, attempt, release).catch(() => undefined);
  }

  async #hold(secret: Buffer, attempt: string): Promise<OpenSession> {
    const handle = sessionHandle(secret);
    const until = performance.now() + PATIENCE;
    for (;;) {
      const session = await this.#records.find(handle, secret);
      if (session === undefined) throw new CloakroomError('callback-refused');
      const claim = await takeClaim(this.#records.store, session, attempt, HOLD);
      if (claim.kind === 'claimed') {
        const held = this.#records.open(handle, secret, claim.session);
        // Its refresh token may be spent: only the session that knows of that can tell what becomes of it.
        if (held !== undefined && claim.doubtfulFor === undefined) return held;
        await this.giveBack({ before: session, attempt });
        throw held === undefined ? new CloakroomError('callback-refused') : unavailable();
      }
      if (performance.now() > until) throw unavailable();
      await sleep(POLL);
    }
  }

  #elevated(
    before: SessionContents,
    scope: string,
    { provider, tokens, epoch }: { provider: OidcClient; tokens: TokenAnswer; epoch: Epoch },
  ): SessionContents {
    const now = Date.now();
    const key = elevationKey(scope);
    const asked = (before.asked ?? []).filter((one) => one !== key);
    const elevated = heldElevations(before, epoch.refresh, now);
    // RFC 6749 section 5.1: an answer without a scope grants what was asked for.
    if (tokens.scope !== undefined && !tokens.scope.split(' ').includes(scope)) {
      Reflect.deleteProperty(elevated, scope);
      return { ...before, createdAt: now, elevated, asked: [...asked, key] };
    }
    const life =
      tokens.expiresIn === undefined ? provider.config.accessTokenLifetime : tokens.expiresIn * 1000;
    const access = {
      accessToken: tokens.accessToken,
      until: elevatedUntil(now, life, this.limit(scope) ?? 0),
      epoch: epoch.refresh,
    };
    return { ...before, createdAt: now, elevated: { ...elevated, [scope]: access }, asked };
  }
}

function unavailable(): CloakroomError {
  return new CloakroomError('idp-unavailable', { retryAfter: 5 });
}
