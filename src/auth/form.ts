import type { Request } from 'express';
import { CloakroomError } from '../errors.js';

const MAX_SIZE = 64 * 1024;

/**
 * The fields of a posted form, of at most 64 KiB.
 * @throws {CloakroomError} `bad-request`, `payload-too-large`
 */
export async function readForm(request: Request): Promise<URLSearchParams> {
  if (request.is('application/x-www-form-urlencoded') === false) throw new CloakroomError('bad-request');
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request) {
    const bytes = chunk as Buffer;
    size += bytes.length;
    if (size > MAX_SIZE) throw new CloakroomError('payload-too-large');
    chunks.push(bytes);
  }
  return new URLSearchParams(Buffer.concat(chunks).toString('utf8'));
}
