import type { RouteConfig } from '../config/config.js';
import { formatDuration } from '../config/duration.js';

/** What a route requires beyond being signed in, in a few words. */
export function requirementText({
  require,
  elevate,
}: { [key in 'require' | 'elevate']?: RouteConfig[key] }): string {
  const { scopes = [], claims = {}, acr, maxAuthAge } = require ?? {};
  const parts = [
    ...scopes.map((scope) => `scope ${scope}`),
    ...Object.entries(claims).map(([path, values]) => `${path}=${values.join('|')}`),
    ...(acr === undefined ? [] : [`acr ${acr.join('|')}`]),
    ...(maxAuthAge === undefined ? [] : [`signed in ${formatDuration(maxAuthAge)} ago at most`]),
    ...(elevate === undefined ? [] : [`elevates ${elevate.scope} for ${formatDuration(elevate.for)}`]),
  ];
  return parts.join(', ') || '-';
}
