import { createHash } from 'node:crypto';
import { ERRORS, type CloakroomError, type ErrorCode } from '../errors.js';

const STYLE = `:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}
body{margin:0;min-height:100vh;display:grid;place-items:center;background:Canvas;color:CanvasText}
main{max-width:28rem;padding:2rem}h1{font-size:1.4rem;line-height:1.3;margin:0 0 .75rem}
p{margin:.5rem 0}a{color:LinkText}small{opacity:.7}`;

/** Nothing but this one style may load or run; nothing may frame the page. */
export const PAGE_CSP = `default-src 'none'; style-src 'sha256-${createHash('sha256')
  .update(STYLE)
  .digest('base64')}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;

const ADVICE: Partial<Record<ErrorCode, string>> = {
  'callback-refused': 'The sign-in was interrupted, used twice or took too long. Nothing was changed.',
  'login-refused': 'Open the application and choose to sign in there.',
  'login-parameter-invalid': 'The link that brought you here asks for something that is not allowed.',
  'insecure-transport': 'Open the application with an address that begins with https.',
  'idp-unavailable': 'Please try again in a moment.',
  'idp-invalid': 'Please try again; if it happens again, tell the people who run this application.',
  'store-unavailable': 'Please try again in a moment.',
  'too-many-requests':
    'Too many people at your address tried to sign in at once. Please try again in a moment.',
  csrf: 'Go back to the application and sign out there.',
};

export interface PageLinks {
  /** Where "Sign in again" leads. */
  login?: string;
  /** Where the page goes by itself at once. */
  onward?: string;
}

/**
 * A page for a navigation that failed. Every text is ours: nothing of the request is on it.
 *
 * @param reference finds the request in the log
 */
export function errorPage(error: CloakroomError, reference: string, links: PageLinks): string {
  const title = escapeHtml(ERRORS[error.code].title);
  const onward =
    links.onward === undefined
      ? ''
      : `<meta http-equiv="refresh" content="0;url=${escapeHtml(links.onward)}">`;
  const login = links.login === undefined ? '' : `<a href="${escapeHtml(links.login)}">Sign in again</a> · `;
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>${title}</title>${onward}
<meta name="viewport" content="width=device-width"><meta name="robots" content="noindex"><style>${STYLE}</style></head>
<body><main><h1>${title}</h1><p>${escapeHtml(ADVICE[error.code] ?? '')}</p>
<p>${login}<a href="/">Go to the application</a></p><p><small>Reference: ${escapeHtml(reference)}</small></p></main></body></html>`;
}

function escapeHtml(text: string): string {
  return text
    .replace(/&/g, '&amp;')
    .replace(/</g, '&lt;')
    .replace(/>/g, '&gt;')
    .replace(/"/g, '&quot;')
    .replace(/'/g, '&#39;');
}
