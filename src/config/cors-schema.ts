import { z } from 'zod';
import { checked, quote, setting } from './setting.js';
import { plainHttp, webUrl } from './web-url.js';

const ORIGIN_WANTED = 'an origin such as https://app.other.example, exactly as browsers send it';

const crossOrigin = checked(z.string(), (text) => {
  if (text.includes('*')) {
    return {
      problem: `${quote(text)} is a wildcard`,
      remedy: 'write each origin in full: every one of them may act as whoever is signed in',
    };
  }
  if (text === 'null') {
    return {
      problem: 'null is the origin of every sandboxed frame and local file',
      remedy: `write ${ORIGIN_WANTED}`,
    };
  }
  const parsed = webUrl(text, ORIGIN_WANTED);
  if (!('url' in parsed)) return parsed;
  const { url } = parsed;
  if (url.pathname !== '/') return { problem: `${quote(text)} has a path`, remedy: `write ${url.origin}` };
  // Compared as text: what differs only in spelling would never match.
  if (text !== url.origin) {
    return { problem: `${quote(text)} is not written as browsers send it`, remedy: `write ${url.origin}` };
  }
  if (url.hostname.endsWith('.')) {
    return { problem: `${quote(text)} ends with a dot`, remedy: `write ${ORIGIN_WANTED}` };
  }
  return plainHttp(url, text);
});

export const cors = z
  .strictObject({
    origins: setting(z.array(crossOrigin).prefault([]), {
      description:
        'Origins of front ends that live elsewhere and may call routes, `/auth/me`, `/auth/logout`, `/auth/sessions` and ' +
        '`/auth/events` with credentials. Compared exactly, there are no wildcards. Each can do what the page itself can, ' +
        'so list only what you run yourself. Such a script still sends `X-CSRF: 1`. The session cookie is SameSite: browsers ' +
        'send it only where both sites are the same (https://app.example.com and https://shop.example.com are; ' +
        'https://app.other.example is not), so that a front end on another site is nobody here and gets through only where ' +
        '`token` is `none` or `user-or-none`.',
      example: ['https://shop.example.com'],
    }),
  })
  .prefault({})
  .meta({ description: 'Which other origins may call, besides that of `publicUrl`.' });
