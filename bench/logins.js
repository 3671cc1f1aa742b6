// @ts-check
import { Pool } from 'undici';

const AT_ONCE = 16;
/** On a busy machine a process can be kept waiting for longer than Cloakroom waits for Redis. */
const ATTEMPTS = 5;

/**
 * Logs people in through the real endpoints, each with a browser of its own.
 *
 * @param {object} parts
 * @param {string} parts.origin
 * @param {{ authorize: (request: URL) => URL }} parts.provider
 * @param {number} parts.count
 * @param {string[]} parts.headers what the proxy in front would add
 * @param {(done: number) => void} parts.progress
 * @returns {Promise<string[]>} a `Cookie` value each
 */
export async function logIn({ origin, provider, count, headers, progress }) {
  const pool = new Pool(origin, { connections: AT_ONCE });
  /** @type {string[]} */
  const cookies = [];
  let begun = 0;

  /**
   * @param {string} path
   * @param {string} cookie
   */
  const navigate = async (path, cookie) => {
    const response = await pool.request({
      path,
      method: 'GET',
      headers: [...headers, 'sec-fetch-dest', 'document', 'sec-fetch-mode', 'navigate', 'cookie', cookie],
    });
    const text = await response.body.text();
    const { location, 'set-cookie': set = [] } = response.headers;
    if (response.statusCode !== 303 || typeof location !== 'string') {
      throw new Error(`a login was answered with ${String(response.statusCode)}: ${text.slice(0, 300)}`);
    }
    return { location, cookies: Array.isArray(set) ? set : [set] };
  };

  /**
   * @param {number} attempts
   * @returns {Promise<string>}
   */
  const logInOnce = async (attempts) => {
    try {
      const start = await navigate('/auth/login?returnTo=%2Forders', '');
      const back = provider.authorize(new URL(start.location));
      const end = await navigate(back.pathname + back.search, jar(start.cookies));
      return jar(end.cookies);
    } catch (error) {
      if (attempts <= 1) throw error;
      return logInOnce(attempts - 1);
    }
  };

  const worker = async () => {
    while (begun < count) {
      begun += 1;
      cookies.push(await logInOnce(ATTEMPTS));
      if (cookies.length % 1000 === 0) progress(cookies.length);
    }
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, count) }, worker));
  await pool.close();
  return cookies;
}

/** @param {string[]} lines `Set-Cookie` values of one answer */
function jar(lines) {
  return lines
    .filter((line) => !/; *max-age=0/i.test(line))
    .map((line) => line.split(';')[0] ?? '')
    .join('; ');
}
