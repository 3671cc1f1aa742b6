import { validateHeaderValue, type ServerResponse } from 'node:http';
import { text } from './headers.js';

/** More interim answers than these before the answer itself are no help to anybody. */
export const MOST_INTERIM_ANSWERS = 10;

/**
 * Passes a 103 on, with its links and nothing else: they are all that a browser reads of it.
 *
 * @param rawHeaders name and value in turns
 * @throws where a value could not stand in a header
 * @see RFC 8297 section 2
 */
export function passEarlyHints(response: ServerResponse, rawHeaders: readonly (string | Buffer)[]): void {
  const { socket, req } = response;
  // Behind an answer that is not out yet there is no socket to write to; HTTP/1.0 knows no interim answers.
  if (socket === null || req.httpVersion === '1.0') return;
  let lines = '';
  for (let i = 0; i < rawHeaders.length; i += 2) {
    if (text(rawHeaders[i]).toLowerCase() !== 'link') continue;
    const value = text(rawHeaders[i + 1]);
    validateHeaderValue('link', value);
    lines += `link: ${value}\r\n`;
  }
  if (lines !== '') socket.write(`HTTP/1.1 103 Early Hints\r\n${lines}\r\n`, 'latin1');
}
