/**
 * Networks in CIDR notation (RFC 4632, RFC 4291 section 2.3) and the addresses within them. What is not understood is within
 * no network.
 * @module
 */
import { isIPv4, isIPv6 } from 'node:net';

interface Address {
  readonly bits: 32 | 128;
  readonly value: bigint;
}

interface Network extends Address {
  readonly prefix: number;
}

const mappedPrefix = 0xffffn << 32n;

/** An IPv4-mapped IPv6 address (RFC 4291 section 2.5.5.2) is the IPv4 address: sockets show it either way. */
function parseAddress(text: string): Address | null {
  if (isIPv4(text)) return { bits: 32, value: numberOf(text.split('.'), 10, 8n) };
  // A zone (RFC 4007) is of one machine only.
  if (!isIPv6(text) || text.includes('%')) return null;
  // The URL parser writes every form alike: groups of hexadecimal digits, the longest run of zeros left out.
  const [head = '', tail] = new URL(`http://[${text}]`).hostname.slice(1, -1).split('::');
  const [left, right] = [groupsOf(head), groupsOf(tail ?? '')];
  const zeros = Array.from({ length: 8 - left.length - right.length }, () => '0');
  const value = numberOf([...left, ...zeros, ...right], 16, 16n);
  return value >> 32n === mappedPrefix >> 32n ? { bits: 32, value: value - mappedPrefix } : { bits: 128, value };
}

function groupsOf(text: string): string[] {
  return text === '' ? [] : text.split(':');
}

function numberOf(parts: readonly string[], radix: number, width: bigint): bigint {
  return parts.reduce((value, part) => (value << width) + BigInt(Number.parseInt(part, radix)), 0n);
}

function parseNetwork(text: string): Network | null {
  const [, address = '', digits = ''] = /^([^/]+)\/(0|[1-9]\d{0,2})$/.exec(text) ?? [];
  const parsed = parseAddress(address);
  const prefix = Number(digits);
  // One way to write a network: an IPv4 one is written as such.
  if (parsed === null || prefix > parsed.bits || (parsed.bits === 32 && address.includes(':'))) return null;
  const network = { ...parsed, prefix };
  return networkPart(network, prefix) << BigInt(parsed.bits - prefix) === parsed.value ? network : null;
}

function networkPart({ bits, value }: Address, prefix: number): bigint {
  return value >> BigInt(bits - prefix);
}

function holds(network: Network, address: Address): boolean {
  const { bits, prefix } = network;
  return bits === address.bits && networkPart(network, prefix) === networkPart(address, prefix);
}

/** Whether a text is a network: an address without bits beyond its prefix, and the prefix. */
export function isCidr(text: string): boolean {
  return parseNetwork(text) !== null;
}

/** A list is kept with a decision, and asked about on every use: it is read once. Null where one is no network. */
const networksOf = new WeakMap<readonly string[], readonly Network[] | null>();

function readNetworks(cidrs: readonly string[]): readonly Network[] | null {
  let networks = networksOf.get(cidrs);
  if (networks === undefined) {
    const parsed = cidrs.map(parseNetwork);
    networks = parsed.every((network) => network !== null) ? parsed : null;
    networksOf.set(cidrs, networks);
  }
  return networks;
}

/**
 * Whether an address is within one of the networks, a list that does not change. What is no address is not, and nothing is
 * where one is no network.
 */
export function isAddressWithin(address: string, cidrs: readonly string[]): boolean {
  const networks = readNetworks(cidrs);
  const parsed = networks === null ? null : parseAddress(address);
  return parsed !== null && networks?.some((network) => holds(network, parsed)) === true;
}

/** Whether each network is within one of `limits`. */
export function areCidrsWithin(cidrs: readonly string[], limits: readonly string[]): boolean {
  const outer = limits.map(parseNetwork);
  return cidrs.map(parseNetwork).every((inner) => {
    if (inner === null) return false;
    return outer.some((network) => network !== null && network.prefix <= inner.prefix && holds(network, inner));
  });
}
