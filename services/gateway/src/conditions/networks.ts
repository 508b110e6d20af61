import { BlockList, isIP } from 'node:net';

const cidrSyntax = /^([0-9a-f.:]+)\/(0|[1-9]\d{0,2})$/i;

/** Null when any of the texts is no network in CIDR notation (RFC 4632, RFC 4291 section 2.3). */
function parseNetworks(cidrs: readonly string[]): BlockList | null {
  const networks = new BlockList();
  try {
    for (const cidr of cidrs) {
      const [, address = '', prefix = ''] = cidrSyntax.exec(cidr) ?? [];
      networks.addSubnet(address, Number(prefix), familyOf(address));
    }
    return networks;
  } catch {
    return null;
  }
}

/**
 * Whether an address is within one of the networks. An IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2), as sockets for
 * both families show it, is the IPv4 address. What is not understood is within nothing.
 */
export function isWithin(address: string, cidrs: readonly string[]): boolean {
  const networks = parseNetworks(cidrs);
  return networks?.check(address, familyOf(address)) ?? false;
}

function familyOf(address: string): 'ipv4' | 'ipv6' {
  return isIP(address) === 6 ? 'ipv6' : 'ipv4';
}
