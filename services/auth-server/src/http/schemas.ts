/** What the endpoints take and answer, for the OpenAPI document and for the types. */
import { ClaimExpressions, ClaimPaths, providerRuleFields } from '@token-gateway/schemas';
import { type Static, type TSchema, Type } from 'typebox';

const PositionSchema = Type.Object(
  { epoch: Type.Integer({ minimum: 1 }), seq: Type.Integer({ minimum: 0 }) },
  { additionalProperties: false, description: 'The place in the change log the answer was decided at.' },
);

const SubjectsSchema = Type.Array(Type.String(), {
  description: 'A change of any of these can make the answer untrue.',
});

/** How a client says who it is, of every endpoint that asks. */
const clientParameters = {
  client_assertion_type: Type.Optional(Type.Literal('urn:ietf:params:oauth:client-assertion-type:jwt-bearer')),
  client_assertion: Type.Optional(
    Type.String({ description: 'private_key_jwt (RFC 7523 section 2.2), good for one request.' }),
  ),
  client_id: Type.Optional(Type.String({ description: 'Required with a client certificate (RFC 8705 section 2).' })),
};

const accessTokenType = 'urn:ietf:params:oauth:token-type:access_token';
const jwtType = 'urn:ietf:params:oauth:token-type:jwt';
const idTokenType = 'urn:ietf:params:oauth:token-type:id_token';

export const TokenRequestSchema = Type.Object(
  {
    grant_type: Type.Enum([
      'urn:ietf:params:oauth:grant-type:token-exchange',
      'urn:token-gateway:params:oauth:grant-type:api-key',
      'client_credentials',
    ]),
    ...clientParameters,
    audience: Type.Optional(Type.String({ description: 'The one audience of the internal token.' })),
    resource: Type.Optional(
      Type.String({ description: 'The same as an absolute URI without a fragment (RFC 8707 section 2).' }),
    ),
    scope: Type.Optional(Type.String({ description: 'Narrows the scope; absent = all the credential has.' })),
    conditions: Type.Optional(
      Type.String({
        description:
          'Names of the `conditions` that the client holds against every use of the answer, with spaces between: ' +
          '`jkt x5t_s256 cidrs quotas`. A credential with another condition is refused.',
      }),
    ),
    subject_token: Type.Optional(
      Type.String({ description: 'Token exchange: a JWT of a provider, or an internal token.' }),
    ),
    subject_token_type: Type.Optional(Type.Enum([jwtType, accessTokenType, idTokenType])),
    actor_token: Type.Optional(Type.String({ description: "The client's own token, where it acts for the user." })),
    actor_token_type: Type.Optional(Type.Enum([accessTokenType, jwtType])),
    requested_token_type: Type.Optional(Type.Enum([accessTokenType, jwtType])),
    api_key: Type.Optional(Type.String({ description: 'API-key grant: the key.' })),
  },
  { $id: 'TokenRequest' },
);

/** RFC 7662 section 2.1, RFC 7009 section 2.1. */
export const TokenQuestionSchema = Type.Object(
  {
    token: Type.String({ description: 'An internal token, a JWT of a provider, or an API key.' }),
    token_type_hint: Type.Optional(Type.String({ description: 'Not needed.' })),
    conditions: Type.Optional(
      Type.String({
        description: 'Introspection: with `cidrs`, keys that are good from some networks alone are told with them.',
      }),
    ),
    ...clientParameters,
  },
  { $id: 'TokenQuestion' },
);

const ActorSchema = Type.Object({ sub: Type.String() }, { additionalProperties: true });

/** RFC 7662 section 2.2. */
export const IntrospectionSchema = Type.Object(
  {
    active: Type.Boolean(),
    iss: Type.Optional(Type.String()),
    sub: Type.Optional(Type.String()),
    aud: Type.Optional(Type.Union([Type.String(), Type.Array(Type.String())])),
    exp: Type.Optional(Type.Integer()),
    iat: Type.Optional(Type.Integer()),
    jti: Type.Optional(Type.String()),
    client_id: Type.Optional(Type.String()),
    scope: Type.Optional(Type.String({ description: 'What the credential gives now.' })),
    token_type: Type.Optional(Type.Literal('Bearer')),
    tenant: Type.Optional(Type.String()),
    auth_source: Type.Optional(Type.Enum(['oidc', 'api_key', 'client'])),
    key_id: Type.Optional(Type.String()),
    provider_id: Type.Optional(Type.String()),
    act: Type.Optional(ActorSchema),
    cidrs: Type.Optional(Type.Array(Type.String(), { description: 'Networks that a use has to come from.' })),
    cnf: Type.Optional(
      Type.Object(
        { jkt: Type.Optional(Type.String()), 'x5t#S256': Type.Optional(Type.String()) },
        { additionalProperties: false, description: 'What the holder of a bound token has to prove (RFC 7800).' },
      ),
    ),
  },
  { $id: 'Introspection', additionalProperties: false },
);
export type Introspection = Static<typeof IntrospectionSchema>;

export const RevocationSchema = Type.Object({}, { $id: 'Revocation', additionalProperties: false });

/** OpenID Connect Back-Channel Logout 1.0 section 2.5. */
export const LogoutRequestSchema = Type.Object(
  { logout_token: Type.String({ description: 'Signed by a provider.' }) },
  { $id: 'LogoutRequest' },
);

export const LogoutResponseSchema = Type.Object({}, { $id: 'LogoutResponse', additionalProperties: false });

/** RFC 8935 section 2.3. */
export const SecurityEventErrorSchema = Type.Object(
  {
    err: Type.Enum([
      'invalid_request',
      'invalid_key',
      'invalid_issuer',
      'invalid_audience',
      'authentication_failed',
      'temporarily_unavailable',
    ]),
    description: Type.String(),
  },
  { $id: 'SecurityEventError', additionalProperties: false },
);

const ConditionsSchema = Type.Object(
  {
    jkt: Type.Optional(Type.String({ description: 'Thumbprint of the key that a DPoP proof has to be made with.' })),
    x5t_s256: Type.Optional(Type.String({ description: 'SHA-256 of the TLS client certificate.' })),
    cidrs: Type.Optional(Type.Array(Type.String(), { description: 'Networks that a use has to come from.' })),
    quotas: Type.Optional(
      Type.Array(
        Type.Object(
          {
            subject: Type.String({ description: 'Whose requests are counted: `key:` or `user:` and an id.' }),
            requests: Type.Integer({ minimum: 1 }),
            window_seconds: Type.Integer({ minimum: 1 }),
          },
          { additionalProperties: false },
        ),
        { description: 'Every use is counted against all of them, and refused where one is used up.' },
      ),
    ),
  },
  {
    additionalProperties: false,
    description: 'To be held against every use of the answer. Who does not understand a member must refuse.',
  },
);

export const TokenResponseSchema = Type.Object(
  {
    access_token: Type.String(),
    issued_token_type: Type.Enum([accessTokenType, jwtType]),
    token_type: Type.Literal('Bearer'),
    expires_in: Type.Integer({ minimum: 1, description: 'Seconds.' }),
    scope: Type.String(),
    as_of: PositionSchema,
    subjects: SubjectsSchema,
    max_staleness_ms: Type.Integer({ minimum: 0, description: 'For how long a decision may be used unconfirmed.' }),
    credential_expires_at_ms: Type.Optional(
      Type.Integer({ description: 'When the credential itself ends, Unix milliseconds; absent = no end.' }),
    ),
    conditions: Type.Optional(ConditionsSchema),
    tenant_id: Type.String({ description: "Empty, as user_id, of a client's own token." }),
    user_id: Type.String(),
  },
  { $id: 'TokenResponse', additionalProperties: false },
);
export type TokenResponse = Static<typeof TokenResponseSchema>;

export const OAuthErrorSchema = Type.Object(
  {
    error: Type.String({ description: 'RFC 6749 section 5.2, RFC 8693 section 2.2.2.' }),
    error_description: Type.String(),
    code: Type.Optional(Type.String({ description: 'Of a refused credential: why; and `provider_unavailable`.' })),
    as_of: Type.Optional(PositionSchema),
    subjects: Type.Optional(SubjectsSchema),
  },
  { $id: 'OAuthError', additionalProperties: false },
);

export const JwksSchema = Type.Object(
  {
    keys: Type.Array(
      Type.Object(
        { kty: Type.Optional(Type.String()), kid: Type.Optional(Type.String()) },
        { additionalProperties: true },
      ),
    ),
  },
  { $id: 'Jwks', additionalProperties: false },
);

export const MetadataSchema = Type.Object(
  {
    issuer: Type.String(),
    token_endpoint: Type.String(),
    jwks_uri: Type.String(),
    response_types_supported: Type.Array(Type.String()),
    grant_types_supported: Type.Array(Type.String()),
    token_endpoint_auth_methods_supported: Type.Array(Type.String()),
    token_endpoint_auth_signing_alg_values_supported: Type.Array(Type.String()),
    introspection_endpoint: Type.String(),
    introspection_endpoint_auth_methods_supported: Type.Array(Type.String()),
    introspection_endpoint_auth_signing_alg_values_supported: Type.Array(Type.String()),
    revocation_endpoint: Type.String(),
    revocation_endpoint_auth_methods_supported: Type.Array(Type.String()),
    revocation_endpoint_auth_signing_alg_values_supported: Type.Array(Type.String()),
  },
  { $id: 'AuthorizationServerMetadata', additionalProperties: false },
);

const orNull = <T extends TSchema>(schema: T) => Type.Optional(Type.Union([schema, Type.Null()]));
const rules = providerRuleFields;

/** Of a provider, what decides how a token of it is read. Not where its keys are: nothing is fetched to try something. */
export const ProviderChangesSchema = Type.Object(
  {
    audiences: Type.Optional(Type.Array(Type.String({ minLength: 1, maxLength: 500 }), { minItems: 1, maxItems: 50 })),
    algorithms: Type.Optional(Type.Array(Type.String({ minLength: 1, maxLength: 20 }), { minItems: 1, maxItems: 20 })),
    claimMapping: Type.Optional(ClaimPaths),
    claimExpressions: Type.Optional(ClaimExpressions),
    tokenType: orNull(rules.tokenType),
    authorizedParties: orNull(rules.authorizedParties),
    clockToleranceSeconds: orNull(rules.clockToleranceSeconds),
    audienceClaim: orNull(rules.audienceClaim),
    condition: orNull(rules.condition),
    entitlementMapping: orNull(rules.entitlementMapping),
    scopeAudiences: orNull(rules.scopeAudiences),
  },
  {
    additionalProperties: false,
    description: 'As if PATCH /v1/providers/{id} had been called with it; nothing is changed.',
  },
);

export const PreviewRequestSchema = Type.Object(
  {
    token: Type.String({ minLength: 1, maxLength: 20_000, description: 'Of the provider.' }),
    presentedAs: Type.Optional(Type.Enum(['access_token', 'id_token'], { description: 'Default access_token.' })),
    audience: Type.Optional(
      Type.String({ pattern: '^[\\x21-\\x7e]{1,255}$', description: 'Asked for; default that of the deployment.' }),
    ),
    changes: Type.Optional(ProviderChangesSchema),
  },
  { $id: 'PreviewRequest', additionalProperties: false },
);

export const PreviewSchema = Type.Object(
  {
    outcome: Type.Enum(['granted', 'refused', 'undecided'], {
      description: 'undecided: a caller with this token gets 503.',
    }),
    code: Type.Optional(Type.String({ description: 'Of what is not granted: why, as in docs/errors.md.' })),
    reason: Type.Optional(Type.String({ description: 'More of it, where there is more to say.' })),
    claims: Type.Optional(
      Type.Record(Type.String(), Type.Unknown(), {
        description: 'Of the internal token, but for jti and client_id; without sub where the user is yet to be made.',
      }),
    ),
    conditions: Type.Optional(ConditionsSchema),
    firstUse: Type.Optional(
      Type.Enum(['linked', 'created'], {
        description: 'The first use links the subject to the user, or makes one; absent: the user is known.',
      }),
    ),
  },
  { $id: 'Preview', additionalProperties: false },
);

export const IntrospectionSecretSchema = Type.Object(
  {
    clientSecret: Type.String({
      pattern: '^[\\x20-\\x7e]{1,500}$',
      description: 'Of the client that the rule `introspection` of the provider names (client_secret_basic).',
    }),
  },
  { $id: 'IntrospectionSecret', additionalProperties: false },
);
