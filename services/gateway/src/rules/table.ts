/**
 * Which rule a request meets. The most specific one decides, whatever the order in the file: the host by name, then by the
 * longest `*.`, then every host; within it, segment by segment, the path by text, then one left open, then what is below.
 * A method that no rule of that path has is refused, so that no rule for one method leaves another to a weaker rule.
 * @module
 */
import { OctetMap, type Octets, octetsOf } from '../octets.ts';
import { PathSegments, pathSegments } from './path.ts';
import type { Rule } from './rule.ts';

export interface Place {
  /** As received; may have a port, in any case. */
  readonly host?: string;
  /** As received: with the query, undecoded. */
  readonly path: string;
  readonly method: string;
  /** Host and path once more, where they lie, of who has them so; no text need be made of them then. */
  readonly hostOctets?: Octets;
  readonly pathOctets?: Octets;
}

interface FoundRule {
  readonly outcome: 'rule';
  readonly rule: Rule;
  readonly pattern: string;
}

export type Found =
  | FoundRule
  | { readonly outcome: 'none' }
  | { readonly outcome: 'other-method'; readonly allowed: readonly string[] }
  /** Servers could read the path differently. */
  | { readonly outcome: 'ambiguous' };

/** The rules of one pattern, by method. */
interface Methods {
  readonly pattern: string;
  any: FoundRule | null;
  readonly named: Map<string, FoundRule>;
}

interface Node {
  readonly children: OctetMap<Node>;
  /** `{name}` */
  open: Node | null;
  here: Methods | null;
  /** `**` */
  below: Methods | null;
}

export const foundNone: Found = { outcome: 'none' };
const ambiguous: Found = { outcome: 'ambiguous' };
const openSegment = /^\{[A-Za-z0-9_]+\}$/;

export class RuleTable {
  readonly #exact = new OctetMap<Node>();
  /** By what follows the `*`. */
  readonly #below = new OctetMap<Node>();
  #belowOctetsMax = 0;
  #any: Node | null = null;

  /** Throws when a pattern is none, or when two rules are for the same requests. */
  constructor(rules: readonly Rule[]) {
    const names = new Set<string>();
    for (const rule of rules) {
      if (names.has(rule.name)) throw new Error(`two rules are named ${JSON.stringify(rule.name)}`);
      names.add(rule.name);
      for (const host of rule.hosts ?? ['*']) {
        for (const pattern of rule.paths) addTo(this.#rootOf(host), pattern, rule, host);
      }
    }
  }

  #rootOf(host: string): Node {
    if (host === '*') {
      this.#any ??= createNode();
      return this.#any;
    }
    const [roots, key] = host.startsWith('*') ? [this.#below, host.slice(1)] : [this.#exact, host];
    const known = roots.getText(key);
    if (known !== undefined) return known;
    const root = createNode();
    roots.add(key, root);
    if (roots === this.#below) this.#belowOctetsMax = Math.max(this.#belowOctetsMax, key.length);
    return root;
  }

  /** Reads of a place no more than it has to. */
  find(place: Place): Found {
    if (!segments.read(place.pathOctets ?? octetsOf(place.path))) return ambiguous;
    const isByHost = this.#exact.size > 0 || this.#below.size > 0;
    const methods =
      (isByHost ? this.#descendByHost(place.hostOctets ?? octetsOf(place.host ?? '')) : null) ??
      (this.#any === null ? null : descend(this.#any, 0));
    if (methods === null) return foundNone;
    return methods.named.get(place.method) ?? methods.any ?? otherMethod(methods);
  }

  #descendByHost(host: Octets): Methods | null {
    const end = readHostName(host);
    const exact = this.#exact.get(hostName, 0, end);
    let methods = exact === undefined ? null : descend(exact, 0);
    if (this.#below.size === 0) return methods;
    // However long a host is, no more of it is looked at than could be the name of a rule.
    let dot = nextDot(Math.max(0, end - this.#belowOctetsMax), end);
    for (; methods === null && dot < end; dot = nextDot(dot + 1, end)) {
      const root = this.#below.get(hostName, dot, end);
      if (root !== undefined) methods = descend(root, 0);
    }
    return methods;
  }
}

/** Of the place that is looked for: one at a time. */
const segments = new PathSegments();
/** No name is longer (RFC 1035 section 2.3.4); what is none still ends in one that a rule may be for. */
let hostName = new Uint8Array(255);

/** Of a host without port and without the dot of the root, in lower case; returns where it ends. */
function readHostName({ bytes, start, end }: Octets): number {
  let digits = end;
  while (digits > start && isDigit(bytes[digits - 1] as number)) digits -= 1;
  let last = digits > start && bytes[digits - 1] === 0x3a ? digits - 1 : end;
  if (last > start && bytes[last - 1] === 0x2e) last -= 1;
  const length = last - start;
  if (length > hostName.length) hostName = new Uint8Array(length);
  for (let at = 0; at < length; at += 1) {
    const octet = bytes[start + at] as number;
    hostName[at] = octet >= 0x41 && octet <= 0x5a ? octet + 0x20 : octet;
  }
  return length;
}

function isDigit(octet: number): boolean {
  return octet >= 0x30 && octet <= 0x39;
}

function nextDot(from: number, end: number): number {
  let at = from;
  while (at < end && hostName[at] !== 0x2e) at += 1;
  return at;
}

function createNode(): Node {
  return { children: new OctetMap(), open: null, here: null, below: null };
}

function addTo(root: Node, pattern: string, rule: Rule, host: string): void {
  const parts = pattern === '/' ? [] : pattern.slice(1).split('/');
  const isBelow = parts.at(-1) === '**';
  if (isBelow) parts.pop();
  let node = root;
  for (const part of parts) {
    const isOpen = openSegment.test(part);
    if (!isOpen && !isText(part)) throw new Error(`${pattern} of rule ${JSON.stringify(rule.name)} is no path`);
    if (isOpen) node.open ??= createNode();
    node = (isOpen ? node.open : null) ?? childOf(node, part);
  }
  const slot = isBelow ? 'below' : 'here';
  const methods = node[slot] ?? { pattern, any: null, named: new Map<string, FoundRule>() };
  node[slot] = methods;
  const same =
    rule.methods === undefined ? methods.any : rule.methods.map((name) => methods.named.get(name)).find(Boolean);
  if (same) {
    throw new Error(
      `rules ${JSON.stringify(same.rule.name)} and ${JSON.stringify(rule.name)} are for the same requests: ${host} ${pattern}`,
    );
  }
  const found: FoundRule = { outcome: 'rule', rule, pattern };
  if (rule.methods === undefined) methods.any = found;
  for (const method of rule.methods ?? []) methods.named.set(method, found);
}

function childOf({ children }: Node, segment: string): Node {
  const known = children.getText(segment);
  if (known !== undefined) return known;
  const child = createNode();
  children.add(segment, child);
  return child;
}

/** A segment as `pathSegments` has it. */
function isText(segment: string): boolean {
  const [read, ...others] = pathSegments(`/${encodeURIComponent(segment)}`) ?? [];
  return read === segment && others.length === 0 && !/[{}*]/.test(segment);
}

function otherMethod({ named }: Methods): Found {
  return { outcome: 'other-method', allowed: [...named.keys()] };
}

function descend(node: Node, depth: number): Methods | null {
  if (depth === segments.count) return node.here ?? node.below;
  const { bytes, starts, ends, hashes } = segments;
  const child = node.children.get(bytes, starts[depth] as number, ends[depth] as number, hashes[depth] as number);
  return (
    (child === undefined ? null : descend(child, depth + 1)) ??
    (node.open === null ? null : descend(node.open, depth + 1)) ??
    node.below
  );
}
