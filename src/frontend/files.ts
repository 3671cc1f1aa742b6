import { createHash } from 'node:crypto';
import { createReadStream, type Stats } from 'node:fs';
import { realpath, stat } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { pipeline } from 'node:stream/promises';

/** A file of the front end, by where it really is. */
export interface FoundFile {
  /** Absolute, links followed. */
  root: string;
  /** From the root. */
  path: string;
  stats: Stats;
}

const NOT_THERE = new Set(['ENOENT', 'ENOTDIR', 'ENAMETOOLONG', 'ELOOP']);

/**
 * The file that a path names, `index.html` for a folder's own path. Nothing whose name begins with a dot, and nothing outside
 * the folder, whatever links lead there; the folder itself may be a link, as deployments swap them.
 *
 * @param path in canonical form, still percent-encoded
 */
export async function findFile(folder: string, path: string): Promise<FoundFile | undefined> {
  const segments = decodeURIComponent(path).split('/').slice(1);
  if (segments.some((segment) => segment.startsWith('.'))) return undefined;
  if (segments.at(-1) === '') segments[segments.length - 1] = 'index.html';
  try {
    const root = await realpath(folder);
    const file = await realpath(join(root, ...segments));
    if (!file.startsWith(root.endsWith(sep) ? root : root + sep)) return undefined;
    const stats = await stat(file);
    return stats.isFile() ? { root, path: relative(root, file), stats } : undefined;
  } catch (error) {
    if (NOT_THERE.has((error as NodeJS.ErrnoException).code ?? '')) return undefined;
    throw error;
  }
}

interface Known {
  version: string;
  tag: string;
}

/**
 * Entity tags from the content: many builds set the time of all files to the same moment, and two versions of a file can have
 * the same size.
 */
export class EntityTags {
  readonly #known = new Map<string, Known>();

  /** @returns a strong validator (RFC 9110 section 8.8.1), read once for each version of a file */
  async of({ root, path, stats }: FoundFile): Promise<string> {
    const file = join(root, path);
    const version = [stats.dev, stats.ino, stats.size, stats.mtimeMs, stats.ctimeMs].join(' ');
    const known = this.#known.get(file);
    if (known?.version === version) return known.tag;
    const hash = createHash('sha256');
    await pipeline(createReadStream(file), hash);
    const tag = `"${hash.digest('base64url').slice(0, 27)}"`;
    this.#known.set(file, { version, tag });
    return tag;
  }
}
