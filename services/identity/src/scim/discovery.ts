/** What the endpoints can do (RFC 7643 sections 5 to 7). */
import { enterpriseSchema, userSchema } from './user-resource.ts';

export const groupSchema = 'urn:ietf:params:scim:schemas:core:2.0:Group';

export const pageSizeMax = 200;

export const serviceProviderConfig = {
  schemas: ['urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig'],
  patch: { supported: true },
  bulk: { supported: false, maxOperations: 0, maxPayloadSize: 0 },
  filter: { supported: true, maxResults: pageSizeMax },
  changePassword: { supported: false },
  sort: { supported: false },
  etag: { supported: false },
  authenticationSchemes: [
    {
      type: 'oauthbearertoken',
      name: 'API key as a bearer token',
      description: 'An API key of the tenant with the scope identity:scim.',
      specUri: 'https://www.rfc-editor.org/info/rfc6750',
      primary: true,
    },
  ],
  meta: { resourceType: 'ServiceProviderConfig' },
};

function resourceType(name: 'User' | 'Group', schema: string, extensions: readonly string[]) {
  return {
    schemas: ['urn:ietf:params:scim:schemas:core:2.0:ResourceType'],
    id: name,
    name,
    endpoint: `/${name}s`,
    schema,
    schemaExtensions: extensions.map((extension) => ({ schema: extension, required: false })),
    meta: { resourceType: 'ResourceType' },
  };
}

export const resourceTypes = [
  resourceType('User', userSchema, [enterpriseSchema]),
  resourceType('Group', groupSchema, []),
];

interface Attribute {
  readonly name: string;
  readonly type: 'string' | 'boolean' | 'complex' | 'reference';
  readonly multiValued?: true;
  readonly required?: true;
  readonly caseExact?: true;
  readonly mutability?: 'readOnly';
  readonly uniqueness?: 'server';
  readonly referenceTypes?: readonly string[];
  readonly subAttributes?: readonly Attribute[];
}

type Described = Omit<Attribute, 'subAttributes'> & { readonly subAttributes?: readonly Described[] };

function described({ subAttributes, ...rest }: Attribute): Described {
  return {
    multiValued: false as never,
    required: false as never,
    caseExact: false as never,
    mutability: 'readWrite' as never,
    returned: 'default',
    uniqueness: 'none' as never,
    ...rest,
    ...(subAttributes && { subAttributes: subAttributes.map(described) }),
  } as Described;
}

const texts = (...names: string[]): Attribute[] => names.map((name) => ({ name, type: 'string' }));
const plural = (name: string): Attribute => ({
  name,
  type: 'complex',
  multiValued: true,
  subAttributes: [...texts('value', 'display', 'type'), { name: 'primary', type: 'boolean' }],
});
const references = (name: string, type: string, isReadOnly: boolean): Attribute => ({
  name,
  type: 'complex',
  multiValued: true,
  ...(isReadOnly && { mutability: 'readOnly' }),
  subAttributes: [...texts('value', 'display'), { name: '$ref', type: 'reference', referenceTypes: [type] }],
});

function schemaOf(id: string, name: string, attributes: readonly Attribute[]) {
  return {
    schemas: ['urn:ietf:params:scim:schemas:core:2.0:Schema'],
    id,
    name,
    description: name,
    attributes: attributes.map(described),
    meta: { resourceType: 'Schema' },
  };
}

export const schemas = [
  schemaOf(userSchema, 'User', [
    { name: 'userName', type: 'string', required: true, uniqueness: 'server' },
    { name: 'externalId', type: 'string', caseExact: true },
    { name: 'active', type: 'boolean' },
    {
      name: 'name',
      type: 'complex',
      subAttributes: texts('formatted', 'familyName', 'givenName', 'middleName', 'honorificPrefix', 'honorificSuffix'),
    },
    ...texts('displayName', 'nickName', 'profileUrl', 'title', 'userType', 'preferredLanguage', 'locale', 'timezone'),
    plural('emails'),
    plural('phoneNumbers'),
    plural('roles'),
    {
      name: 'addresses',
      type: 'complex',
      multiValued: true,
      subAttributes: texts('formatted', 'streetAddress', 'locality', 'region', 'postalCode', 'country', 'type'),
    },
    references('groups', 'Group', true),
  ]),
  schemaOf(enterpriseSchema, 'EnterpriseUser', [
    ...texts('employeeNumber', 'costCenter', 'organization', 'division', 'department'),
    { name: 'manager', type: 'complex', subAttributes: texts('value', 'displayName') },
  ]),
  schemaOf(groupSchema, 'Group', [
    { name: 'displayName', type: 'string', required: true, caseExact: true, uniqueness: 'server' },
    { name: 'externalId', type: 'string', caseExact: true },
    references('members', 'User', false),
  ]),
];
