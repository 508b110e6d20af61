/**
 * What a decision asks of every use of it, on cache hits and misses alike. The wire form is the `conditions` of the token
 * endpoint's answer; it is kept as it is in L1 and in L2.
 * @module
 */
import { type Static, Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { QuotaSchema } from '../quota/quotas.ts';

/** SHA-256 in base64url, as `cnf` has it. */
const Sha256 = Type.String({ pattern: '^[A-Za-z0-9_-]{43}$' });

/** No member beside these: what is not understood cannot be held to be met. */
export const ConditionsSchema = Type.Object(
  {
    /** A DPoP proof by the key with this thumbprint (RFC 9449 section 6.1). */
    jkt: Type.Optional(Sha256),
    /** The TLS client certificate with this hash (RFC 8705 section 3.1). */
    x5t_s256: Type.Optional(Sha256),
    /** A source address within one of these networks. */
    cidrs: Type.Optional(Type.Array(Type.String(), { minItems: 1 })),
    /** Each use is counted, and refused where one of them is used up. */
    quotas: Type.Optional(Type.Array(QuotaSchema, { minItems: 1 })),
  },
  { additionalProperties: false },
);

/** The conditions that are understood: the `conditions` parameter of the token endpoint. */
export const heededConditions = Object.keys(ConditionsSchema.properties) as readonly (keyof Conditions)[];

export type Conditions = Static<typeof ConditionsSchema>;

/** Whether a use has to show something beside the credential. What it is counted against is no such thing: that comes later. */
export function isBound(conditions: Conditions | null): boolean {
  if (conditions === null) return false;
  // Whatever is added to them binds, until somebody says here that it does not.
  for (const name in conditions) if (name !== 'quotas') return true;
  return false;
}

const form = Compile(ConditionsSchema);

/** Null = a use needs nothing beside the credential; undefined = not understood. */
export function readConditions(value: unknown): Conditions | null | undefined {
  if (value === undefined) return null;
  if (!form.Check(value)) return undefined;
  return Object.keys(value).length === 0 ? null : value;
}
