// Preloaded into `node demo/start.js`: gives the demo's provider a ledger whose entries go to the file that
// DEMO_LEDGER names, where the search for leaked secrets looks for them, and access tokens that are soon to be renewed.
// The demo itself knows nothing of it.
import { appendFileSync } from 'node:fs';
import { register } from 'node:module';
import { startProvider as start } from '../../demo/provider.js';

// Only what demo/start.js imports is led here; what this file imports is the real one.
const hook = `export async function resolve(specifier, context, next) {
  const ours = specifier === './provider.js' && context.parentURL?.endsWith('/demo/start.js');
  return ours ? { url: ${JSON.stringify(import.meta.url)}, shortCircuit: true } : await next(specifier, context);
}`;
register(`data:text/javascript,${encodeURIComponent(hook)}`);

const file = process.env.DEMO_LEDGER;

/** A list that remembers in the file, before the provider's answer leaves. */
function noted(kind) {
  const list = [];
  list.push = (...values) => {
    for (const value of values) appendFileSync(file, `${JSON.stringify([kind, value])}\n`);
    return Array.prototype.push.apply(list, values);
  };
  return list;
}

/** Seconds. Nobody waits a minute to see a token renewed. */
const ACCESS_TOKEN = 16;

export function startProvider(options) {
  const ledger = {
    codes: noted('code'),
    accessTokens: noted('access_token'),
    refreshTokens: noted('refresh_token'),
    idTokens: noted('id_token'),
    verifiers: noted('verifier'),
    clientSecrets: noted('client_secret'),
  };
  return start({ ...options, ttl: { AccessToken: ACCESS_TOKEN }, ledger });
}
