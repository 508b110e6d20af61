/**
 * Which rule a request meets. The most specific one decides, whatever the order in the file: the host by name, then by the
 * longest `*.`, then every host; within it, segment by segment, the path by text, then one left open, then what is below.
 * A method that no rule of that path has is refused, so that no rule for one method leaves another to a weaker rule.
 * @module
 */
import { pathSegments } from './path.ts';
import type { Rule } from './rule.ts';

export interface Place {
  /** As received; may have a port, in any case. */
  readonly host?: string;
  /** As received: with the query, undecoded. */
  readonly path: string;
  readonly method: string;
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
  readonly children: Map<string, Node>;
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
  readonly #exact = new Map<string, Node>();
  /** By what follows the `*`. */
  readonly #below = new Map<string, Node>();
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
    const known = roots.get(key);
    if (known !== undefined) return known;
    const root = createNode();
    roots.set(key, root);
    return root;
  }

  /** Reads of a place no more than it has to. */
  find(place: Place): Found {
    const segments = pathSegments(place.path);
    if (segments === null) return ambiguous;
    const isByHost = this.#exact.size > 0 || this.#below.size > 0;
    const methods =
      (isByHost ? this.#descendByHost(hostName(place.host ?? ''), segments) : null) ??
      (this.#any === null ? null : descend(this.#any, segments, 0));
    if (methods === null) return foundNone;
    return methods.named.get(place.method) ?? methods.any ?? otherMethod(methods);
  }

  #descendByHost(name: string, segments: readonly string[]): Methods | null {
    const exact = this.#exact.get(name);
    let methods = exact === undefined ? null : descend(exact, segments, 0);
    for (let dot = name.indexOf('.'); methods === null && dot !== -1; dot = name.indexOf('.', dot + 1)) {
      const root = this.#below.get(name.slice(dot));
      if (root !== undefined) methods = descend(root, segments, 0);
    }
    return methods;
  }
}

/** Without port and without the dot of the root, in lower case. */
function hostName(host: string): string {
  return host.replace(/:\d*$/, '').replace(/\.$/, '').toLowerCase();
}

function createNode(): Node {
  return { children: new Map(), open: null, here: null, below: null };
}

function addTo(root: Node, pattern: string, rule: Rule, host: string): void {
  const segments = pattern === '/' ? [] : pattern.slice(1).split('/');
  const isBelow = segments.at(-1) === '**';
  if (isBelow) segments.pop();
  let node = root;
  for (const segment of segments) {
    const isOpen = openSegment.test(segment);
    if (!isOpen && !isText(segment)) throw new Error(`${pattern} of rule ${JSON.stringify(rule.name)} is no path`);
    if (isOpen) node.open ??= createNode();
    const next: Node = (isOpen ? node.open : node.children.get(segment)) ?? createNode();
    if (!isOpen) node.children.set(segment, next);
    node = next;
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

/** A segment as `pathSegments` has it. */
function isText(segment: string): boolean {
  const [read, ...others] = pathSegments(`/${encodeURIComponent(segment)}`) ?? [];
  return read === segment && others.length === 0 && !/[{}*]/.test(segment);
}

function otherMethod({ named }: Methods): Found {
  return { outcome: 'other-method', allowed: [...named.keys()] };
}

function descend(node: Node, segments: readonly string[], depth: number): Methods | null {
  const segment = segments[depth];
  if (segment === undefined) return node.here ?? node.below;
  const child = node.children.get(segment);
  return (
    (child === undefined ? null : descend(child, segments, depth + 1)) ??
    (node.open === null ? null : descend(node.open, segments, depth + 1)) ??
    node.below
  );
}
