import { isIP } from 'node:net';

/** Whether this URL host name can only ever mean the machine itself (RFC 6761 section 6.3 for `localhost`). */
export function isLoopbackHost(hostname: string): boolean {
  const host = hostname.toLowerCase();
  return host === 'localhost' || host.endsWith('.localhost') || host === '127.0.0.1' || host === '[::1]';
}

export function parseUrl(text: string): URL | undefined {
  // The URL parser drops tabs, line breaks and outer blanks: what is written must be what is used.
  if (/[\s\\]/.test(text) || !URL.canParse(text)) return undefined;
  return new URL(text);
}

export interface AddressRange {
  readonly address: string;
  readonly family: 'ipv4' | 'ipv6';
  readonly bits: number;
}

/** An IP address or a CIDR range; a lone address is a range of one. */
export function parseAddressRange(text: string): AddressRange | undefined {
  const [address = '', bitsText, ...rest] = text.split('/');
  const version = isIP(address);
  if (version === 0 || rest.length > 0 || address.includes('%')) return undefined;
  const widest = version === 4 ? 32 : 128;
  if (bitsText !== undefined && !/^(0|[1-9][0-9]{0,2})$/.test(bitsText)) return undefined;
  const bits = bitsText === undefined ? widest : Number(bitsText);
  if (bits > widest) return undefined;
  return { address, family: version === 4 ? 'ipv4' : 'ipv6', bits };
}

const HOST_NAME = /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/i;

/** A host name or IP address to listen on, without port or brackets. */
export function isListenHost(text: string): boolean {
  return isIP(text) !== 0 || HOST_NAME.test(text);
}

/** `name`, `name:port`, `10.1.2.3:port` or `[::1]:port`. */
export function isHostAndPort(text: string): boolean {
  const url = parseUrl(`https://${text}`);
  return (
    url !== undefined && (url.host === text.toLowerCase() || `${url.hostname}:443` === text.toLowerCase())
  );
}
