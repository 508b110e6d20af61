/** A group as SCIM has it (RFC 7643 section 4.2), and the entitlement it gives. */
import { isObject } from '@token-gateway/platform';
import { groupSchema } from './discovery.ts';
import { memberOf } from './filter.ts';
import type { Resource } from './patch.ts';
import { ScimError } from './scim-error.ts';

export interface ScimGroup {
  readonly displayName: string;
  readonly externalId: string | null;
  /** Ids of users. */
  readonly members: ReadonlySet<string>;
}

const textLengthMax = 500;
const entitlementLengthMax = 200;

export function readGroup(body: unknown): ScimGroup {
  if (!isObject(body)) throw new ScimError('invalidSyntax', 'The body has to be an object.');
  const displayName = memberOf(body, 'displayName');
  const externalId = memberOf(body, 'externalId') ?? null;
  const members = memberOf(body, 'members') ?? [];
  if (typeof displayName !== 'string' || displayName.trim() === '' || displayName.length > textLengthMax) {
    throw new ScimError('invalidValue', 'displayName has to be text.');
  }
  if (externalId !== null && (typeof externalId !== 'string' || externalId.length > textLengthMax)) {
    throw new ScimError('invalidValue', 'externalId has to be text.');
  }
  if (!Array.isArray(members)) throw new ScimError('invalidValue', 'members has to be an array.');
  return { displayName, externalId: externalId === '' ? null : externalId, members: new Set(members.map(memberId)) };
}

function memberId(member: unknown): string {
  const value = isObject(member) ? memberOf(member, 'value') : member;
  const type = isObject(member) ? memberOf(member, 'type') : undefined;
  if (typeof value !== 'string' || !/^\w{1,100}$/.test(value) || (typeof type === 'string' && !/^user$/i.test(type))) {
    throw new ScimError('invalidValue', 'A member has to be a user, by its id.');
  }
  return value;
}

/** The name itself, and what an entitlement cannot hold as a percent sign and hexadecimal digits: no two names give one. */
export function entitlementOf(displayName: string): string {
  const name = displayName.isWellFormed()
    ? displayName.replace(/[^\x21-\x24\x26-\x7e]/gu, (character) =>
        [...Buffer.from(character)].map((byte) => `%${byte.toString(16).toUpperCase().padStart(2, '0')}`).join(''),
      )
    : '';
  if (name === '' || name.length > entitlementLengthMax) {
    throw new ScimError('invalidValue', 'displayName is too long for an entitlement.');
  }
  return name;
}

export interface GroupAnswerParts {
  readonly group: {
    readonly id: string;
    readonly displayName: string;
    readonly externalId: string | null;
    readonly createdAt: Date;
    readonly modifiedAt: Date;
  };
  /** Null = not asked for. */
  readonly members: readonly { readonly id: string; readonly userName: string }[] | null;
  readonly baseUrl: string;
}

export function groupAnswer({ group, members, baseUrl }: GroupAnswerParts): Resource {
  return {
    schemas: [groupSchema],
    id: group.id,
    ...(group.externalId !== null && { externalId: group.externalId }),
    displayName: group.displayName,
    ...(members !== null && {
      members: members.map(({ id, userName }) => ({
        value: id,
        display: userName,
        type: 'User',
        $ref: `${baseUrl}/Users/${id}`,
      })),
    }),
    meta: {
      resourceType: 'Group',
      created: group.createdAt.toISOString(),
      lastModified: group.modifiedAt.toISOString(),
      location: `${baseUrl}/Groups/${group.id}`,
    },
  };
}
