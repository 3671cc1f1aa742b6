import { spawn, spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { selfSigned } from './certificate.js';
import { fromDocs, untilItListens } from './gateway.js';
import { intoTls, type CertificateFiles } from './nginx.js';
import { freePort, scratchFolder } from './run-folder.js';

const binary = process.env['CLOAKROOM_TEST_CADDY'] ?? 'caddy';
const asked = spawnSync(binary, ['version'], { encoding: 'utf8' });
/** Undefined when there is no Caddy on PATH. */
export const caddyVersion = asked.error === undefined ? asked.stdout.trim().split(' ')[0] : undefined;

/**
 * Starts a private Caddy and waits until it listens.
 *
 * @param host name in its certificate
 * @param port the one it will listen on
 * @param site what stands behind the global options
 */
export async function launchCaddy(
  host: string,
  port: number,
  site: (files: CertificateFiles) => string,
): Promise<void> {
  const folder = scratchFolder('caddy');
  const { cert, key } = selfSigned([host]);
  const files = { certificate: join(folder, 'cert.pem'), key: join(folder, 'key.pem') };
  writeFileSync(files.certificate, cert);
  writeFileSync(files.key, key, { mode: 0o600 });
  const file = join(folder, 'Caddyfile');
  writeFileSync(
    file,
    `{
	admin off
	auto_https off
	storage file_system ${folder}
}
${site(files)}`,
  );
  const child = spawn(binary, ['run', '--config', file, '--adapter', 'caddyfile'], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, HOME: folder, XDG_CONFIG_HOME: folder, XDG_DATA_HOME: folder },
  });
  await untilItListens('caddy', child, port);
}

/**
 * Starts it with docs/caddy/Caddyfile as it stands there; only addresses and file names are put in.
 *
 * @param addresses `host:port` in the file, and what stands for it here
 * @returns a plain port that leads to it inside TLS
 */
export async function caddyFromDocs(host: string, addresses: Record<string, string>): Promise<number> {
  const port = await freePort();
  await launchCaddy(host, port, ({ certificate, key }) =>
    fromDocs('caddy/Caddyfile', {
      'app.example.com {': `https://${host}:${String(port)} {\n\tbind 127.0.0.1\n\ttls ${certificate} ${key}`,
      ...addresses,
    }),
  );
  return intoTls(port, host);
}
