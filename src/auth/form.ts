import type { Request } from 'express';
import { CloakroomError } from '../errors.js';

const MAX_SIZE = 64 * 1024;
const READ_WITHIN = 15_000;

/**
 * The fields of a posted form, of at most 64 KiB.
 * @throws {CloakroomError} `bad-request`, `payload-too-large`
 */
export async function readForm(request: Request): Promise<URLSearchParams> {
  if (request.is('application/x-www-form-urlencoded') === false) throw new CloakroomError('bad-request');
  const chunks: Buffer[] = [];
  let size = 0;
  // The server sets no time for bodies, since uploads may be long; a form is not.
  const late = setTimeout(() => request.destroy(), READ_WITHIN);
  try {
    // A body that is too large must leave its connection whole: the answer goes there.
    for await (const chunk of request.iterator({ destroyOnReturn: false })) {
      const bytes = chunk as Buffer;
      size += bytes.length;
      if (size > MAX_SIZE) throw new CloakroomError('payload-too-large');
      chunks.push(bytes);
    }
  } catch (cause) {
    throw cause instanceof CloakroomError ? cause : new CloakroomError('bad-request', { cause });
  } finally {
    clearTimeout(late);
  }
  return new URLSearchParams(Buffer.concat(chunks).toString('utf8'));
}
