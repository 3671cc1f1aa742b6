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
  const groups = new URL(`http://[${address.replace(/%.*$/, '')}]`).hostname.slice(1, -1).split('::');
  const head = (groups[0] ?? '').split(':').filter((group) => group !== '');
  // Groups that "::" stands for are zero; only the first three are kept.
  const kept = [...head, '0', '0', '0'].slice(0, 3);
  return `${kept.join(':')}::/${String(NETWORK_BITS.ipv6)}`;
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
