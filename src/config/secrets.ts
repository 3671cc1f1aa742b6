import { readFileSync } from 'node:fs';
import { isAbsolute, resolve } from 'node:path';
import type { SecretRef } from './config.js';
import { secretPlace, type SecretPlace } from './secret-schema.js';
import type { Wrong } from './setting.js';
import { NOT_REDIS, redisUrl } from './store-schema.js';
import type { LocatedWrong } from './faults.js';
import { formatPath, type Path } from './settings.js';

/** Where secrets come from, and which ones are too weak to use. */

export interface SecretSources {
  /** Folder that relative paths start from. */
  readonly folder: string;
  readonly env: NodeJS.ProcessEnv;
}

const LARGEST = 64 * 1024;
const SHORTEST = 32;
const NEW_KEY = 'make a new one, for this purpose only: openssl rand -base64 48';

class SecretUnreadable extends Error {
  constructor(
    readonly problem: string,
    readonly remedy: string,
  ) {
    super(`secret ${problem}`);
  }
}

/** The secret at this place. `read` throws, without the secret in its message, when it is not there. */
export function secretRef(place: SecretPlace, sources: SecretSources): SecretRef {
  const { file, env: variable } = place;
  return {
    read() {
      const value =
        file === undefined ? readVariable(variable ?? '', sources.env) : readSecretFile(file, sources.folder);
      if (value === '') {
        throw new SecretUnreadable('is empty', 'put the secret there, on one line');
      }
      return value;
    },
  };
}

function readVariable(name: string, env: NodeJS.ProcessEnv): string {
  const value = env[name];
  if (value === undefined) {
    throw new SecretUnreadable(`names the environment variable ${name}, which is not set`, `set ${name}`);
  }
  return value.replace(/\r?\n$/, '');
}

function readSecretFile(file: string, folder: string): string {
  const path = isAbsolute(file) ? file : resolve(folder, file);
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new SecretUnreadable(
      `names the file ${JSON.stringify(file)}, which ${reasonOf(error)}`,
      `put the secret into ${JSON.stringify(path)}, readable for this process`,
    );
  }
  if (text.length > LARGEST) {
    throw new SecretUnreadable(
      `names the file ${JSON.stringify(file)}, which is too large for a secret`,
      'name another file',
    );
  }
  return text.replace(/\r?\n$/, '');
}

export function reasonOf(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code;
  if (code === 'ENOENT' || code === 'ENOTDIR') return 'does not exist';
  if (code === 'EACCES' || code === 'EPERM') return 'may not be read';
  if (code === 'EISDIR') return 'is a folder';
  return `cannot be read (${code ?? 'unknown error'})`;
}

interface Place {
  readonly path: Path;
  readonly use: 'key' | 'client' | 'redis';
}

/** Where secrets can stand. Read from the values as written, so that a fault elsewhere hides none here. */
function placesOf(valueAt: (path: Path) => unknown): Place[] {
  const places: Place[] = [];
  for (const list of ['cookie', 'seal', 'revocation']) {
    const elements = valueAt(['secrets', list]);
    if (!Array.isArray(elements)) continue;
    elements.forEach((_, index) => places.push({ path: ['secrets', list, index], use: 'key' }));
  }
  const providers = valueAt(['providers']);
  if (typeof providers === 'object' && providers !== null) {
    for (const name of Object.keys(providers)) {
      places.push({ path: ['providers', name, 'clientSecret'], use: 'client' });
    }
  }
  places.push({ path: ['store', 'redis', 'url'], use: 'redis' });
  return places;
}

/** Secrets that are missing, weak, from the examples, or used twice. */
export function checkSecrets(valueAt: (path: Path) => unknown, sources: SecretSources): LocatedWrong[] {
  const wrongs: LocatedWrong[] = [];
  const known = new Map<string, Place>();
  for (const place of placesOf(valueAt)) {
    const reference = secretPlace.safeParse(valueAt(place.path)).data;
    if (!reference) continue;
    const { path, use } = place;
    let value: string;
    try {
      value = secretRef(reference, sources).read();
    } catch (error) {
      if (!(error instanceof SecretUnreadable)) throw error;
      wrongs.push({ path, problem: error.problem, remedy: error.remedy });
      continue;
    }
    const twin = known.get(value);
    if (!twin) known.set(value, place);
    const weakness = weaknessOf(value, use);
    if (weakness) wrongs.push({ path, ...weakness });
    else if (twin && (use === 'key' || twin.use === 'key')) {
      wrongs.push({ path, problem: `holds the same secret as ${formatPath(twin.path)}`, remedy: NEW_KEY });
    }
  }
  return wrongs;
}

/** Texts that stand for a secret in documentation; nobody's secret contains them by chance. */
const PLACEHOLDERS =
  /change-?_? ?(me|it|this)|replace-?_? ?(me|this)|placeholder|example|your-?_? ?secret|not-?_? ?(so-?_? ?)?secret|^secret$|^password$|insecure|do-?_? ?not-?_? ?use|keyboard cat|0123456789|lorem ipsum/i;

function weaknessOf(value: string, use: Place['use']): Wrong | undefined {
  if (use === 'redis') return redisUrl.safeParse(value).success ? undefined : NOT_REDIS;
  if (use === 'client') {
    const placeholder = /^(change-?_?me|replace-?_?me|placeholder|your-client-secret)$/i.test(value);
    return placeholder
      ? { problem: 'is a placeholder', remedy: 'put the secret that the provider issued there' }
      : undefined;
  }
  const bytes = Buffer.byteLength(value);
  if (bytes < SHORTEST) return { problem: `has ${bytes} bytes, fewer than ${SHORTEST}`, remedy: NEW_KEY };
  if (PLACEHOLDERS.test(value))
    return { problem: 'is a placeholder, as examples have them', remedy: NEW_KEY };
  // 32 random hexadecimal characters hold fewer than 8 different ones less than once in a million keys.
  if (new Set(value).size < 8) return { problem: 'repeats a few characters', remedy: NEW_KEY };
  return /^(.{1,16}?)\1+$/s.test(value) ? { problem: 'repeats one pattern', remedy: NEW_KEY } : undefined;
}
