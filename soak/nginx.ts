import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect as connectPlain, createServer, type AddressInfo, type Socket } from 'node:net';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { selfSigned } from '../test/support/certificate.js';
import { closeLater, eventually, guard } from '../test/support/lifetime.js';
import { freePort, scratchFolder } from '../test/support/run-folder.js';

const asked = spawnSync('nginx', ['-v'], { encoding: 'utf8' });
/** Undefined when there is no nginx on PATH. */
export const nginxVersion = asked.error === undefined ? /nginx\/(\S+)/.exec(asked.stderr)?.[1] : undefined;

export interface Nginx {
  /** Passes the request target on as it came. */
  asItCame: number;
  /** Reads the path, puts it in order, and passes on what it made of it. */
  normalised: number;
  errorLog(): string;
}

/**
 * nginx that ends TLS in front of one replica, and stores every answer that it may.
 *
 * @returns plain ports: bytes written there reach nginx inside TLS, so that the rig's clients need not speak it
 */
export async function startNginx(host: string, replicaPort: number): Promise<Nginx> {
  const folder = scratchFolder('nginx');
  mkdirSync(join(folder, 'temp'), { recursive: true });
  const { cert, key } = selfSigned([host]);
  writeFileSync(join(folder, 'cert.pem'), cert);
  writeFileSync(join(folder, 'key.pem'), key, { mode: 0o600 });
  const ports = [await freePort(), await freePort()];
  const errorLog = join(folder, 'error.log');
  const server = (port: number, target: string): string => `
    server {
      listen 127.0.0.1:${String(port)} ssl;
      server_name ${host};
      ssl_certificate ${join(folder, 'cert.pem')};
      ssl_certificate_key ${join(folder, 'key.pem')};
      location / {
        proxy_pass ${target};
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_set_header X-Forwarded-For $remote_addr;
        proxy_set_header X-Forwarded-Proto https;
        proxy_cache answers;
        proxy_cache_key $host$request_uri;
        proxy_cache_methods GET HEAD POST;
        # What says nothing about itself is stored, as by somebody who does not think.
        proxy_cache_valid any 10m;
        add_header X-Stored $upstream_cache_status always;
      }
    }`;
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
  ${['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${join(folder, 'temp')};`).join('\n  ')}
  proxy_cache_path ${join(folder, 'cache')} keys_zone=answers:10m use_temp_path=off;
  upstream cloakroom {
    server 127.0.0.1:${String(replicaPort)};
    keepalive 4;
  }
  ${server(ports[0] ?? 0, 'http://cloakroom')}
  ${server(ports[1] ?? 0, 'http://cloakroom/')}
}
`,
  );
  const child = spawn('nginx', ['-p', folder, '-c', join(folder, 'nginx.conf'), '-e', errorLog], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  guard(child);
  closeLater(() => {
    child.kill('SIGKILL');
  });
  let complaints = '';
  child.stderr.on('data', (chunk: Buffer) => (complaints += chunk.toString('utf8')));
  await eventually(
    async () => {
      if (child.exitCode !== null)
        throw new Error(`nginx ended with ${String(child.exitCode)}: ${complaints}`);
      return isListening(ports[1] ?? 0);
    },
    { timeout: 10_000, what: 'nginx to listen' },
  );
  return {
    asItCame: await intoTls(ports[0] ?? 0, host),
    normalised: await intoTls(ports[1] ?? 0, host),
    errorLog: () => readFileSync(errorLog, 'utf8'),
  };
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connectPlain({ port, host: '127.0.0.1' });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

/** A port whose connections go on to another inside TLS, byte for byte. */
async function intoTls(port: number, host: string): Promise<number> {
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
