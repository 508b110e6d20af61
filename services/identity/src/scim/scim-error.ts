import { errorEntry, toServiceError } from '@token-gateway/platform';

/** RFC 7644 section 3.12, table 9. */
export type ScimType =
  | 'invalidFilter'
  | 'uniqueness'
  | 'mutability'
  | 'invalidSyntax'
  | 'invalidPath'
  | 'noTarget'
  | 'invalidValue';

const schema = 'urn:ietf:params:scim:api:messages:2.0:Error';

/** What a SCIM client asked for wrongly. The detail is sent, and holds nothing of what was sent. */
export class ScimError extends Error {
  readonly scimType: ScimType;

  constructor(scimType: ScimType, detail: string) {
    super(detail);
    this.name = 'ScimError';
    this.scimType = scimType;
  }
}

export interface ScimErrorAnswer {
  readonly status: number;
  readonly body: Readonly<Record<string, unknown>>;
}

/** The answer to anything thrown, with the one text of the table of errors for what is not SCIM's own. */
export function scimErrorOf(error: unknown): ScimErrorAnswer {
  if (error instanceof ScimError)
    return answer(error.scimType === 'uniqueness' ? 409 : 400, error.message, error.scimType);
  const { code } = toServiceError(error);
  const { http, publicMessage } = errorEntry(code);
  return answer(http, publicMessage, code === 'conflict' ? 'uniqueness' : http === 400 ? 'invalidValue' : undefined);
}

export function answer(status: number, detail: string, scimType?: ScimType): ScimErrorAnswer {
  return { status, body: { schemas: [schema], status: `${status}`, ...(scimType && { scimType }), detail } };
}
