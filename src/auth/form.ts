import type { Request } from 'express';
import { CloakroomError } from '../errors.js';

const MAX_SIZE = 64 * 1024;
const READ_WITHIN = 15_000;

/**
 * The fields of a posted form, of at most 64 KiB.
 * @throws {CloakroomError} `bad-request`, `payload-too-large`, `request-timeout`
 */
export async function readForm(request: Request): Promise<URLSearchParams> {
  if (request.is('application/x-www-form-urlencoded') === false) throw new CloakroomError('bad-request');
  const body = await new Promise<Buffer>((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    // The server sets no time for bodies, since uploads may be long; a form is not. Neither here nor for a body that is too
    // large is the request destroyed: the answer goes out on its connection.
    const late = setTimeout(() => {
      stop(new CloakroomError('request-timeout'));
    }, READ_WITHIN);
    const stop = (error?: CloakroomError): void => {
      clearTimeout(late);
      request.off('data', onData).off('end', onEnd).off('close', onClose).off('error', onClose);
      if (error === undefined) resolve(Buffer.concat(chunks));
      else reject(error);
    };
    const onData = (chunk: Buffer): void => {
      size += chunk.length;
      chunks.push(chunk);
      if (size > MAX_SIZE) stop(new CloakroomError('payload-too-large'));
    };
    const onEnd = (): void => {
      stop();
    };
    const onClose = (cause?: unknown): void => {
      stop(new CloakroomError('bad-request', { cause }));
    };
    request.on('data', onData).on('end', onEnd).on('close', onClose).on('error', onClose);
  });
  return new URLSearchParams(body.toString('utf8'));
}
