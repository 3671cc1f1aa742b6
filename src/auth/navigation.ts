import type { IncomingMessage } from 'node:http';
import { CloakroomError } from '../errors.js';

/**
 * The framework serves HEAD wherever it serves GET; where GET changes something, a link checker must not.
 * @throws {CloakroomError} `method-not-allowed`
 */
export function refuseHead(request: IncomingMessage): void {
  if (request.method === 'HEAD') throw new CloakroomError('method-not-allowed', { allow: ['GET'] });
}

/**
 * Lets only a top-level navigation through: a login that an image, a frame, a script or a prefetch starts is nobody's
 * wish. Browsers that send no fetch metadata are let through.
 *
 * @see https://www.w3.org/TR/fetch-metadata/
 * @throws {CloakroomError} `login-refused`
 */
export function requireNavigation(request: IncomingMessage): void {
  const { headers } = request;
  refuseHead(request);
  const purpose = [headers['sec-purpose'], headers['purpose'], headers['x-moz']].join(' ').toLowerCase();
  if (purpose.includes('prefetch') || purpose.includes('prerender')) {
    throw new CloakroomError('login-refused', { public: { reason: 'prefetch' } });
  }
  if (!isNavigation(request)) {
    throw new CloakroomError('login-refused', { public: { reason: 'not-a-navigation' } });
  }
}

/** Whether the answer is for a tab of its own; true for browsers that do not say. */
export function isNavigation(request: IncomingMessage): boolean {
  return (request.headers['sec-fetch-dest'] ?? 'document') === 'document';
}
