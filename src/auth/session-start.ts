import type { Request, Response } from 'express';
import type { Config } from '../config/config.js';
import type { EndingsService } from '../endings/endings.service.js';
import type { IdentityMarks, Mark } from '../endings/identity-marks.js';
import { CloakroomError } from '../errors.js';
import { coarseAddress } from '../http/address-range.js';
import type { TrustedProxies } from '../http/client-address.js';
import type { Logger } from '../observability/logger.js';
import { requestId } from '../observability/request-id.js';
import type { Claims } from '../oidc/id-token.js';
import type { OidcClient, TokenAnswer } from '../oidc/oidc-client.js';
import { providerFailure } from '../oidc/oidc-errors.js';
import { browserFamily } from '../session/browser-family.js';
import { lifetimesOf } from '../session/lifetimes.js';
import { keptClaims, requiredClaims } from '../session/requirements.js';
import type { SessionsService } from '../session/sessions.service.js';
import type { Epoch, PolicyEpoch } from '../store/policy-epoch.js';
import type { SessionContents } from '../store/session-contents.js';
import { tokensAfterGrant } from '../tokens/token-lifetime.js';
import type { ElevationService, Moving } from './elevation.service.js';
import type { LoginAttempt } from './login-attempts.js';

/** What the provider has said about a person, verified. */
interface SignedIn {
  provider: OidcClient;
  attempt: LoginAttempt;
  tokens: TokenAnswer;
  claims: Claims;
  /** The policy epoch before the provider was asked. */
  epoch: Epoch;
}

/** Turns what the provider said into a session, unless the person's sessions were ended by force meanwhile. */
export class SessionStart {
  readonly #config: Config;
  readonly #sessions: SessionsService;
  readonly #marks: IdentityMarks;
  readonly #endings: EndingsService;
  readonly #epoch: PolicyEpoch;
  readonly #elevations: ElevationService;
  readonly #trusted: TrustedProxies;
  readonly #logger: Logger;
  /** By name or path. */
  readonly #requiredClaims: readonly string[];

  constructor(parts: {
    config: Config;
    sessions: SessionsService;
    marks: IdentityMarks;
    endings: EndingsService;
    epoch: PolicyEpoch;
    elevations: ElevationService;
    trusted: TrustedProxies;
    logger: Logger;
  }) {
    this.#config = parts.config;
    this.#sessions = parts.sessions;
    this.#marks = parts.marks;
    this.#endings = parts.endings;
    this.#epoch = parts.epoch;
    this.#elevations = parts.elevations;
    this.#trusted = parts.trusted;
    this.#logger = parts.logger;
    this.#requiredClaims = requiredClaims(parts.config.routes);
  }

  epoch(): Promise<Epoch> {
    return this.#epoch.current();
  }

  /** @returns the handle of the new session, whose cookie the answer carries; or why there is none */
  async run(
    request: Request,
    response: Response,
    signedIn: SignedIn,
  ): Promise<{ handle: string } | 'sign-in-again' | 'denied'> {
    const { attempt } = signedIn;
    let moving: Moving | undefined;
    try {
      const before = await this.#verdict(signedIn);
      if (before !== 'welcome') {
        this.#discard(signedIn);
        return before;
      }
      moving = attempt.elevates && (await this.#elevations.take(attempt.elevates, signedIn));
      const contents = moving?.contents ?? (await this.#contents(request, signedIn));
      const handle = await this.#sessions.start(request, response, contents);
      // Once more, now that the session can be found: whoever ended this person's sessions in between left a mark first
      // and looked for sessions then, so one of the two sees the other.
      // A session that is replaced counts for the one that follows it.
      const [after, cause] = await Promise.all([
        this.#verdict(signedIn),
        this.#endings.overtaken(moving?.before.handle ?? handle),
      ]);
      const isWelcome = after === 'welcome' && cause === undefined;
      if (isWelcome && (moving === undefined || (await this.#elevations.finish(moving)))) return { handle };
      if (moving !== undefined) await this.#elevations.giveBack(moving);
      await this.#sessions.takeBack(request, handle, cause ?? 'provider');
      this.#discard(signedIn);
      if (isWelcome) return 'denied';
      return after === 'welcome' ? 'sign-in-again' : after;
    } catch (error) {
      if (moving !== undefined) await this.#elevations.giveBack(moving);
      this.#discard(signedIn);
      throw error;
    }
  }

  /**
   * What a login for elevated access brought is left to run out: to many a provider it is one sign-in with the session that
   * there is, and revoking it would end that one's tokens as well.
   */
  #discard({ provider, attempt, tokens }: SignedIn): void {
    if (attempt.elevates === undefined) provider.discard(tokens);
  }

  async #verdict({ provider, attempt, claims }: SignedIn): Promise<'welcome' | 'sign-in-again' | 'denied'> {
    const { iss: issuer, sub: subject, sid } = claims;
    const [bySubject, bySid] = await Promise.all([
      this.#marks.find({ kind: 'subject', issuer, subject }),
      typeof sid === 'string' ? this.#marks.find({ kind: 'sid', issuer, sid }) : undefined,
    ]);
    const now = Date.now();
    if ((bySid?.deniedUntil ?? 0) > now) return 'denied';
    if (bySubject === undefined) return 'welcome';
    if (Number(claims['iat']) * 1000 <= (bySubject.deniedIssuedUntil ?? 0)) return 'denied';
    if (bySubject.freshUntil <= now || isFresh(bySubject, attempt, claims, provider.config.clockTolerance)) {
      return 'welcome';
    }
    return attempt.fresh ? 'denied' : 'sign-in-again';
  }

  async #contents(request: Request, signedIn: SignedIn): Promise<SessionContents> {
    const { provider, attempt, tokens, claims, epoch } = signedIn;
    const { accessTokenLifetime, rotation } = provider.config;
    const { session, me } = this.#config;
    const leeway = rotation.policy === 'leeway' ? rotation.leeway : 0;
    const now = Date.now();
    const shown = { ...claims, ...(await this.#userinfo(request, provider, tokens, claims)) };
    const { sid, auth_time: authTime, iat, acr } = claims;
    const { idle, absolute } = lifetimesOf(session, shown);
    const asked = askedOf(attempt, claims);
    // RFC 6749 section 5.1: an answer without a scope grants what was asked for.
    const granted = { ...tokens, scope: tokens.scope ?? provider.config.scopes.join(' ') };
    const address = coarseAddress(this.#trusted.clientAddress(request), session.address);
    return {
      provider: provider.name,
      issuer: claims.iss,
      subject: claims.sub,
      ...(typeof sid === 'string' ? { sid } : {}),
      ...(typeof authTime === 'number' ? { authTime } : {}),
      ...(typeof acr === 'string' ? { acr } : {}),
      signedInAt: now,
      ...(typeof authTime === 'number' ? { authenticatedAt: now - secondsAgo(authTime, iat) * 1000 } : {}),
      epoch: epoch.end,
      client: {
        ...browserFamily(request.headers['user-agent']),
        ...(address === undefined ? {} : { address }),
      },
      createdAt: now,
      absoluteAt: now + absolute,
      ...(idle === undefined ? {} : { idle }),
      claims: pick(shown, me.claims),
      ...(this.#requiredClaims.length > 0 ? { required: keptClaims(shown, this.#requiredClaims) } : {}),
      ...(asked.length > 0 ? { asked } : {}),
      idToken: tokens.idToken ?? '',
      tokens: tokensAfterGrant(
        granted,
        undefined,
        { fallback: accessTokenLifetime, leeway, epoch: epoch.refresh },
        now,
        Math.random(),
      ),
    };
  }

  async #userinfo(
    request: Request,
    provider: OidcClient,
    tokens: TokenAnswer,
    claims: Claims,
  ): Promise<Record<string, unknown>> {
    const { userinfo } = provider.config;
    if (userinfo === 'off') return {};
    try {
      return await provider.userinfo(tokens.accessToken, claims.sub);
    } catch (cause) {
      const failure = providerFailure(cause);
      const reference = requestId(request);
      this.#logger.warn('userinfo_failed', {
        provider: provider.name,
        reason: failure.kind,
        reference,
        error: cause,
      });
      // An answer about somebody else is an attack or a fault that no option excuses.
      if (failure.kind === 'rejected') throw new CloakroomError('callback-refused', { cause });
      if (userinfo === 'required') throw new CloakroomError('idp-invalid', { cause });
      return {};
    }
  }
}

/**
 * Whether the person signed in at the provider after the mark was made. A provider that does not say when they did is
 * believed if it was asked to make them.
 */
function isFresh({ at }: Mark, attempt: LoginAttempt, claims: Claims, tolerance: number): boolean {
  const { auth_time: authTime } = claims;
  if (typeof authTime === 'number') return (authTime + 1) * 1000 > at - (attempt.fresh ? tolerance : 0);
  return attempt.fresh && attempt.startedAt > at - tolerance;
}

/** What was asked of the logins that led here; of those before this one only if they were the same person's. */
function askedOf({ asked, of }: LoginAttempt, { iss, sub }: Claims): readonly string[] {
  const isSame = of === undefined || (of.issuer === iss && of.subject === sub);
  return isSame ? asked : asked.slice(-1);
}

/** How long ago somebody signed in when the ID token was made, both by the provider's clock. */
function secondsAgo(authTime: number, iat: unknown): number {
  return typeof iat === 'number' ? Math.max(0, iat - authTime) : 0;
}

function pick(claims: Record<string, unknown>, names: readonly string[]): Record<string, unknown> {
  return Object.fromEntries(
    names.filter((name) => Object.hasOwn(claims, name)).map((name) => [name, claims[name]]),
  );
}
