import { statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { isLoopbackHost, parseUrl } from './addresses.js';
import type { LocatedWrong } from './faults.js';
import { PAGE_NAME } from './frontend-schema.js';
import { reasonOf } from './secrets.js';
import { fallback, type Look } from './settings.js';

/** Rules of the front end: it comes from one place, which is there, and a development server stays on this machine. */
export function frontendRules(look: Look, folder: string): LocatedWrong[] {
  const block = look('frontend');
  if (typeof block !== 'object' || block === null) return [];
  return [...onePlace(look), ...existingFolder(look, folder), ...developmentOnly(look)];
}

function onePlace(look: Look): LocatedWrong[] {
  const folder = look('frontend', 'folder') !== undefined;
  const devServer = look('frontend', 'devServer') !== undefined;
  if (!folder && !devServer) {
    return [
      {
        path: ['frontend'],
        problem: 'says neither folder nor devServer',
        remedy: 'write frontend: { folder: ./public }, or remove it',
      },
    ];
  }
  if (!devServer) return [];
  return ['folder', 'fallback', 'immutable', 'csp']
    .filter((key) => look('frontend', key) !== undefined)
    .map((key) => ({
      path: ['frontend', key],
      problem: 'stands beside frontend.devServer, for which it means nothing',
      remedy: 'remove one of the two',
    }));
}

function existingFolder(look: Look, base: string): LocatedWrong[] {
  const written = look('frontend', 'folder');
  if (typeof written !== 'string' || written === '') return [];
  const path = resolve(base, written);
  const problem = isNot('Directory', path);
  if (problem !== undefined) {
    return [
      {
        path: ['frontend', 'folder'],
        problem: `${JSON.stringify(path)} ${problem}`,
        remedy:
          'name the folder of the built front end, relative to the configuration file, or remove frontend',
      },
    ];
  }
  const page = look('frontend', 'fallback') ?? fallback('frontend', 'fallback');
  if (typeof page !== 'string' || !PAGE_NAME.test(page)) return [];
  const missing = isNot('File', join(path, page));
  if (missing === undefined) return [];
  return [
    {
      path: ['frontend', 'fallback'],
      problem: `${JSON.stringify(join(path, page))} ${missing}`,
      remedy: 'build the front end first, name another page, or write fallback: none',
    },
  ];
}

function isNot(kind: 'Directory' | 'File', path: string): string | undefined {
  try {
    if (statSync(path)[`is${kind}`]()) return undefined;
    return kind === 'File' ? 'is not a file' : 'is not a folder';
  } catch (error) {
    return reasonOf(error);
  }
}

function developmentOnly(look: Look): LocatedWrong[] {
  const publicUrl = look('publicUrl');
  const url = typeof publicUrl === 'string' ? parseUrl(publicUrl) : undefined;
  if (look('frontend', 'devServer') === undefined || url === undefined) return [];
  if (url.protocol === 'http:' && isLoopbackHost(url.hostname)) return [];
  return [
    {
      path: ['frontend', 'devServer'],
      problem: 'hands out the source of the application, and publicUrl is not http on a loopback host',
      remedy: 'write publicUrl: http://localhost:3000 for development, and frontend.folder everywhere else',
    },
  ];
}
