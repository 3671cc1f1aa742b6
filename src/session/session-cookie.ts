import { sign, unsign } from 'cookie-signature';
import type { Config } from '../config/config.js';
import { cookiesWithPrefix, cookieValues, serializeCookie } from '../http/cookies.js';
import { Recent } from '../store/recent.js';
import { sessionHandle } from '../store/session-records.js';
import { cookieNames, type CookieNames } from './cookie-names.js';

/** What a session cookie stands for once its signature is verified. */
export interface Ticket {
  handle: string;
  secret: Buffer;
}

/**
 * - `ticket`: exactly one value of the cookie carries our signature
 * - `none`: no cookie of that name
 * - `invalid`: there is one, but none that we signed
 * - `ambiguous`: several different values that we signed; picking one would let somebody else choose
 */
export type TicketReading =
  { kind: 'ticket'; ticket: Ticket } | { kind: 'none' } | { kind: 'invalid' } | { kind: 'ambiguous' };

const SECRET_BYTES = 32;
const SIGNED_VALUE = /^s(?::|%3A)([A-Za-z0-9_-]{43})\.([A-Za-z0-9+/%]{40,70})$/;
const MAX_VALUE = 160;

/**
 * The session cookie: 32 random bytes and a signature, in the format of express-session. The signature lets garbage be
 * refused without asking the store; it is not what protects the tokens.
 */
export class SessionCookie {
  readonly names: CookieNames;
  readonly #secrets: readonly string[];
  readonly #config: Config;
  readonly #verified = new Recent<Ticket>(5000, 50_000);

  constructor(config: Config) {
    this.names = cookieNames(config.secureCookies);
    this.#config = config;
    this.#secrets = signingSecrets(config);
  }

  read(header: string | undefined): TicketReading {
    const values = cookieValues(header, this.names.session);
    if (values.length === 0) return { kind: 'none' };
    let found: Ticket | undefined;
    for (const value of values) {
      const ticket = this.#verify(value);
      if (ticket === undefined) continue;
      if (found !== undefined && found.handle !== ticket.handle) return { kind: 'ambiguous' };
      found = ticket;
    }
    return found === undefined ? { kind: 'invalid' } : { kind: 'ticket', ticket: found };
  }

  /**
   * The handle of this browser's session, also where the session cookie itself stays at home: a Strict cookie is not sent
   * when the provider sends the browser back.
   */
  currentHandle(header: string | undefined): string | undefined {
    const reading = this.read(header);
    if (reading.kind === 'ticket') return reading.ticket.handle;
    const values = cookieValues(header, this.names.last);
    return values.length === 1 ? this.unsign(this.names.last, values[0]) : undefined;
  }

  /** `Set-Cookie` value of the Lax companion that {@link currentHandle} reads. */
  companion(handle: string): string {
    return serializeCookie(this.names.last, this.sign(this.names.last, handle), {
      secure: this.#config.secureCookies,
      sameSite: 'Lax',
    });
  }

  /** Signs a short value of another cookie of ours, bound to that cookie's name. */
  sign(name: string, value: string): string {
    return encodeURIComponent(sign(value, `${name}|${this.#secrets[0] ?? ''}`));
  }

  /** @returns what {@link sign} was given, or undefined */
  unsign(name: string, value: string | undefined): string | undefined {
    if (value === undefined || value.length > 4096) return undefined;
    for (const secret of this.#secrets) {
      const plain = unsign(decodeURIComponentSafely(value), `${name}|${secret}`);
      if (plain !== false) return plain;
    }
    return undefined;
  }

  /** `Set-Cookie` values that take the session away, with the attributes it was set with. */
  clearing(): string[] {
    const { secureCookies: secure, session } = this.#config;
    const sameSite = session.sameSite === 'strict' ? 'Strict' : 'Lax';
    return [
      serializeCookie(this.names.session, '', { secure, sameSite, maxAge: 0 }),
      serializeCookie(this.names.last, '', { secure, sameSite: 'Lax', maxAge: 0 }),
    ];
  }

  /**
   * As {@link clearing}, for a session that turned out to be dead; its handle stays, so that the next login knows how it
   * ended. Nothing while a login of this browser is under way: the request may have left before the new cookie came and be
   * answered after it, and the browser would lose the new one.
   */
  clearingDead(header: string | undefined): string[] {
    return cookiesWithPrefix(header, this.names.loginPrefix).length > 0 ? [] : this.clearing().slice(0, 1);
  }

  #verify(value: string): Ticket | undefined {
    if (value.length > MAX_VALUE) return undefined;
    const known = this.#verified.get(value);
    if (known !== undefined) return known;
    const [, id, signature] = SIGNED_VALUE.exec(value) ?? [];
    if (id === undefined || signature === undefined) return undefined;
    const signed = `${id}.${decodeURIComponentSafely(signature)}`;
    if (!this.#secrets.some((secret) => unsign(signed, secret) === id)) return undefined;
    const secret = Buffer.from(id, 'base64url');
    // 43 characters hold two bits more than 32 bytes: only one spelling of an id is the one that was issued.
    if (secret.length !== SECRET_BYTES || secret.toString('base64url') !== id) return undefined;
    const ticket = { handle: sessionHandle(secret), secret };
    this.#verified.set(value, ticket);
    return ticket;
  }
}

/** express-session takes its secrets as text. */
export function signingSecrets(config: Config): string[] {
  return config.secrets.cookie.map((secret) => secret.toString('base64url'));
}

function decodeURIComponentSafely(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
