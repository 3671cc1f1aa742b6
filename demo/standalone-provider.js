// @ts-check
// The demo's identity provider on its own, for docker-compose.yml. Everything it needs comes from the environment.
import { demoClient } from './client.js';
import { startProvider } from './provider.js';

const {
  HOST = '0.0.0.0',
  PORT = '3001',
  ISSUER = 'http://127.0.0.1:3001',
  PUBLIC_URL = 'http://localhost:3000',
  CLIENT_ID = 'cloakroom-demo',
  CLIENT_SECRET,
  AUDIENCE = 'http://127.0.0.1:3002/',
} = process.env;

if (!CLIENT_SECRET) {
  console.error('CLIENT_SECRET is not set: give the provider the same client secret as Cloakroom.');
  process.exit(1);
}

const provider = await startProvider({
  host: HOST,
  port: Number(PORT),
  issuer: ISSUER,
  audience: AUDIENCE,
  clients: [demoClient({ clientId: CLIENT_ID, clientSecret: CLIENT_SECRET, publicUrl: PUBLIC_URL })],
  log: (line) => console.error(line),
});
console.log(`Demo identity provider ${ISSUER} listens on ${HOST}:${PORT}.`);

for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM'])) {
  process.on(signal, () => void provider.close().then(() => process.exit(0)));
}
