import type { IncomingHttpHeaders } from 'node:http';
import type { SessionsService } from '../session/sessions.service.js';
import { askKey } from '../session/step-up.js';
import type { OpenSession } from '../store/session-records.js';
import type { ElevationService } from './elevation.service.js';
import type { LoginAttempt } from './login-attempts.js';
import { invalid, type LoginParameters } from './login-parameters.js';

/** What an attempt remembers of a login that is asked for more than signing in. */
export interface LoginWish extends Pick<LoginAttempt, 'parameters' | 'asked' | 'of' | 'stepUp' | 'elevates'> {
  /** The provider that must do it; undefined: any. */
  provider: string | undefined;
}

/** Asks of one session that are remembered. */
const REMEMBERED = 16;
/** Parameters that a login begun once more gets again. */
const AGAIN = ['acr_values', 'max_age'];

/**
 * Reads from the parameters, and from the session that there is, what a login is asked for.
 *
 * @throws {CloakroomError} `login-parameter-invalid` for an elevation that no route names, `store-unavailable`
 */
export async function loginWish(
  parameters: LoginParameters,
  headers: IncomingHttpHeaders,
  sessions: SessionsService,
  elevations: ElevationService,
): Promise<LoginWish> {
  const { forwarded, stepUp, elevate, provider } = parameters;
  const { acr_values: acrValues, max_age: maxAge } = forwarded;
  const again = AGAIN.filter((name) => forwarded[name] !== undefined).map((name) => [name, forwarded[name]]);
  const wish: LoginWish = {
    provider,
    stepUp,
    parameters: {
      ...(Object.fromEntries(again) as Record<string, string>),
      ...(stepUp ? { stepUp: '1' } : {}),
      ...(elevate === undefined ? {} : { elevate }),
    },
    asked: [],
  };
  if (elevate !== undefined && elevations.limit(elevate) === undefined) throw invalid('elevate');
  const asks = acrValues !== undefined || maxAge !== undefined;
  if (!asks && elevate === undefined) return wish;
  const session = await sessions.findIfAny(headers.cookie, { slide: true });
  if (elevate !== undefined && session !== undefined && isOwnWish(headers))
    return elevation(wish, elevate, session);
  if (!asks) return wish;
  const key = askKey(acrValues, maxAge === undefined ? undefined : Number(maxAge));
  const before = (session?.contents.asked ?? []).filter((one) => one !== key);
  return {
    ...wish,
    asked: [...before, key].slice(-REMEMBERED),
    ...(session === undefined ? {} : { of: whose(session) }),
  };
}

/** A link on another site must not bring elevated access about; with SameSite=Lax it would come with the session. */
function isOwnWish(headers: IncomingHttpHeaders): boolean {
  return ['same-origin', 'none', undefined].includes(headers['sec-fetch-site']);
}

/** Without a session there is nothing to elevate: it becomes a login like any other, before this. */
function elevation(wish: LoginWish, scope: string, session: OpenSession): LoginWish {
  const { provider } = session.contents;
  if (wish.provider !== undefined && wish.provider !== provider) throw invalid('provider');
  return { ...wish, provider, elevates: { scope, secret: session.secret.toString('base64url') } };
}

function whose({ contents: { issuer, subject } }: OpenSession): { issuer: string; subject: string } {
  return { issuer, subject };
}
