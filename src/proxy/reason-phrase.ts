import { STATUS_CODES } from 'node:http';

const PLAIN = /^[\t\x20-\x7e]+$/;

/**
 * The words behind a status. Nobody needs them (RFC 9112 section 4), so those that could not be written again are replaced.
 *
 * @param said what the upstream wrote there
 */
export function reasonPhrase(status: number, said: string | undefined): string {
  return said !== undefined && PLAIN.test(said) ? said : (STATUS_CODES[status] ?? '');
}
