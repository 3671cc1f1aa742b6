import { createHash, randomBytes } from 'node:crypto';
import type { Config } from '../config/config.js';
import { cookieValues, cookiesWithPrefix, serializeCookie } from '../http/cookies.js';
import type { ElevationWish } from './elevation.service.js';
import { cookieNames } from '../session/cookie-names.js';
import type { OnceRecords } from '../store/once-records.js';

/** What must be remembered between the start of a login and the provider's answer. */
export interface LoginAttempt {
  provider: string;
  nonce: string;
  codeVerifier: string;
  returnTo: string;
  /** Seconds, as asked of the provider. */
  maxAge?: number;
  silent: boolean;
  /** The provider was told to ask for a sign-in, whoever is signed in there. */
  fresh: boolean;
  /** What else was asked for, so that the login can be begun once more. */
  parameters: Readonly<Record<string, string>>;
  /** What this login and those before it in the same session were asked for. */
  asked: readonly string[];
  /** Whose session it was. */
  of?: { issuer: string; subject: string };
  /** One of our own answers asked for it: what it does not bring is for the route to judge. */
  stepUp: boolean;
  elevates?: ElevationWish;
  /** Milliseconds since the epoch. */
  startedAt: number;
  /** The browser's session at the start, which the new one replaces. */
  replaces?: string;
}

/** Milliseconds a person has to sign in at the provider. */
const LIFETIME = 600_000;
/** Seconds the browser keeps its half: longer, so that a late answer is known to be late rather than foreign. */
const COOKIE_LIFETIME = 3600;
const MAX_OPEN = 5;
const STATE = /^[A-Za-z0-9_-]{43}$/;
const VALUE = /^([0-9a-z]{8,9})\.([A-Za-z0-9_-]{43})$/;

/** A provider that answers by form_post makes the browser send a cross-site POST, where Lax cookies stay at home. */
export function loginSameSite(config: Config): 'None' | 'Lax' {
  const posts = config.providers.some((provider) => provider.responseMode === 'form_post');
  return posts && config.secureCookies ? 'None' : 'Lax';
}

/**
 * Logins under way: several tabs at once, each used once. One half of an attempt travels with the browser as a cookie of
 * its own, the other through the provider as `state`; only both together find and open the record.
 */
export class LoginAttempts {
  readonly #records: OnceRecords;
  readonly #prefix: string;
  readonly #flags;

  constructor(config: Config, records: OnceRecords) {
    this.#records = records;
    this.#prefix = cookieNames(config.secureCookies).loginPrefix;
    this.#flags = { secure: config.secureCookies, sameSite: loginSameSite(config) };
  }

  /**
   * Begins an attempt. The record is stored when this returns.
   * @returns what the provider is sent, and the `Set-Cookie` values of the answer
   */
  async begin(
    cookieHeader: string | undefined,
    wish: Omit<LoginAttempt, 'nonce' | 'codeVerifier' | 'startedAt'>,
  ): Promise<{ state: string; attempt: LoginAttempt; cookies: string[] }> {
    const state = token();
    const binding = token();
    const attempt: LoginAttempt = { ...wish, startedAt: Date.now(), nonce: token(), codeVerifier: token() };
    await this.#records.put('login', state + binding, attempt, LIFETIME);
    const value = `${Date.now().toString(36)}.${binding}`;
    const cookie = serializeCookie(this.#cookieName(state), value, {
      ...this.#flags,
      maxAge: COOKIE_LIFETIME,
    });
    return { state, attempt, cookies: [...this.#dropOldest(cookieHeader), cookie] };
  }

  /** True when this browser began the attempt with this state, however long ago. */
  began(state: string, cookieHeader: string | undefined): boolean {
    return this.#binding(state, cookieHeader) !== undefined;
  }

  /**
   * Takes an attempt for good.
   * @returns undefined when it is not this browser's, was used before, or is too old
   */
  async take(state: string, cookieHeader: string | undefined): Promise<LoginAttempt | undefined> {
    const binding = this.#binding(state, cookieHeader);
    if (binding === undefined) return undefined;
    return (await this.#records.take('login', state + binding)) as LoginAttempt | undefined;
  }

  /** `Set-Cookie` value that takes the browser's half away. */
  clearing(state: string): string {
    return serializeCookie(this.#cookieName(state), '', { ...this.#flags, maxAge: 0 });
  }

  #binding(state: string, cookieHeader: string | undefined): string | undefined {
    if (!STATE.test(state)) return undefined;
    const values = cookieValues(cookieHeader, this.#cookieName(state));
    return values.length === 1 ? VALUE.exec(values[0] ?? '')?.[2] : undefined;
  }

  /** Room for one more: otherwise cookies of abandoned logins pile up until requests are refused for their size. */
  #dropOldest(cookieHeader: string | undefined): string[] {
    const open = cookiesWithPrefix(cookieHeader, this.#prefix);
    const byAge = open.sort(([, a], [, b]) => startedAt(b) - startedAt(a));
    return byAge
      .slice(MAX_OPEN - 1)
      .map(([name]) => serializeCookie(name, '', { ...this.#flags, maxAge: 0 }));
  }

  #cookieName(state: string): string {
    const tag = createHash('sha256')
      .update('cloakroom/attempt/v1')
      .update(state)
      .digest('base64url')
      .slice(0, 8);
    return this.#prefix + tag;
  }
}

function token(): string {
  return randomBytes(32).toString('base64url');
}

function startedAt(value: string): number {
  const start = VALUE.exec(value)?.[1];
  return start === undefined ? 0 : parseInt(start, 36);
}
