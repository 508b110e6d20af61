/** The quotas of a grant, made ready for every use of it. @module */
import { type Static, Type } from 'typebox';

/** As the token endpoint answers it, among the conditions of a grant. */
export const QuotaSchema = Type.Object(
  {
    /** Whose requests it counts: a key, or a user. */
    subject: Type.String({ pattern: '^(?:key|user):.{1,200}$' }),
    requests: Type.Integer({ minimum: 1, maximum: 10_000_000 }),
    window_seconds: Type.Integer({ minimum: 1, maximum: 86_400 }),
  },
  { additionalProperties: false },
);

export interface Quota {
  /** `key` or `user`. */
  readonly name: string;
  readonly subject: string;
  readonly requests: number;
  readonly intervalMs: number;
  /** What it is counted under. A quota that was changed is another one, and counts anew. */
  readonly counter: string;
}

export interface Quotas {
  /** All of them have to leave room. */
  readonly quotas: readonly Quota[];
  /** `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers-10 section 3). */
  readonly policy: string;
}

/** Undefined where there are none, so that a decision without any is told apart at once. */
export function quotasOf(stated: readonly Static<typeof QuotaSchema>[] | undefined): Quotas | undefined {
  if (stated === undefined || stated.length === 0) return undefined;
  const quotas = stated.map(({ subject, requests, window_seconds: seconds }) => ({
    name: subject.slice(0, subject.indexOf(':')),
    subject,
    requests,
    intervalMs: (seconds * 1000) / requests,
    counter: `${subject}:${requests}:${seconds}`,
  }));
  const items = stated.map(({ requests, window_seconds }, index) => {
    return `"${quotas[index]?.name}";q=${requests};w=${window_seconds}`;
  });
  return { quotas, policy: items.join(', ') };
}
