import type { IncomingMessage } from 'node:http';
import { CloakroomError } from '../errors.js';
import { SAFE_METHODS } from '../http/safe-methods.js';
import type { SessionsService } from '../session/sessions.service.js';
import type { OpenSession } from '../store/session-records.js';
import type { Route } from './route-table.js';

/** Marks a 401 that is the upstream's own. */
export const UPSTREAM_ANSWER: readonly [string, string] = ['cloakroom-answer', 'upstream'];

const BEARER_INVALID =
  /(?:^|[\s,])bearer\s(?:[^"]|"(?:[^"\\]|\\.)*")*?\berror\s*=\s*(?:"invalid_token"|invalid_token\b)/i;

interface Refused {
  request: IncomingMessage;
  route: Route;
  /** Of the request to the upstream, as name and value in turns. */
  headers: string[];
  session: OpenSession | undefined;
  accessToken: string | undefined;
  /** Whether it can be sent once more as it was: not when it had a body. */
  isRepeatable: boolean;
}

/**
 * What to do when an upstream says that an access token is no good (RFC 6750 section 3.1): it may have been revoked before its
 * time. Then it is renewed, and what is safe to repeat is sent once more.
 */
export class RefusedTokens {
  readonly #sessions: SessionsService;

  constructor(sessions: SessionsService) {
    this.#sessions = sessions;
  }

  /**
   * @param rawHeaders of the upstream's 401
   * @returns undefined where the answer goes on as it is. Otherwise resolves to whether `headers` now carry another token, with
   *   which the request is to be sent once more
   * @throws {CloakroomError} when the session turned out to be over
   */
  renewal(refused: Refused, rawHeaders: readonly (string | Buffer)[]): Promise<boolean> | undefined {
    const { request, route, headers, session, accessToken, isRepeatable } = refused;
    if (session === undefined || accessToken === undefined) return undefined;
    // Nothing but another sign-in brings another elevated token.
    if (route.elevation !== undefined || !saysInvalidToken(rawHeaders)) return undefined;
    const renewed = this.#renew(session, route, accessToken);
    if (!isRepeatable || !SAFE_METHODS.has(request.method ?? '')) {
      // This answer does not wait for what can only help the next request.
      renewed.catch(() => undefined);
      return undefined;
    }
    return renewed.then((better) => {
      if (better === undefined) return false;
      headers[headers.indexOf('authorization') + 1] = `Bearer ${better}`;
      return true;
    });
  }

  async #renew(session: OpenSession, { wish }: Route, refused: string): Promise<string | undefined> {
    try {
      return await this.#sessions.renewedToken(session, wish, refused);
    } catch (error) {
      // Whatever is away just now: the upstream's answer is one, and says no less than an error of ours would.
      if (error instanceof CloakroomError && error.status === 401) throw error;
      return undefined;
    }
  }
}

function saysInvalidToken(rawHeaders: readonly (string | Buffer)[]): boolean {
  for (let i = 0; i < rawHeaders.length; i += 2) {
    if (String(rawHeaders[i]).toLowerCase() !== 'www-authenticate') continue;
    if (BEARER_INVALID.test(String(rawHeaders[i + 1]).slice(0, 2048))) return true;
  }
  return false;
}
