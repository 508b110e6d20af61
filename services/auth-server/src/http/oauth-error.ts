import { type ErrorCode, errorEntry, toServiceError } from '@token-gateway/platform';

/** The errors of RFC 6749 section 5.2 and RFC 8693 section 2.2.2, with the status each has. */
const statusOf = {
  invalid_request: 400,
  invalid_client: 401,
  invalid_grant: 400,
  unauthorized_client: 400,
  unsupported_grant_type: 400,
  invalid_scope: 400,
  invalid_target: 400,
  server_error: 500,
  temporarily_unavailable: 503,
} as const;

export type OAuthErrorName = keyof typeof statusOf;

/** What the caller of an OAuth endpoint did wrong; the description is sent, and holds nothing of what was sent. */
export class OAuthError extends Error {
  readonly error: OAuthErrorName;
  readonly description: string;
  /** More members of the answer. */
  readonly members: Readonly<Record<string, unknown>>;
  /** The registered client it is about, for the audit; never sent. */
  readonly clientId: string | undefined;

  constructor(
    error: OAuthErrorName,
    description: string,
    options: { members?: Readonly<Record<string, unknown>>; clientId?: string | undefined; cause?: unknown } = {},
  ) {
    super(`${error}: ${description}`, { cause: options.cause });
    this.name = 'OAuthError';
    this.error = error;
    this.description = description;
    this.members = options.members ?? {};
    this.clientId = options.clientId;
  }

  get status(): number {
    return statusOf[this.error];
  }

  body(): Record<string, unknown> {
    return { error: this.error, error_description: this.description, ...this.members };
  }
}

/** Whether a code says that nothing could be decided, and not that something was refused. */
export function isUnavailable(code: ErrorCode): boolean {
  return errorEntry(code).http >= 500;
}

/** Anything thrown, as the error an OAuth endpoint answers with. */
export function toOAuthError(error: unknown): OAuthError {
  if (error instanceof OAuthError) return error;
  const { code } = toServiceError(error);
  if (errorEntry(code).http === 503) {
    // A client that knows that one provider only is away goes on asking for the credentials of the others.
    const members = code === 'provider_unavailable' ? { code } : {};
    return new OAuthError('temporarily_unavailable', errorEntry(code).publicMessage, { members, cause: error });
  }
  return new OAuthError('server_error', 'An internal error occurred.', { cause: error });
}
