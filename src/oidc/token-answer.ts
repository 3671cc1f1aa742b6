import { isTooDeep } from './nesting.js';

const TEN_YEARS = 10 * 365 * 24 * 3600;

/**
 * Where an ID token is put, so that `id-token.ts` alone judges it. The library would throw the answer to a refresh away
 * with an ID token that it does not like, and the only copy of a rotated refresh token with it; and at login it takes only
 * algorithms that the metadata named an hour ago.
 */
export const UNVERIFIED_ID_TOKEN = 'unverified_id_token';

/**
 * Makes the body of a 200 from the token endpoint mean one thing. Providers send empty strings or nulls for members they
 * leave out; a lifetime must be a plain positive number (RFC 6749 section 5.1) or none at all.
 *
 * @returns the body to read on, or what is wrong with it
 */
export function normaliseTokenAnswer(text: string): { body: string } | { fault: string } {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return { fault: 'the body is not JSON' };
  }
  if (typeof json !== 'object' || json === null || Array.isArray(json) || isTooDeep(json)) {
    return { fault: 'the body is no object of tokens' };
  }
  const answer: Record<string, unknown> = { ...json };
  for (const member of ['refresh_token', 'id_token', 'scope', 'expires_in']) {
    if (answer[member] === '' || answer[member] === null) Reflect.deleteProperty(answer, member);
  }
  const token = answer['access_token'];
  // It goes into a header: RFC 6750 section 2.1 allows less than this.
  if (typeof token !== 'string' || !/^[\x21-\x7e]+$/.test(token)) {
    return { fault: 'access_token is no text that a header can carry' };
  }
  const lifetime = answer['expires_in'];
  if (lifetime !== undefined && !(typeof lifetime === 'number' && lifetime > 0 && lifetime <= TEN_YEARS)) {
    return { fault: 'expires_in is no sensible number of seconds' };
  }
  if ('id_token' in answer) {
    answer[UNVERIFIED_ID_TOKEN] = answer['id_token'];
    delete answer['id_token'];
  }
  return { body: JSON.stringify(answer) };
}
