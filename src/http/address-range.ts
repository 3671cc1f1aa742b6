import { BlockList, isIP } from 'node:net';
import { parseAddressRange, type AddressRange } from '../config/addresses.js';

/** How much of a client's address is kept. */
export type AddressDetail = 'off' | 'network' | 'full';

/** Bits that say which network an address belongs to, but not which machine. */
const NETWORK_BITS = { ipv4: 24, ipv6: 48 } as const;

/** An address as far as it is kept: `203.0.113.0/24`, `2001:db8:1::/48`. */
export function coarseAddress(address: string, detail: AddressDetail): string | undefined {
  if (detail === 'off' || isIP(address) === 0) return undefined;
  if (detail === 'full') return address;
  if (isIP(address) === 4) {
    return `${address.split('.').slice(0, 3).join('.')}.0/${String(NETWORK_BITS.ipv4)}`;
  }
  return `${ipv6Groups(address).slice(0, 3).join(':')}::/${String(NETWORK_BITS.ipv6)}`;
}

/**
 * Whom an address counts for: an IPv4 address for itself, an IPv6 one for its /64, in which every subscriber can choose among
 * more addresses than can be counted.
 */
export function addressGroup(address: string): string {
  if (isIP(address) !== 6) return address;
  const groups = ipv6Groups(address);
  // An IPv4 address in the notation of the other family (RFC 4291 section 2.5.5.2): as many of these share a /64 as there are.
  if (groups.slice(0, 6).join(':') === '0:0:0:0:0:ffff') {
    const [high, low] = groups.slice(6).map((group) => parseInt(group, 16));
    return [high, low].flatMap((part = 0) => [part >> 8, part & 0xff]).join('.');
  }
  return `${groups.slice(0, 4).join(':')}::/64`;
}

/** The eight groups of an IPv6 address, without leading zeros. */
function ipv6Groups(address: string): string[] {
  const canonical = new URL(`http://[${address.replace(/%.*$/, '')}]`).hostname.slice(1, -1);
  const [head = [], tail = []] = canonical
    .split('::')
    .map((part) => part.split(':').filter((group) => group !== ''));
  return [...head, ...Array<string>(8 - head.length - tail.length).fill('0'), ...tail];
}

/** Whether two addresses or CIDR ranges have anything in common. */
export function addressInRange(one: string, other: string): boolean {
  const [a, b] = [parseAddressRange(one), parseAddressRange(other)];
  if (a === undefined || b === undefined || a.family !== b.family) return false;
  return a.bits >= b.bits ? contains(b, a.address) : contains(a, b.address);
}

function contains({ address, bits, family }: AddressRange, candidate: string): boolean {
  const range = new BlockList();
  range.addSubnet(address, bits, family);
  return range.check(candidate, family);
}
