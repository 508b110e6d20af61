import { ClaimExpressions, ClaimPaths, ProviderRules, providerRuleFields } from '@token-gateway/schemas';
import { type Static, Type } from 'typebox';
import { presetNames } from './provider-presets.ts';

const strict = { additionalProperties: false } as const;
const Name = Type.String({ minLength: 1, maxLength: 200 });
const Uri = Type.String({ minLength: 1, maxLength: 2000, pattern: '^https?://[^\\s#]+$' });
const Labels = Type.Array(Type.String({ minLength: 1, maxLength: 200, pattern: '^[\\x21-\\x7e]+$' }), {
  maxItems: 200,
  uniqueItems: true,
});
const Moment = Type.String({ format: 'date-time' });

export const IdParams = Type.Object({ id: Type.String({ pattern: '^\\w{1,100}$' }) }, strict);

/** Of calls that create something; other headers are none of the schema's business. */
export const Idempotency = Type.Object({
  'idempotency-key': Type.Optional(
    Type.String({
      pattern: '^[\\x21-\\x7e]{1,200}$',
      description:
        'A repetition of the request under the same key by the same caller, for 24 hours, creates nothing and gets the ' +
        'first answer again, but for a secret that was shown once; another request under the same key is a conflict.',
    }),
  ),
});

export const Page = Type.Object(
  {
    // A query is text: converted where it is used.
    limit: Type.Optional(Type.String({ pattern: '^(?:[1-9]\\d?|1\\d\\d|200)$', description: '1 to 200; default 50' })),
    cursor: Type.Optional(Type.String({ minLength: 1, maxLength: 200 })),
  },
  strict,
);

export const WaitQuery = Type.Object(
  {
    wait: Type.Optional(
      Type.Literal('effective', { description: 'Answer at effectiveBy, when no gateway acts otherwise any more.' }),
    ),
  },
  strict,
);

const Reason = Type.Object({ reason: Type.Optional(Type.String({ maxLength: 500 })) }, strict);

/** A body of its own is optional where it can only hold a reason. */
export const OptionalReason = Type.Union([Reason, Type.Null()]);

/** Answer of everything that ends or allows something: its place in the log, and when it is true everywhere. */
export const Effect = Type.Object(
  { seq: Type.Integer(), epoch: Type.Integer(), effectiveBy: Moment },
  { $id: 'Effect', ...strict },
);

const Quota = Type.Object(
  {
    requests: Type.Integer({ minimum: 1, maximum: 10_000_000, description: 'At once.' }),
    windowSeconds: Type.Integer({
      minimum: 1,
      maximum: 86_400,
      description: 'In which all of them come back, evenly.',
    }),
  },
  strict,
);
const quotaOrNull = (description: string) => Type.Union([Quota, Type.Null()], { description });

export const Policy = Type.Object(
  {
    tokenTtlSeconds: Type.Optional(Type.Integer({ minimum: 10, maximum: 3600 })),
    maxStalenessMs: Type.Optional(
      Type.Integer({ minimum: 0, maximum: 3_600_000, description: '0 = no cached decisions; else at least 100' }),
    ),
    apiKeysPerUserMax: Type.Optional(
      Type.Integer({ minimum: 0, maximum: 1_000_000, description: 'Keys of a user that are active at the same time.' }),
    ),
    tokenAttributes: Type.Optional(
      Type.Array(Type.String({ minLength: 1, maxLength: 100 }), {
        maxItems: 20,
        uniqueItems: true,
        description: 'Attributes of a user that stand in the internal token, in the claim attributes. Default: none.',
      }),
    ),
    keyQuota: Type.Optional(
      quotaOrNull('Requests of each API key without a quota of its own. Default: null, any number.'),
    ),
    userQuota: Type.Optional(
      quotaOrNull('Requests of each user, by all credentials together. Default: null, any number.'),
    ),
  },
  strict,
);
export type Policy = Static<typeof Policy>;

export const TenantCreate = Type.Object(
  {
    slug: Type.String({ pattern: '^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$' }),
    name: Name,
    policy: Type.Optional(Policy),
  },
  strict,
);
export const TenantPatch = Type.Object({ name: Type.Optional(Name), policy: Type.Optional(Policy) }, strict);
export const Tenant = Type.Object(
  {
    id: Type.String(),
    slug: Type.String(),
    name: Type.String(),
    status: Type.Enum(['active', 'suspended']),
    policy: Type.Object(
      {
        tokenTtlSeconds: Type.Integer(),
        maxStalenessMs: Type.Integer(),
        apiKeysPerUserMax: Type.Integer(),
        tokenAttributes: Type.Array(Type.String()),
        keyQuota: Type.Union([Quota, Type.Null()]),
        userQuota: Type.Union([Quota, Type.Null()]),
      },
      strict,
    ),
    createdAt: Moment,
  },
  { $id: 'Tenant', ...strict },
);

const asymmetric = ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA'] as const;
const providerFields = {
  audiences: Type.Array(Type.String({ minLength: 1, maxLength: 500 }), {
    minItems: 1,
    maxItems: 50,
    uniqueItems: true,
  }),
  algorithms: Type.Array(Type.Enum(asymmetric), { minItems: 1, uniqueItems: true }),
  provisioning: Type.Enum(['jit', 'linked']),
};
const orNull = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) =>
  Type.Optional(Type.Union([schema, Type.Null()]));
const rules = providerRuleFields;
export const ProviderCreate = Type.Object(
  {
    issuer: Uri,
    audiences: providerFields.audiences,
    preset: Type.Optional(
      Type.Enum(presetNames, { description: 'Fills what is not said: mapping, algorithms and rules of that product.' }),
    ),
    jwksUri: Type.Optional(Uri),
    algorithms: Type.Optional(providerFields.algorithms),
    claimMapping: Type.Optional(ClaimPaths),
    claimExpressions: Type.Optional(ClaimExpressions),
    provisioning: providerFields.provisioning,
    ...ProviderRules.properties,
  },
  strict,
);
export const ProviderPatch = Type.Object(
  {
    audiences: Type.Optional(providerFields.audiences),
    jwksUri: Type.Optional(Type.Union([Uri, Type.Null()])),
    algorithms: Type.Optional(providerFields.algorithms),
    claimMapping: Type.Optional(ClaimPaths),
    claimExpressions: Type.Optional(ClaimExpressions),
    provisioning: Type.Optional(providerFields.provisioning),
    tokenType: orNull(rules.tokenType),
    authorizedParties: orNull(rules.authorizedParties),
    logoutAudiences: orNull(rules.logoutAudiences),
    securityEvents: orNull(rules.securityEvents),
    introspection: orNull(rules.introspection),
    clockToleranceSeconds: orNull(rules.clockToleranceSeconds),
    audienceClaim: orNull(rules.audienceClaim),
    condition: orNull(rules.condition),
    entitlementMapping: orNull(rules.entitlementMapping),
    scopeAudiences: orNull(rules.scopeAudiences),
    linkBy: orNull(rules.linkBy),
  },
  { ...strict, description: 'A rule that is null is taken away.' },
);
export const Provider = Type.Object(
  {
    id: Type.String(),
    tenantId: Type.String(),
    issuer: Type.String(),
    audiences: Type.Array(Type.String()),
    jwksUri: Type.Union([Type.String(), Type.Null()]),
    algorithms: Type.Array(Type.String()),
    claimMapping: Type.Record(Type.String(), Type.String()),
    claimExpressions: Type.Optional(Type.Record(Type.String(), Type.String())),
    provisioning: providerFields.provisioning,
    ...ProviderRules.properties,
    status: Type.Enum(['active', 'disabled']),
    createdAt: Moment,
  },
  { $id: 'Provider', ...strict },
);

export const ExternalIdentity = Type.Object(
  { issuer: Uri, subject: Type.String({ minLength: 1, maxLength: 500 }) },
  { $id: 'ExternalIdentity', ...strict },
);
const Attributes = Type.Record(Type.String({ minLength: 1, maxLength: 100 }), Type.Unknown(), {
  maxProperties: 100,
  description: 'At most 4096 bytes as JSON. The policy of the tenant names those that stand in internal tokens.',
});
const userFields = {
  email: Type.String({ minLength: 3, maxLength: 320, pattern: '^[^\\s@]+@[^\\s@]+$' }),
  displayName: Name,
};
const UserKind = Type.Enum(['person', 'service'], {
  description: 'A service has API keys alone: no external identity, no e-mail address. It stays what it is.',
});
export const UserCreate = Type.Object(
  {
    kind: Type.Optional(UserKind),
    email: Type.Optional(userFields.email),
    displayName: Type.Optional(userFields.displayName),
    entitlements: Type.Optional(Labels),
    attributes: Type.Optional(Attributes),
    externalIdentities: Type.Optional(Type.Array(ExternalIdentity, { maxItems: 20 })),
  },
  strict,
);
export const UserPatch = Type.Object(
  {
    email: Type.Optional(Type.Union([userFields.email, Type.Null()])),
    displayName: Type.Optional(Type.Union([userFields.displayName, Type.Null()])),
    entitlements: Type.Optional(Labels),
    attributes: Type.Optional(Attributes),
  },
  strict,
);
export const User = Type.Object(
  {
    id: Type.String(),
    tenantId: Type.String(),
    kind: UserKind,
    email: Type.Union([Type.String(), Type.Null()]),
    displayName: Type.Union([Type.String(), Type.Null()]),
    entitlements: Type.Array(Type.String()),
    attributes: Type.Record(Type.String(), Type.Unknown()),
    externalIdentities: Type.Array(ExternalIdentity),
    status: Type.Enum(['active', 'disabled']),
    createdAt: Moment,
  },
  { $id: 'User', ...strict },
);

const Cidrs = Type.Array(Type.String({ minLength: 3, maxLength: 49 }), {
  minItems: 1,
  maxItems: 50,
  uniqueItems: true,
  description: 'Networks it may be used from, IPv4 or IPv6, such as 192.0.2.0/24: without bits beyond the prefix.',
});
const KeyQuota = quotaOrNull("Requests of the key, set by administrators alone; null: as the tenant's policy says.");
const newApiKeyFields = {
  name: Name,
  scopes: Type.Optional(Labels),
  audiences: Type.Optional(Labels),
  allowedCidrs: Type.Optional(Cidrs),
  quota: Type.Optional(KeyQuota),
  expiresAt: Type.Optional(Moment),
};
export const ApiKeyCreate = Type.Object(newApiKeyFields, strict);
export const ApiKeyPatch = Type.Object(
  {
    name: Type.Optional(Name),
    allowedCidrs: Type.Optional(Type.Union([Cidrs, Type.Null()])),
    quota: Type.Optional(KeyQuota),
    expiresAt: Type.Optional(Type.Union([Moment, Type.Null()])),
  },
  { ...strict, minProperties: 1 },
);
/** A SHA-256, as sha256sum prints it. */
const Sha256 = (description: string) => Type.String({ pattern: '^[0-9a-f]{64}$', description });
export const ApiKeysImport = Type.Object(
  {
    keys: Type.Array(
      Type.Object({ ...newApiKeyFields, sha256: Sha256('Of the whole key, as it is presented.') }, strict),
      {
        minItems: 1,
        maxItems: 100,
      },
    ),
  },
  strict,
);
export const LeakReport = Type.Union([
  Type.Object({ key: Type.String({ minLength: 1, maxLength: 1000, description: 'As it was found.' }) }, strict),
  Type.Object(
    {
      keyId: Type.String({ pattern: '^\\w{1,100}$', description: 'What stands between tgk_ and the next _.' }),
      sha256: Sha256('Of the secret, which is what stands before the last _.'),
    },
    strict,
  ),
  Type.Object({ sha256: Sha256('Of the whole of an imported key.') }, strict),
]);
export const Accepted = Type.Object(
  { status: Type.Literal('accepted', { description: 'Whether there was such a key is not told.' }) },
  { $id: 'Accepted', ...strict },
);
const CredentialReason = { reason: Type.Optional(Type.String({ maxLength: 500 })) };
export const CredentialRevoke = Type.Union([
  Type.Object(
    { token: Type.String({ minLength: 1, maxLength: 16_384, description: 'A JWT.' }), ...CredentialReason },
    strict,
  ),
  Type.Object(
    {
      issuer: Uri,
      signingInputSha256: Sha256('Of a JWT without its signature: header, dot, payload; of an opaque token all of it.'),
      ...CredentialReason,
    },
    strict,
  ),
]);
export const ApiKeyRotate = Type.Object({ overlapSeconds: Type.Integer({ minimum: 0, maximum: 2_592_000 }) }, strict);
const nullable = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) => Type.Union([schema, Type.Null()]);
const apiKeyFields = {
  id: Type.String(),
  tenantId: Type.String(),
  userId: Type.String(),
  name: Type.String(),
  scopes: nullable(Type.Array(Type.String())),
  audiences: nullable(Type.Array(Type.String())),
  allowedCidrs: nullable(Type.Array(Type.String())),
  quota: nullable(Quota),
  createdAt: Moment,
  expiresAt: nullable(Moment),
  lastUsedAt: nullable(Moment),
  status: Type.Enum(['active', 'expired', 'revoked']),
};
export const ApiKey = Type.Object(apiKeyFields, { $id: 'ApiKey', ...strict });
export const NewApiKey = Type.Object(
  {
    ...apiKeyFields,
    key: Type.Optional(
      Type.String({
        description: 'The only time it is shown. Absent when a call is repeated with its Idempotency-Key.',
      }),
    ),
  },
  { $id: 'NewApiKey', ...strict },
);

export const ImportedApiKeys = Type.Object(
  { items: Type.Array(ApiKey, { description: 'In the order of the request.' }) },
  strict,
);

export const SessionsRevoke = Type.Object(
  {
    issuer: Uri,
    subject: Type.Optional(Type.String({ minLength: 1, maxLength: 500 })),
    sid: Type.Optional(Type.String({ minLength: 1, maxLength: 500 })),
    reason: Type.Optional(Type.String({ maxLength: 500 })),
  },
  { ...strict, minProperties: 2, description: 'subject, sid or both' },
);

export const ChangesQuery = Type.Object(
  {
    after: Type.Optional(Type.String({ pattern: '^\\d{1,15}$' })),
    limit: Type.Optional(Type.String({ pattern: '^(?:[1-9]\\d{0,2}|1000)$', description: '1 to 1000; default 100' })),
  },
  strict,
);

export const SeqParams = Type.Object({ seq: Type.String({ pattern: '^[1-9]\\d{0,14}$' }) }, strict);
export const Receipt = Type.Object(
  {
    epoch: Type.Integer(),
    seq: Type.Integer(),
    at: Type.String({ format: 'date-time', description: 'When the change was made, right before its commit.' }),
    effectiveBy: Type.String({ format: 'date-time', description: 'When it is true everywhere, whoever has reported.' }),
    gateways: Type.Array(
      Type.Object(
        {
          id: Type.String(),
          effectiveAt: Type.String({
            format: 'date-time',
            description: 'In force there since then at the latest; of a gateway that started later, since its start.',
          }),
          lagMs: Type.Integer({ description: 'effectiveAt - at; the clocks of replicas may differ.' }),
        },
        strict,
      ),
    ),
    missing: Type.Array(Type.String(), {
      description: 'Gateways that asked for a watermark in the last minute and have not reported the change.',
    }),
  },
  { $id: 'Receipt', ...strict },
);

export const listOf = <T extends Parameters<typeof Type.Array>[0]>(item: T) =>
  Type.Object({ items: Type.Array(item), nextCursor: Type.Optional(Type.String()) }, strict);

/** RFC 9493 section 3.2: what names a user here. */
export const GlobalRevocation = Type.Object(
  {
    sub_id: Type.Union([
      Type.Object({ format: Type.Literal('iss_sub'), iss: Uri, sub: Type.String({ minLength: 1, maxLength: 500 }) }),
      Type.Object({
        format: Type.Literal('opaque'),
        id: Type.String({ minLength: 1, maxLength: 100, description: "The user's id here, as SCIM has it." }),
      }),
      Type.Object({ format: Type.Literal('email'), email: userFields.email }),
    ]),
  },
  { $id: 'GlobalRevocation', ...strict },
);
