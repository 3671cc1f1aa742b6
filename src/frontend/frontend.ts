import express, { type RequestHandler, type Response } from 'express';

/** What the application's own pages may load: their own origin. */
const FRONTEND_CSP =
  "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'";

/** Serves the application's files. Unknown paths that a person navigates to get the start page. */
export function frontend(folder: string): RequestHandler {
  const files = express.static(folder, {
    index: 'index.html',
    dotfiles: 'ignore',
    redirect: false,
    fallthrough: true,
  });
  return (request, response, next) => {
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      next();
      return;
    }
    response.set('Content-Security-Policy', FRONTEND_CSP);
    response.set('Cache-Control', 'no-cache');
    files(request, response, (error?: unknown) => {
      const wantsPage =
        request.headers.accept?.includes('text/html') === true && !/\.\w+$/.test(request.path);
      if (isUnmet(error, response)) return;
      if (error !== undefined || !wantsPage) {
        response.removeHeader('Cache-Control');
        next(error);
        return;
      }
      // Not '/': serve-static looks at the original address too, and takes '/' under another for a missing slash.
      request.url = '/index.html';
      files(request, response, (failure?: unknown) => {
        if (!isUnmet(failure, response)) next(failure);
      });
    });
  };
}

/** What a browser asked of a part of a file, or of one version of it, cannot be met: answered, and no error of ours. */
function isUnmet(error: unknown, response: Response): boolean {
  const status = (error as { status?: unknown } | undefined)?.status;
  if (status !== 412 && status !== 416) return false;
  response.status(status).end();
  return true;
}
