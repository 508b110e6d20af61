/** A user as SCIM has it (RFC 7643 section 4.1), and what of it is the user's here. */
import { isObject } from '@token-gateway/platform';
import type { scimUsers } from '../store/schema.ts';
import { memberOf } from './filter.ts';
import type { Resource } from './patch.ts';
import { ScimError } from './scim-error.ts';

export const userSchema = 'urn:ietf:params:scim:schemas:core:2.0:User';
export const enterpriseSchema = 'urn:ietf:params:scim:schemas:extension:enterprise:2.0:User';

export interface ScimUser {
  readonly userName: string;
  readonly externalId: string | null;
  /** Null = the client says nothing of it. */
  readonly isActive: boolean | null;
  readonly attributes: Resource;
  readonly email: string | null;
  readonly displayName: string | null;
}

/** Attributes that are columns, or are the server's, or are never kept. */
const ownAttributes = new Set(['schemas', 'id', 'meta', 'groups', 'password', 'username', 'externalid', 'active']);
/** The other attributes of the core schema that have one value. */
const singleTexts = [
  'displayName',
  'nickName',
  'profileUrl',
  'title',
  'userType',
  'preferredLanguage',
  'locale',
  'timezone',
];
const nameLengthMax = 500;
const displayNameLengthMax = 200;
const email = /^[^\s@]{1,64}@[^\s@]{1,255}$/;

/** Reads what a client stores, or throws a ScimError. */
export function readUser(body: unknown): ScimUser {
  if (!isObject(body)) throw new ScimError('invalidSyntax', 'The body has to be an object.');
  const attributes: Resource = {};
  for (const [name, value] of Object.entries(body)) {
    if (!/^(?:[A-Za-z$][\w$-]*|urn:[\w.:-]+)$/i.test(name)) throw new ScimError('invalidSyntax', 'A name cannot be.');
    if (!ownAttributes.has(name.toLowerCase()) && value !== null) attributes[canonicalName(name)] = value;
  }
  for (const name of singleTexts) {
    if (name in attributes) attributes[name] = readText(attributes[name], name, nameLengthMax);
  }
  correctManager(attributes);
  const userName = readText(memberOf(body, 'userName'), 'userName', nameLengthMax);
  const externalId = memberOf(body, 'externalId');
  return {
    userName,
    externalId: isAbsent(externalId) ? null : readText(externalId, 'externalId', nameLengthMax),
    isActive: readActive(memberOf(body, 'active')),
    attributes,
    email: emailOf(attributes, userName),
    displayName: displayNameOf(attributes),
  };
}

/** The resource that a PATCH begins with: without `active`, so that it is seen whether the PATCH speaks of it. */
export function storedResource({ userName, externalId, attributes }: typeof scimUsers.$inferSelect): Resource {
  return { ...attributes, userName, ...(externalId !== null && { externalId }) };
}

function isAbsent(value: unknown): boolean {
  return value === undefined || value === null || value === '';
}

const canonicalNames = new Map(
  [
    ...singleTexts,
    'name',
    'emails',
    'phoneNumbers',
    'addresses',
    'roles',
    'entitlements',
    'x509Certificates',
    'ims',
    'photos',
    enterpriseSchema,
  ].map((name) => [name.toLowerCase(), name]),
);

function canonicalName(name: string): string {
  return canonicalNames.get(name.toLowerCase()) ?? name;
}

/** Entra ID wraps single values in an array, `[{"value": ...}]`, unless it is told to keep to the RFC. */
function unwrapped(value: unknown): unknown {
  if (!Array.isArray(value) || value.length !== 1) return value;
  const [item] = value as unknown[];
  return isObject(item) ? memberOf(item, 'value') : item;
}

function readText(given: unknown, name: string, lengthMax: number): string {
  const value = unwrapped(given);
  if (typeof value !== 'string' || value.length > lengthMax || (name === 'userName' && value.trim() === '')) {
    throw new ScimError('invalidValue', `${name} has to be text of at most ${lengthMax} characters.`);
  }
  return value;
}

/** A boolean, or the text Entra ID sends in its place. Whatever else is refused: a value not understood ends nobody's access, and leaves nobody's. */
function readActive(given: unknown): boolean | null {
  const value = unwrapped(given);
  if (value === undefined || value === null) return null;
  const text = wordOf(value);
  if (text === 'true' || text === 'false') return text === 'true';
  throw new ScimError('invalidValue', 'active has to be true or false.');
}

/** A truth value or a text in lower case; null for anything else, which may have a `toString` of its own. */
function wordOf(value: unknown): string | null {
  return typeof value === 'boolean' || typeof value === 'string' ? String(value).toLowerCase() : null;
}

/** Entra ID sends a manager as the id alone. */
function correctManager(attributes: Resource): void {
  const extension = attributes[enterpriseSchema];
  if (isObject(extension) && typeof extension['manager'] === 'string') {
    attributes[enterpriseSchema] = { ...extension, manager: { value: extension['manager'] } };
  }
}

function emailOf(attributes: Resource, userName: string): string | null {
  const emails = Array.isArray(attributes['emails']) ? attributes['emails'].filter(isObject) : [];
  const primary = emails.find((item) => wordOf(item['primary']) === 'true') ?? emails[0];
  const value = primary?.['value'] ?? userName;
  return typeof value === 'string' && email.test(value) ? value : null;
}

function displayNameOf(attributes: Resource): string | null {
  const name = attributes['name'];
  const parts = [memberOf(name, 'givenName'), memberOf(name, 'familyName')].filter((part) => typeof part === 'string');
  const candidates = [attributes['displayName'], memberOf(name, 'formatted'), parts.join(' ')];
  const found = candidates.find((text): text is string => typeof text === 'string' && text.trim() !== '');
  return found === undefined ? null : [...found].slice(0, displayNameLengthMax).join('');
}

export interface UserAnswerParts {
  readonly record: typeof scimUsers.$inferSelect;
  readonly user: { readonly id: string; readonly isDisabled: boolean; readonly createdAt: Date };
  readonly groups: readonly { readonly id: string; readonly displayName: string }[];
  /** Of the SCIM endpoints, as the client called them. */
  readonly baseUrl: string;
}

export function userAnswer({ record, user, groups, baseUrl }: UserAnswerParts): Resource {
  const { attributes, userName, externalId, modifiedAt } = record;
  const extensions = Object.keys(attributes).filter((name) => /^urn:/i.test(name));
  return {
    schemas: [userSchema, ...extensions],
    id: user.id,
    ...(externalId !== null && { externalId }),
    userName,
    ...attributes,
    active: !user.isDisabled,
    groups: groups.map(({ id, displayName }) => ({ value: id, display: displayName, $ref: `${baseUrl}/Groups/${id}` })),
    meta: {
      resourceType: 'User',
      created: user.createdAt.toISOString(),
      lastModified: modifiedAt.toISOString(),
      location: `${baseUrl}/Users/${user.id}`,
    },
  };
}
