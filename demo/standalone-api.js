// @ts-check
// The demo's API on its own, for docker-compose.yml. Everything it needs comes from the environment.
import { startApi } from './api.js';

const {
  HOST = '0.0.0.0',
  PORT = '3002',
  ISSUER = 'http://127.0.0.1:3001',
  AUDIENCE = 'http://127.0.0.1:3002/',
  // Inside a network of containers the keys may have to be fetched from another address than the issuer's.
  JWKS_URI = new URL('/jwks', ISSUER).href,
} = process.env;

const api = await startApi({
  host: HOST,
  port: Number(PORT),
  issuer: ISSUER,
  audience: AUDIENCE,
  jwksUri: JWKS_URI,
});
console.log(`Demo API for tokens of ${ISSUER} listens on ${HOST}:${PORT}.`);

for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM'])) {
  process.on(signal, () => void api.close().then(() => process.exit(0)));
}
