import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isIPv4 } from 'node:net';
import { resolve } from 'node:path';
import { createSecureContext } from 'node:tls';
import { isLoopbackHost } from './addresses.js';
import type { LocatedWrong } from './faults.js';
import { reasonOf } from './secrets.js';
import { fallback, type Look } from './settings.js';

/** Rules of the admin listener: who gets in, where it may listen, and files that are there. */
export function adminRules(look: Look, folder: string): LocatedWrong[] {
  const block = look('admin');
  if (typeof block !== 'object' || block === null) return [];
  return [
    ...somebodyGetsIn(look),
    ...differentNames(look),
    ...plainTextStaysHere(look),
    ...certificateFiles(look, folder),
  ];
}

function listed(look: Look, list: 'tokens' | 'clients'): readonly unknown[] {
  const written = look('admin', list);
  return Array.isArray(written) ? written : [];
}

function somebodyGetsIn(look: Look): LocatedWrong[] {
  const authority = look('admin', 'tls', 'clientAuthority') !== undefined;
  const clients = listed(look, 'clients').length > 0;
  if (authority && !clients) {
    return [
      {
        path: ['admin', 'tls', 'clientAuthority'],
        problem: 'is given, and no client certificate is named in admin.clients',
        remedy: 'write admin.clients: [{ name: <common name>, role: read }], or remove it',
      },
    ];
  }
  if (clients && !authority) {
    return [
      {
        path: ['admin', 'clients'],
        problem: 'names client certificates, and nothing says which authority issues them',
        remedy: 'write admin.tls: { certificate: …, key: …, clientAuthority: … }',
      },
    ];
  }
  if (clients || listed(look, 'tokens').length > 0) return [];
  return [
    {
      path: ['admin'],
      problem: 'has neither tokens nor client certificates, so nobody could use it',
      remedy:
        'run `cloakroom admin-token --name alice --role end` and write the line it prints into admin.tokens',
    },
  ];
}

/** The audit log names whoever acted: one name is one holder, and one token has one name. */
function differentNames(look: Look): LocatedWrong[] {
  const first = new Map<string, string>();
  const wrongs: LocatedWrong[] = [];
  for (const list of ['tokens', 'clients'] as const) {
    listed(look, list).forEach((_, index) => {
      for (const key of ['name', 'sha256']) {
        const value = look('admin', list, index, key);
        if (typeof value !== 'string') continue;
        const earlier = first.get(`${key} ${value}`);
        first.set(`${key} ${value}`, earlier ?? `admin.${list}[${index}]`);
        if (earlier === undefined) continue;
        wrongs.push({
          path: ['admin', list, index, key],
          problem: `is also the ${key} of ${earlier}`,
          remedy:
            key === 'name' ? 'give each holder a name of its own' : 'make a token of its own for each holder',
        });
      }
    });
  }
  return wrongs;
}

function plainTextStaysHere(look: Look): LocatedWrong[] {
  const host = look('admin', 'host') ?? fallback('admin', 'host');
  if (typeof host !== 'string' || look('admin', 'tls') !== undefined || isLoopbackListener(host)) return [];
  return [
    {
      path: ['admin', 'host'],
      problem: `${JSON.stringify(host)} can be reached from other machines, and tokens would travel unencrypted`,
      remedy: 'write 127.0.0.1, or admin.tls: { certificate: …, key: … }',
    },
  ];
}

export function isLoopbackListener(host: string): boolean {
  if (isIPv4(host)) return host.startsWith('127.');
  return isLoopbackHost(host.includes(':') ? `[${host}]` : host);
}

function certificateFiles(look: Look, folder: string): LocatedWrong[] {
  const wrongs: LocatedWrong[] = [];
  const read = (key: string): Buffer | undefined => {
    const written = look('admin', 'tls', key);
    if (typeof written !== 'string' || written === '') return undefined;
    const path = resolve(folder, written);
    try {
      return readFileSync(path);
    } catch (error) {
      wrongs.push({
        path: ['admin', 'tls', key],
        problem: `${JSON.stringify(path)} ${reasonOf(error)}`,
        remedy: 'name a PEM file that this process may read, relative to the configuration file',
      });
      return undefined;
    }
  };
  const [certificate, key, authority] = [read('certificate'), read('key'), read('clientAuthority')];
  if (certificate && key && !isUsable({ cert: certificate, key })) {
    wrongs.push({
      path: ['admin', 'tls', 'certificate'],
      problem: 'and admin.tls.key are not a certificate and its private key',
      remedy: 'name PEM files that belong together; the key has no passphrase',
    });
  }
  if (authority && !isCertificate(authority)) {
    wrongs.push({
      path: ['admin', 'tls', 'clientAuthority'],
      problem: 'holds no certificate',
      remedy: 'name the PEM file of the authority that issues the client certificates',
    });
  }
  return wrongs;
}

function isUsable(options: { cert: Buffer; key: Buffer }): boolean {
  try {
    createSecureContext(options);
    return true;
  } catch {
    return false;
  }
}

function isCertificate(pem: Buffer): boolean {
  try {
    return new X509Certificate(pem).serialNumber.length > 0;
  } catch {
    return false;
  }
}
