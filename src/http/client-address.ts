import type { IncomingMessage } from 'node:http';
import { BlockList, isIP } from 'node:net';

/** Which peers may speak for a client, and what they say. */
export class TrustedProxies {
  readonly #trusted = new BlockList();
  readonly #any: boolean;

  /** @param networks addresses and CIDR blocks whose `X-Forwarded-*` lines are believed */
  constructor(networks: readonly string[]) {
    for (const network of networks) {
      const [address = '', bits] = network.split('/');
      const family = isIP(address) === 6 ? 'ipv6' : 'ipv4';
      this.#trusted.addSubnet(address, Number(bits ?? (family === 'ipv6' ? 128 : 32)), family);
    }
    this.#any = networks.length > 0;
  }

  trusts(address: string): boolean {
    if (!this.#any) return false;
    const plain = withoutMapping(address);
    return this.#trusted.check(plain, isIP(plain) === 6 ? 'ipv6' : 'ipv4');
  }

  /** The nearest address that is not one of our proxies: walked from the socket outwards, so nobody can put one in front. */
  clientAddress(request: IncomingMessage): string {
    let address = withoutMapping(request.socket.remoteAddress ?? '');
    if (!this.trusts(address)) return address;
    const forwarded = request.headers['x-forwarded-for'];
    const hops = (Array.isArray(forwarded) ? forwarded.join(',') : (forwarded ?? '')).split(',');
    while (hops.length > 0 && this.trusts(address)) {
      const hop = (hops.pop() ?? '').trim();
      if (isIP(hop) === 0) break;
      address = hop;
    }
    return address;
  }

  /** True when a peer we trust says that https was used all the way from the browser. */
  saysHttps(request: IncomingMessage): boolean {
    if (!this.trusts(request.socket.remoteAddress ?? '')) return false;
    const value = request.headers['x-forwarded-proto'];
    const hops = (Array.isArray(value) ? value.join(',') : (value ?? '')).split(',');
    return hops.every((hop) => hop.trim().toLowerCase() === 'https');
  }
}

/** `::ffff:192.0.2.1`, as a dual-stack socket names an IPv4 peer, is that IPv4 peer. */
function withoutMapping(address: string): string {
  return address.startsWith('::ffff:') && address.includes('.') ? address.slice(7) : address;
}
