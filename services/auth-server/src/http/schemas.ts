/** What the endpoints take and answer, for the OpenAPI document and for the types. */
import { type Static, Type } from 'typebox';

const PositionSchema = Type.Object(
  { epoch: Type.Integer({ minimum: 1 }), seq: Type.Integer({ minimum: 0 }) },
  { additionalProperties: false, description: 'The place in the change log the answer was decided at.' },
);

const SubjectsSchema = Type.Array(Type.String(), {
  description: 'A change of any of these can make the answer untrue.',
});

export const TokenRequestSchema = Type.Object(
  {
    grant_type: Type.Enum([
      'urn:ietf:params:oauth:grant-type:token-exchange',
      'urn:token-gateway:params:oauth:grant-type:api-key',
    ]),
    client_assertion_type: Type.Literal('urn:ietf:params:oauth:client-assertion-type:jwt-bearer'),
    client_assertion: Type.String({ description: 'private_key_jwt (RFC 7523 section 2.2).' }),
    client_id: Type.Optional(Type.String()),
    audience: Type.Optional(Type.String({ description: 'The one audience of the internal token.' })),
    scope: Type.Optional(Type.String({ description: 'Narrows the scope; absent = all the credential has.' })),
    subject_token: Type.Optional(Type.String({ description: 'Token exchange: the JWT of an external provider.' })),
    subject_token_type: Type.Optional(
      Type.Enum(['urn:ietf:params:oauth:token-type:jwt', 'urn:ietf:params:oauth:token-type:access_token']),
    ),
    requested_token_type: Type.Optional(
      Type.Enum(['urn:ietf:params:oauth:token-type:access_token', 'urn:ietf:params:oauth:token-type:jwt']),
    ),
    api_key: Type.Optional(Type.String({ description: 'API-key grant: the key.' })),
  },
  { $id: 'TokenRequest' },
);

export const TokenResponseSchema = Type.Object(
  {
    access_token: Type.String(),
    issued_token_type: Type.Literal('urn:ietf:params:oauth:token-type:access_token'),
    token_type: Type.Literal('Bearer'),
    expires_in: Type.Integer({ minimum: 1, description: 'Seconds.' }),
    scope: Type.String(),
    as_of: PositionSchema,
    subjects: SubjectsSchema,
    max_staleness_ms: Type.Integer({ minimum: 0, description: 'For how long a decision may be used unconfirmed.' }),
    credential_expires_at_ms: Type.Optional(
      Type.Integer({ description: 'When the credential itself ends, Unix milliseconds; absent = no end.' }),
    ),
    conditions: Type.Optional(
      Type.Object(
        {
          jkt: Type.Optional(
            Type.String({ description: 'Thumbprint of the key that a DPoP proof has to be made with.' }),
          ),
          x5t_s256: Type.Optional(Type.String({ description: 'SHA-256 of the TLS client certificate.' })),
        },
        {
          additionalProperties: false,
          description: 'To be held against every use of the answer. Who does not understand a member must refuse.',
        },
      ),
    ),
    tenant_id: Type.String(),
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
  },
  { $id: 'AuthorizationServerMetadata', additionalProperties: false },
);
