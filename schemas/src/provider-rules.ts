/**
 * How the tokens of a provider are held against its tenant's wishes. Identity keeps the rules, the auth server acts by
 * them; whoever reads one that it does not know uses none of the provider's tokens.
 * @module
 */
import { type Static, Type } from 'typebox';

const strict = { additionalProperties: false } as const;
const Name = Type.String({ minLength: 1, maxLength: 200 });
const Names = Type.Array(Name, { maxItems: 50, uniqueItems: true });
const Expression = Type.String({ minLength: 1, maxLength: 1000 });

export const providerRuleFields = {
  tokenType: Type.Enum(['access_token', 'at+jwt', 'id_token'], {
    description:
      'What is taken: access tokens (the default); only those that are of type at+jwt (RFC 9068); or ID tokens, of ' +
      'providers that have no other JWT.',
  }),
  authorizedParties: Type.Array(Name, {
    minItems: 1,
    maxItems: 50,
    uniqueItems: true,
    description: 'Clients at the provider whose tokens are taken, by azp, client_id, cid or appid; absent = all.',
  }),
  logoutAudiences: Type.Array(Name, {
    minItems: 1,
    maxItems: 50,
    uniqueItems: true,
    description: 'Clients at the provider whose logout tokens are taken; absent = authorizedParties and audiences.',
  }),
  securityEvents: Type.Object(
    {
      issuer: Type.Optional(
        Type.String({ minLength: 1, maxLength: 500, description: 'Of the events; absent = of the tokens.' }),
      ),
      jwksUri: Type.Optional(
        Type.String({ format: 'uri', maxLength: 2000, description: 'Keys of that issuer; absent = by discovery.' }),
      ),
      audiences: Type.Optional(
        Type.Array(Name, { minItems: 1, maxItems: 50, uniqueItems: true, description: 'Absent = logoutAudiences.' }),
      ),
      bearerTokenSha256: Type.Optional(
        Type.String({
          pattern: '^[0-9a-f]{64}$',
          description:
            'Of a token that each push has to bring, as hexadecimal digits; the events are signed all the same.',
        }),
      ),
    },
    { ...strict, description: 'The provider may say by signed events whose access is over; absent = it is not heard.' },
  ),
  introspection: Type.Object(
    {
      endpoint: Type.String({
        pattern: '^https?://[^\\s#]+$',
        maxLength: 2000,
        description: 'Of the provider, where it is asked about opaque tokens (RFC 7662).',
      }),
      clientId: Type.String({
        pattern: '^[\\x20-\\x7e]{1,200}$',
        description: 'As whom it is asked. The secret is told to the auth server.',
      }),
      tokenPrefix: Type.String({
        pattern: '^[A-Za-z0-9][A-Za-z0-9._~-]{1,30}[._~-]$',
        description: 'What its opaque tokens, and those of nobody else, begin with.',
      }),
      isPrefixAdded: Type.Optional(
        Type.Boolean({ description: 'Callers put the prefix before the token; the provider does not know it.' }),
      ),
      lifeSeconds: Type.Optional(
        Type.Integer({
          minimum: 5,
          maximum: 3600,
          description: 'For how long an answer is good, if the token is; default 60.',
        }),
      ),
    },
    { ...strict, description: 'Opaque tokens are taken as well. Only an operator may say so.' },
  ),
  clockToleranceSeconds: Type.Integer({
    minimum: 0,
    maximum: 60,
    description: 'How far clocks may differ; default 5.',
  }),
  audienceClaim: Type.String({ minLength: 1, maxLength: 200, description: 'Where audiences stand; default aud.' }),
  condition: Type.String({
    minLength: 1,
    maxLength: 1000,
    description: 'A CEL expression over claims that has to be true.',
  }),
  entitlementMapping: Type.Record(Name, Names, {
    maxProperties: 200,
    description: 'What the provider calls it, to entitlements here; others are dropped. Absent = taken as they are.',
  }),
  scopeAudiences: Type.Record(Name, Names, {
    maxProperties: 200,
    description: 'A scope of the token, to the audiences it gives access to. Absent = scopes narrow no audience.',
  }),
  linkBy: Type.Enum(['verified_email'], {
    description: 'Links a new subject to the one user with the e-mail address that the token says is verified.',
  }),
} as const;

const { tokenType, authorizedParties, logoutAudiences, securityEvents, introspection } = providerRuleFields;
const { clockToleranceSeconds, audienceClaim, condition, entitlementMapping, scopeAudiences, linkBy } =
  providerRuleFields;

export const ProviderRules = Type.Object(
  {
    tokenType: Type.Optional(tokenType),
    authorizedParties: Type.Optional(authorizedParties),
    logoutAudiences: Type.Optional(logoutAudiences),
    securityEvents: Type.Optional(securityEvents),
    introspection: Type.Optional(introspection),
    clockToleranceSeconds: Type.Optional(clockToleranceSeconds),
    audienceClaim: Type.Optional(audienceClaim),
    condition: Type.Optional(condition),
    entitlementMapping: Type.Optional(entitlementMapping),
    scopeAudiences: Type.Optional(scopeAudiences),
    linkBy: Type.Optional(linkBy),
  },
  strict,
);
export type ProviderRules = Static<typeof ProviderRules>;

const ClaimName = Type.String({
  pattern: '^(?:subject|email|emailVerified|displayName|entitlements|sessionId|scope)$',
});

/** Internal name to the path of a claim. */
export const ClaimPaths = Type.Record(ClaimName, Name, {
  description: 'Internal name to path of the claim.',
  ...strict,
});

/** Internal name to an expression. */
export const ClaimExpressions = Type.Record(ClaimName, Expression, {
  description:
    'Internal name to an expression over claims (https://cel.dev), without regular expressions; it counts before a path.',
  ...strict,
});

/** Both in one, as it is stored and sent. */
export const ClaimMapping = Type.Record(
  ClaimName,
  Type.Union([Name, Type.Object({ cel: Expression }, strict)]),
  strict,
);
export type ClaimMapping = Static<typeof ClaimMapping>;
