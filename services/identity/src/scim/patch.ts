/**
 * PATCH of a resource (RFC 7644 section 3.5.2), also as Okta and Entra ID send it: `op` in any case, several attributes in
 * one value without a path, names with dots in such a value, extensions named by their URN with a colon, a filter that
 * matches nothing yet, members to remove in the value.
 * @module
 */
import { isObject } from '@token-gateway/platform';
import { type Comparison, isMatch, nameIn, parseFilter } from './filter.ts';
import { ScimError } from './scim-error.ts';

export type Resource = Record<string, unknown>;

interface Path {
  /** The URN of an extension; absent for the core schema. */
  readonly extension?: string;
  /** Absent for the extension as a whole. */
  readonly attribute?: string;
  readonly filter?: readonly Comparison[];
  readonly sub?: string;
}

type Operation = 'add' | 'remove' | 'replace';

const patchSchema = 'urn:ietf:params:scim:api:messages:2.0:PatchOp';
const operationsMax = 1000;
const coreSchema = /^urn:ietf:params:scim:schemas:core:2\.0:(?:User|Group)(?:[:.]|$)/i;
const extensionPath = /^(urn:[\w.:-]+:\d+\.\d+:[A-Za-z]\w*|urn:[\w.:-]+(?=:))(?:[:.]([A-Za-z].*))?$/i;
const attributePath = /^([A-Za-z$][\w$-]*)(?:\[(.+)\])?(?:\.([A-Za-z$][\w$-]*))?$/s;

/** The resource after all operations of a request, or a ScimError; the one given is not changed. */
export function applyPatch(resource: Resource, body: unknown): Resource {
  const operations = isObject(body) ? body[nameIn(body, 'Operations')] : undefined;
  const schemas = (isObject(body) ? body['schemas'] : undefined) ?? [patchSchema];
  if (!Array.isArray(operations) || !Array.isArray(schemas) || !schemas.includes(patchSchema)) {
    throw new ScimError('invalidSyntax', 'The body has to be a PatchOp with Operations.');
  }
  if (operations.length > operationsMax) throw new ScimError('invalidSyntax', 'Too many operations.');
  const patched = structuredClone(resource);
  for (const operation of operations) applyOperation(patched, operation);
  return patched;
}

function applyOperation(resource: Resource, given: unknown): void {
  if (!isObject(given)) throw new ScimError('invalidSyntax', 'An operation has to be an object.');
  const op = operationOf(given['op']);
  const { path, value } = given;
  if (path !== undefined && path !== null && path !== '') {
    if (typeof path !== 'string') throw new ScimError('invalidPath', 'A path has to be text.');
    apply(resource, op, parsePath(path), value);
    return;
  }
  if (op === 'remove') throw new ScimError('noTarget', 'To remove needs a path.');
  if (!isObject(value)) throw new ScimError('invalidValue', 'A value without a path has to be an object.');
  for (const [name, member] of Object.entries(value)) {
    if (!/^schemas$/i.test(name)) apply(resource, op, parsePath(name), member);
  }
}

function operationOf(op: unknown): Operation {
  const name = typeof op === 'string' ? op.toLowerCase() : '';
  if (name === 'add' || name === 'remove' || name === 'replace') return name;
  throw new ScimError('invalidSyntax', 'An op has to be add, remove or replace.');
}

export function parsePath(text: string): Path {
  if (!/^urn:/i.test(text)) return parseAttributePath(text);
  if (coreSchema.test(text)) return parseAttributePath(text.replace(coreSchema, ''));
  const [, extension = '', rest] = extensionPath.exec(text) ?? [];
  if (extension === '') throw new ScimError('invalidPath', 'The path cannot be read.');
  return rest === undefined ? { extension } : { extension, ...parseAttributePath(rest) };
}

function parseAttributePath(text: string): Path {
  const [, attribute, filter, sub] = attributePath.exec(text) ?? [];
  if (attribute === undefined) throw new ScimError('invalidPath', 'The path cannot be read.');
  return {
    attribute,
    ...(filter !== undefined && { filter: parseFilter(filter) }),
    ...(sub !== undefined && { sub }),
  };
}

function apply(resource: Resource, op: Operation, path: Path, value: unknown): void {
  const { extension, attribute, filter, sub } = path;
  if (extension !== undefined) {
    const name = nameIn(resource, extension);
    if (attribute === undefined) {
      setMember(resource, op, name, value);
      return;
    }
    const container = isObject(resource[name]) ? resource[name] : {};
    const { extension: _named, ...rest } = path;
    apply(container, op, rest, value);
    resource[name] = container;
    return;
  }
  const name = nameIn(resource, attribute ?? '');
  if (filter !== undefined) applyFiltered(resource, op, { name, filter, sub }, value);
  else if (sub === undefined) setMember(resource, op, name, value);
  else applyToSub(resource, op, { name, sub }, value);
}

function applyToSub(resource: Resource, op: Operation, { name, sub }: { name: string; sub: string }, value: unknown) {
  const held = resource[name];
  if (Array.isArray(held)) {
    for (const item of held) if (isObject(item)) setMember(item, op, nameIn(item, sub), value);
    return;
  }
  if (!isObject(held)) {
    if (op !== 'remove') resource[name] = { [sub]: value };
    return;
  }
  setMember(held, op, nameIn(held, sub), value);
}

function applyFiltered(
  resource: Resource,
  op: Operation,
  { name, filter, sub }: { name: string; filter: readonly Comparison[]; sub: string | undefined },
  value: unknown,
): void {
  const held = resource[name];
  const items: unknown[] = Array.isArray(held) ? held : held === undefined ? [] : [held];
  const matches = items.filter((item) => isMatch(item, filter));
  if (op === 'remove' && sub === undefined) {
    resource[name] = items.filter((item) => !matches.includes(item));
    return;
  }
  if (matches.length === 0 && op !== 'remove') {
    const made: Resource = Object.fromEntries(filter.map((wanted) => [plainName(wanted.attribute), wanted.value]));
    items.push(made);
    matches.push(made);
  }
  for (const item of matches) {
    if (!isObject(item)) continue;
    if (sub !== undefined) setMember(item, op, nameIn(item, sub), value);
    else if (isObject(value))
      for (const [key, member] of Object.entries(value))
        setMember(item, 'replace', nameIn(item, plainName(key)), member);
    else throw new ScimError('invalidValue', 'The value has to be an object.');
  }
  resource[name] = items;
}

/** Names are written into objects: none may be one that every object has. */
function plainName(name: string): string {
  if (!/^[A-Za-z$][\w$-]*$/.test(name)) throw new ScimError('invalidPath', 'An attribute has a name that cannot be.');
  return name;
}

function setMember(object: Resource, op: Operation, name: string, value: unknown): void {
  const held = object[name];
  if (op === 'remove') {
    if (Array.isArray(held) && value !== undefined && value !== null) object[name] = without(held, value);
    else delete object[name];
  } else if (value === undefined) {
    throw new ScimError('invalidValue', 'An operation has no value.');
  } else if (isObject(held) && isObject(value)) {
    for (const [key, member] of Object.entries(value)) held[nameIn(held, plainName(key))] = member;
  } else if (op === 'add' && Array.isArray(held)) {
    object[name] = union(held, Array.isArray(value) ? value : [value]);
  } else {
    object[name] = value;
  }
}

function keyOf(item: unknown): string {
  const value = isObject(item) ? (item[nameIn(item, 'value')] ?? item) : item;
  return JSON.stringify(value);
}

function union(held: readonly unknown[], added: readonly unknown[]): unknown[] {
  return [...new Map([...held, ...added].map((item) => [keyOf(item), item])).values()];
}

function without(held: readonly unknown[], removed: unknown): unknown[] {
  const keys = new Set([removed].flat().map(keyOf));
  return held.filter((item) => !keys.has(keyOf(item)));
}
