import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type AddressInfo, type Socket } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { selfSigned } from './certificate.js';
import { closeLater } from './lifetime.js';
import { fromDocs, untilItListens } from './gateway.js';
import { freePort, scratchFolder } from './run-folder.js';

const binary = process.env['CLOAKROOM_TEST_NGINX'] ?? 'nginx';
const asked = spawnSync(binary, ['-v'], { encoding: 'utf8' });
/** Undefined when there is no nginx on PATH. */
export const nginxVersion = asked.error === undefined ? /nginx\/(\S+)/.exec(asked.stderr)?.[1] : undefined;

export interface Nginx {
  folder: string;
  /** Signal 0 fails once it has gone. */
  pid: number | undefined;
  errorLog(): string;
}

/** PEM files of a certificate that vouches for itself. */
export interface CertificateFiles {
  certificate: string;
  key: string;
}

/**
 * Starts a private nginx and waits until it listens.
 *
 * @param host name in its certificate
 * @param port one of those it will listen on
 * @param http what stands in the http block
 */
export async function launchNginx(
  host: string,
  port: number,
  http: (folder: string, files: CertificateFiles) => string,
): Promise<Nginx> {
  const folder = scratchFolder('nginx');
  mkdirSync(join(folder, 'temp'), { recursive: true });
  const { cert, key } = selfSigned([host]);
  const files = { certificate: join(folder, 'cert.pem'), key: join(folder, 'key.pem') };
  writeFileSync(files.certificate, cert);
  writeFileSync(files.key, key, { mode: 0o600 });
  const errorLog = join(folder, 'error.log');
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
  writeFileSync(
    join(folder, 'nginx.conf'),
    `daemon off;
# One process: no worker is left behind when it is killed.
master_process off;
pid ${join(folder, 'nginx.pid')};
error_log ${errorLog} info;
events { worker_connections 256; }
http {
  access_log off;
  ${temporary.map((name) => `${name}_temp_path ${join(folder, 'temp')};`).join('\n  ')}
  ${http(folder, files)}
}
`,
  );
  const child = spawn(binary, ['-p', folder, '-c', join(folder, 'nginx.conf'), '-e', errorLog], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  await untilItListens('nginx', child, port);
  return { folder, pid: child.pid, errorLog: () => readFileSync(errorLog, 'utf8') };
}

/**
 * Starts it with a file of docs/nginx as it stands there; only addresses and file names are put in.
 *
 * @param addresses `host:port` in the file, and what stands for it here
 * @returns a plain port that leads to it inside TLS
 */
export async function nginxFromDocs(
  name: string,
  host: string,
  addresses: Record<string, string>,
): Promise<number> {
  const port = await freePort();
  await launchNginx(host, port, (_folder, { certificate, key }) =>
    fromDocs(`nginx/${name}`, {
      'listen 443 ssl': `listen 127.0.0.1:${String(port)} ssl`,
      'server_name app.example.com': `server_name ${host}`,
      '/etc/nginx/app.example.com.pem': certificate,
      '/etc/nginx/app.example.com.key': key,
      ...Object.fromEntries(
        Object.entries(addresses).map(([from, to]) => [`server ${from};`, `server ${to};`]),
      ),
    }),
  );
  return intoTls(port, host);
}

/** A port whose connections go on to another inside TLS, byte for byte, so that the rig's clients need not speak it. */
export async function intoTls(port: number, host: string): Promise<number> {
  const open = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    const secure = connectTls({ port, host: '127.0.0.1', servername: host, rejectUnauthorized: false });
    secure.setNoDelay(true);
    for (const [one, other] of [
      [socket, secure],
      [secure, socket],
    ] as const) {
      open.add(one);
      one.on('error', () => other.destroy());
      one.on('close', () => {
        open.delete(one);
        other.destroy();
      });
    }
    socket.pipe(secure).pipe(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  closeLater(() => {
    for (const socket of open) socket.destroy();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}
