/** The form of a file of rules. @module */
import { type Static, Type } from 'typebox';

const names = Type.Array(Type.String({ minLength: 1, pattern: '^[\\x21\\x23-\\x5b\\x5d-\\x7e]+$' }), {
  uniqueItems: true,
});
const headerName = Type.String({ pattern: "^[!#$%&'+.^_`|~0-9A-Za-z-]+$" });

const requirementFields = {
  audience: Type.Optional(
    Type.String({ minLength: 1, description: 'Of the internal token; default: the audience of the gateway.' }),
  ),
  credentials: Type.Optional(
    Type.Array(Type.Union([Type.Literal('jwt'), Type.Literal('api-key')]), {
      minItems: 1,
      uniqueItems: true,
      description: 'The kinds that are heard here; default: every kind.',
    }),
  ),
  scopes: Type.Optional(Type.Intersect([names], { description: 'The internal token must have all of them.' })),
  entitlements: Type.Optional(Type.Intersect([names], { description: 'The internal token must have all of them.' })),
};

export const RuleSchema = Type.Object(
  {
    name: Type.String({ minLength: 1, maxLength: 100, description: 'For logs and for --check; unique in the file.' }),
    hosts: Type.Optional(
      Type.Array(Type.String({ pattern: '^(\\*\\.)?[a-z0-9-]+(\\.[a-z0-9-]+)*$' }), {
        minItems: 1,
        uniqueItems: true,
        description: 'Names without a port, in lower case; `*.example.com` is every name below. Default: every host.',
      }),
    ),
    paths: Type.Array(Type.String({ pattern: '^/' }), {
      minItems: 1,
      uniqueItems: true,
      description:
        'Exact (`/orders`), with segments left open (`/orders/{id}`), or with all that is below (`/orders/**`).',
    }),
    methods: Type.Optional(
      Type.Array(Type.String({ pattern: '^[A-Z]+$' }), {
        minItems: 1,
        uniqueItems: true,
        description: 'Others are refused, unless another rule with the same path has them. Default: every method.',
      }),
    ),
    access: Type.Optional(
      Type.Union([Type.Literal('token'), Type.Literal('anonymous'), Type.Literal('public'), Type.Literal('deny')], {
        description: "Default: token. `anonymous`: public, and the upstream gets a token of the gateway's own client.",
      }),
    ),
    ...requirementFields,
    tokenHeader: Type.Optional(
      Type.Object(
        { name: headerName, prefix: Type.Optional(Type.String({ pattern: '^[\\x20-\\x7e]*$' })) },
        {
          additionalProperties: false,
          description: 'Where the internal token goes; default: authorization, with `Bearer `.',
        },
      ),
    ),
    claimHeaders: Type.Optional(
      Type.Record(headerName, Type.String({ minLength: 1 }), {
        description: 'Headers for the upstream with a claim of the internal token each; lists are joined by a comma.',
      }),
    ),
  },
  { additionalProperties: false },
);

export const RulesSchema = Type.Object(
  {
    rules: Type.Array(RuleSchema),
    otherwise: Type.Optional(
      Type.Union([Type.Literal('token'), Type.Literal('deny')], {
        description: 'What no rule is for; default: token, as if there were no rules.',
      }),
    ),
  },
  { additionalProperties: false },
);

export type Rule = Static<typeof RuleSchema>;
export type Rules = Static<typeof RulesSchema>;
