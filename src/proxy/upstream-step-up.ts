import type { CloakroomError } from '../errors.js';
import { ACR_VALUES, askFor, MAX_AGE, stepUpRequired, type Ask } from '../session/step-up.js';
import type { SessionContents } from '../store/session-contents.js';
import { challenges } from './challenge.js';
import { text } from './headers.js';

const LONGEST = 512;
const NAME = 'www-authenticate';

/**
 * Whether an upstream asks for another sign-in, and what the browser is told then.
 *
 * @param rawHeaders of the upstream's answer, name and value in turns
 * @returns undefined for every other answer, and for one that asks for nothing that could be passed on
 * @see RFC 9470 section 3
 */
export function upstreamStepUp(
  status: number,
  rawHeaders: readonly (string | Buffer)[],
  contents: SessionContents | undefined,
): CloakroomError | undefined {
  if (status !== 401 || contents === undefined) return undefined;
  const ask = askedFor(rawHeaders);
  return ask === undefined ? undefined : stepUpRequired(ask, contents, Date.now());
}

/** The first well-formed challenge of that kind; the lines are read one by one, each whole or not at all. */
function askedFor(rawHeaders: readonly (string | Buffer)[]): Ask | undefined {
  for (let i = 0; i < rawHeaders.length; i += 2) {
    if (rawHeaders[i]?.length !== NAME.length || text(rawHeaders[i]).toLowerCase() !== NAME) continue;
    for (const { scheme, parameters } of challenges(text(rawHeaders[i + 1]))) {
      if (scheme !== 'bearer' || parameters.get('error') !== 'insufficient_user_authentication') continue;
      const acr = parameters.get('acr_values');
      const maxAge = parameters.get('max_age');
      if (acr === undefined && maxAge === undefined) continue;
      if (acr !== undefined && (acr.length > LONGEST || !ACR_VALUES.test(acr))) continue;
      if (maxAge !== undefined && !MAX_AGE.test(maxAge)) continue;
      return askFor(acr, maxAge === undefined ? undefined : Number(maxAge));
    }
  }
  return undefined;
}
