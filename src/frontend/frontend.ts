import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Request, RequestHandler, Response } from 'express';
import type { FrontendFolder } from '../config/config.js';
import { NONCE } from '../config/frontend-schema.js';
import { hasContentHash } from './content-hash.js';
import { EntityTags, findFile, type FoundFile } from './files.js';

/** What a page has where the nonce belongs; a bundler puts it there. */
const PLACEHOLDER = '__CSP_NONCE__';
const A_YEAR = 'public, max-age=31536000, immutable';

/** Serves the application's files. Whoever navigates to a path that is none gets the start page. */
export function frontend(config: FrontendFolder): RequestHandler {
  const tags = new EntityTags();
  const csp = config.csp.replaceAll(` 'nonce-${NONCE}'`, '');

  async function serve(request: Request, response: Response, next: (error?: unknown) => void): Promise<void> {
    const asked = await findFile(config.folder, request.path);
    const file = asked ?? (await startPage(request));
    if (file === undefined) {
      next();
      return;
    }
    if (file.path.endsWith('.html') && (await sendWithNonce(file, response))) return;
    response.set('Content-Security-Policy', csp);
    response.set('Cache-Control', asked && isImmutable(request.path, config.immutable) ? A_YEAR : 'no-cache');
    response.set('ETag', await tags.of(file));
    sendFile(file, response, next);
  }

  async function startPage(request: Request): Promise<FoundFile | undefined> {
    if (config.fallback === undefined || !isNavigation(request)) return undefined;
    if (/\.\w+$|\/\./.test(request.path)) return undefined;
    return findFile(config.folder, `/${config.fallback}`);
  }

  /** A nonce that is used twice is none, so such a page is made anew for everybody, and kept by nobody. */
  async function sendWithNonce({ root, path }: FoundFile, response: Response): Promise<boolean> {
    if (!config.csp.includes(NONCE)) return false;
    const page = await readFile(join(root, path), 'utf8');
    if (!page.includes(PLACEHOLDER)) return false;
    const nonce = randomBytes(18).toString('base64');
    response.set('Content-Security-Policy', config.csp.replaceAll(NONCE, nonce));
    response.set('Cache-Control', 'no-store');
    const body = Buffer.from(page.replaceAll(PLACEHOLDER, nonce));
    // Whole, whatever the request says it has: no condition and no range can be met.
    response.type('html').set('Content-Length', String(body.length)).end(body);
    return true;
  }

  return (request, response, next) => {
    if (request.method !== 'GET' && request.method !== 'HEAD') next();
    else serve(request, response, next).catch(next);
  };
}

/** Newer browsers say so (https://www.w3.org/TR/fetch-metadata/); of others only a navigation wants HTML. */
function isNavigation({ headers }: Request): boolean {
  const mode = headers['sec-fetch-mode'];
  return mode === undefined ? headers.accept?.includes('text/html') === true : mode === 'navigate';
}

function isImmutable(path: string, immutable: FrontendFolder['immutable']): boolean {
  if (path.endsWith('/') || path.endsWith('.html')) return false;
  if (immutable === 'by-name') return hasContentHash(basename(path));
  return immutable.some((folder) => path.startsWith(folder));
}

/** Conditions, ranges and types are the library's. */
function sendFile(file: FoundFile, response: Response, next: (error?: unknown) => void): void {
  // Where a link led is not what was asked for: its own path may well have a dot in it.
  const options = { root: file.root, dotfiles: 'allow', cacheControl: false } as const;
  response.sendFile(file.path, options, (error?: Error & { status?: number }) => {
    if (error === undefined || response.headersSent || response.destroyed) return;
    const { status } = error;
    // What a browser asked of a part of a file, or of one version of it, cannot be met: answered, and no error of ours.
    if (status === 412 || status === 416) {
      response.status(status).end();
      return;
    }
    for (const name of ['Cache-Control', 'ETag', 'Last-Modified', 'Accept-Ranges'])
      response.removeHeader(name);
    next(status === 404 ? undefined : error);
  });
}
