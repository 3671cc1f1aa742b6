import { join } from 'node:path';
import { intoTls, launchNginx, nginxVersion } from '../test/support/nginx.js';
import { freePort } from '../test/support/run-folder.js';

export { nginxVersion };

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
 * @returns plain ports: bytes written there reach nginx inside TLS
 */
export async function startNginx(host: string, replicaPort: number): Promise<Nginx> {
  const ports = [await freePort(), await freePort()];
  const nginx = await launchNginx(host, ports[1] ?? 0, (folder, { certificate, key }) => {
    const server = (port: number, target: string): string => `
    server {
      listen 127.0.0.1:${String(port)} ssl;
      server_name ${host};
      ssl_certificate ${certificate};
      ssl_certificate_key ${key};
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
    return `proxy_cache_path ${join(folder, 'cache')} keys_zone=answers:10m use_temp_path=off;
  upstream cloakroom {
    server 127.0.0.1:${String(replicaPort)};
    keepalive 4;
  }
  ${server(ports[0] ?? 0, 'http://cloakroom')}
  ${server(ports[1] ?? 0, 'http://cloakroom/')}`;
  });
  return {
    asItCame: await intoTls(ports[0] ?? 0, host),
    normalised: await intoTls(ports[1] ?? 0, host),
    errorLog: () => nginx.errorLog(),
  };
}
