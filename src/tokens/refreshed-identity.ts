import type { Logger } from '../observability/logger.js';
import { TokenError } from '../oidc/signed-token.js';
import type { OidcClient, TokenAnswer } from '../oidc/oidc-client.js';
import type { OpenSession } from '../store/session-records.js';

/** Faults of an ID token that only mean that two clocks differ. */
const ABOUT_TIME = ['exp', 'iat', 'nbf'];

/**
 * Whether the tokens of a refresh are still about the person who signed in: OpenID Connect Core 1.0 section 12.2.
 *
 * @returns `unchecked` when that could not be found out, which is no reason to end a session: the tokens came from the
 *   provider over its own connection, and the ID token of the login stays in use
 */
export async function refreshedIdentity(
  session: OpenSession,
  provider: OidcClient,
  answer: TokenAnswer,
  logger: Logger,
): Promise<'same' | 'changed' | 'unchecked'> {
  if (answer.idToken === undefined) return 'same';
  const { handle } = session;
  try {
    const claims = await provider.verifyRefreshed(answer.idToken, answer.accessToken);
    const before = session.contents.authTime;
    const now = claims['auth_time'];
    const sameLogin = now === undefined || before === undefined || now === before;
    if (claims.sub === session.contents.subject && sameLogin) return 'same';
    logger.warn('identity_changed', { handle, reason: sameLogin ? 'sub' : 'auth_time' });
    return 'changed';
  } catch (error) {
    if (!(error instanceof TokenError) || ABOUT_TIME.includes(error.reason)) {
      logger.warn('refreshed_id_token_unchecked', { handle, error });
      return 'unchecked';
    }
    logger.warn('identity_changed', { handle, reason: error.reason });
    return 'changed';
  }
}
