import { z } from 'zod';
import { checked, quote, setting } from './setting.js';
import { webUrl } from './web-url.js';

/** What stands for the nonce of one answer in `frontend.csp`. */
export const NONCE = '{nonce}';

const POLICY =
  `default-src 'self'; script-src 'self' 'nonce-${NONCE}'; style-src 'self' 'nonce-${NONCE}'; img-src 'self' data:; ` +
  "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'";

const policy = checked(z.string(), (text) => {
  const remedy = `write one line such as ${quote(POLICY)}`;
  if (!/^[\x20-\x7e]+$/.test(text)) {
    return { problem: 'is empty, or holds what cannot stand in a header', remedy };
  }
  if (text.replaceAll(`'nonce-${NONCE}'`, '').match(/'nonce-|\{nonce\}/) !== null) {
    return {
      problem: 'has a nonce that is the same in every answer',
      remedy: `write 'nonce-${NONCE}': each answer has its own`,
    };
  }
  return /(?:^|;)\s*frame-ancestors\s/i.test(text)
    ? undefined
    : {
        problem: 'does not say who may show the page in a frame',
        remedy: "add frame-ancestors 'none' (or the origins that may)",
      };
});

/** Directly in the folder, and not hidden. */
export const PAGE_NAME = /^(?!\.)[A-Za-z0-9._-]+\.html$/;

const fallback = checked(z.string(), (name) =>
  name === 'none' || PAGE_NAME.test(name)
    ? undefined
    : {
        problem: `${quote(name)} is not a page directly in the folder`,
        remedy: 'write index.html, or none',
      },
);

const hashedFolder = checked(z.string(), (path) =>
  /^\/(?:(?!\.)[A-Za-z0-9._~-]+\/)+$/.test(path)
    ? undefined
    : { problem: `${quote(path)} is not the path of a folder`, remedy: 'write a prefix such as /assets/' },
);

const devServer = checked(z.string(), (text) => {
  const parsed = webUrl(text, 'an origin such as http://localhost:5173');
  if (!('url' in parsed)) return parsed;
  return parsed.url.pathname === '/' && !text.endsWith('/')
    ? undefined
    : { problem: `${quote(text)} has a path`, remedy: `write ${parsed.url.origin}` };
});

export const frontend = z
  .strictObject({
    folder: setting(z.string().min(1).optional(), {
      description:
        'Folder of the built front end, relative to the configuration file. Files and folders whose name begins with a dot, ' +
        'and links that lead out of it, are not served.',
      example: './public',
    }),
    devServer: setting(devServer.optional(), {
      description:
        'Instead of a folder, during development: the origin of a development server such as Vite. Whatever is neither a route ' +
        'nor an endpoint of ours goes there, WebSockets included, without session, token and cookies. Only while `publicUrl` is ' +
        'http on a loopback host.',
      example: 'http://localhost:5173',
    }),
    fallback: setting(fallback.prefault('index.html'), {
      description:
        'The page for whoever navigates to a path that is no file and has no file extension, as single-page applications need ' +
        'it; `none`: 404.',
      example: 'index.html',
    }),
    immutable: setting(z.union([z.enum(['by-name']), z.array(hashedFolder)]).prefault('by-name'), {
      description:
        'Which files browsers may keep for a year without asking, because another content would have another name. `by-name`: ' +
        'those with what looks like a hash at the end of the name (`app-BxK3d9Qz.js`, `main.8f3a9c1b.css`). A list: everything ' +
        'in these folders, and nothing else. All other files are asked for again each time (`no-cache`, answered by 304).',
      example: ['/assets/'],
    }),
    csp: setting(policy.prefault(POLICY), {
      description:
        `Content-Security-Policy of the front end's files. \`'nonce-${NONCE}'\` allows what carries the nonce of this answer: ` +
        'where a page has `__CSP_NONCE__` in it, the nonce is put in its place and the page is not cached. In all other ' +
        'answers it is left out of the policy.',
      example: POLICY,
    }),
  })
  .optional()
  .meta({
    description: 'The page, served beside the proxy. Without it, something else serves the page.',
  });
