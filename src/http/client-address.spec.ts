import type { IncomingMessage } from 'node:http';
import { describe, expect, test } from '@jest/globals';
import { TrustedProxies } from './client-address.js';

function from(remoteAddress: string, headers: Record<string, string> = {}): IncomingMessage {
  return { socket: { remoteAddress }, headers } as unknown as IncomingMessage;
}

const ours = new TrustedProxies(['127.0.0.1', '10.0.0.0/8', '2001:db8::/32']);

describe('the client address', () => {
  test.each([
    ['203.0.113.9', undefined, '203.0.113.9'],
    ['203.0.113.9', '198.51.100.1', '203.0.113.9'],
    ['127.0.0.1', undefined, '127.0.0.1'],
    ['127.0.0.1', '198.51.100.1', '198.51.100.1'],
    ['::ffff:127.0.0.1', '198.51.100.1', '198.51.100.1'],
    ['10.1.2.3', '192.0.2.66, 198.51.100.1', '198.51.100.1'],
    ['10.1.2.3', '192.0.2.66, 198.51.100.1, 10.9.9.9', '198.51.100.1'],
    ['2001:db8::1', '2001:db9::7', '2001:db9::7'],
    ['127.0.0.1', '198.51.100.1, nonsense', '127.0.0.1'],
    ['127.0.0.1', 'nonsense, 10.0.0.5', '10.0.0.5'],
    ['127.0.0.1', '', '127.0.0.1'],
    ['127.0.0.1', '10.0.0.1, 10.0.0.2', '10.0.0.1'],
  ])('%s saying %j is %s', (peer, forwarded, address) => {
    const headers = forwarded === undefined ? {} : { 'x-forwarded-for': forwarded };
    expect(ours.clientAddress(from(peer, headers))).toBe(address);
  });

  test('with nobody trusted it is the peer, whatever is said', () => {
    const nobody = new TrustedProxies([]);
    expect(nobody.clientAddress(from('127.0.0.1', { 'x-forwarded-for': '192.0.2.1' }))).toBe('127.0.0.1');
    expect(nobody.saysHttps(from('127.0.0.1', { 'x-forwarded-proto': 'https' }))).toBe(false);
  });
});

describe('https is believed', () => {
  test.each([
    ['127.0.0.1', 'https', true],
    ['127.0.0.1', 'https, HTTPS', true],
    ['127.0.0.1', 'http, https', false],
    ['127.0.0.1', 'https, http', false],
    ['127.0.0.1', 'http', false],
    ['127.0.0.1', '', false],
    ['203.0.113.9', 'https', false],
  ])('of %s saying %j: %s', (peer, proto, believed) => {
    expect(ours.saysHttps(from(peer, { 'x-forwarded-proto': proto }))).toBe(believed);
  });
});
