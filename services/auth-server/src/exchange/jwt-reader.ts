import { ServiceError } from '@token-gateway/platform';
import { isUnavailable } from '../http/oauth-error.ts';
import type { InternalTokenReader } from './internal-credential.ts';
import { type JwtForm, readJwtForm } from './jwt-form.ts';
import type { OpaqueTokenReader } from './opaque-token.ts';
import type { CredentialReading, Refused } from './resolution.ts';
import type { TokenUse } from './token-use.ts';

/** Reads a JWT whose form is sound. */
export type FormedTokenReader = (token: string, form: JwtForm, use: TokenUse) => Promise<CredentialReading>;

export interface JwtReaderDeps {
  readonly external: FormedTokenReader;
  /** Absent: our own tokens are those of an unknown issuer. */
  readonly internal?: InternalTokenReader | undefined;
  /** Reads what is no JWT; absent: nothing else is taken. */
  readonly opaque?: OpaqueTokenReader | undefined;
}

/** Tells internal tokens from those of providers, none of which can have our issuer, and JWTs from what may be opaque. */
export function createJwtReader(
  { external, internal, opaque }: JwtReaderDeps,
  config: { readonly issuer: string },
): (token: string, use: TokenUse) => Promise<CredentialReading> {
  return async (token, use) => {
    let form: JwtForm;
    try {
      form = readJwtForm(token);
      if (form.issuer === config.issuer && (internal === undefined || use === 'id')) {
        throw new ServiceError('token_issuer_unknown');
      }
    } catch (error) {
      const refused = refusedBy(error);
      if (refused.code !== 'credential_malformed') return refused;
      return (await opaque?.(token, use)) ?? refused;
    }
    return form.issuer === config.issuer && internal !== undefined ? internal(token, form) : external(token, form, use);
  };
}

/** The refusal that was thrown; rethrows what is none. */
export function refusedBy(error: unknown): Refused {
  if (!(error instanceof ServiceError) || isUnavailable(error.code)) throw error;
  const { code, detail } = error;
  return { outcome: 'refused', code, ...(detail === undefined ? {} : { detail }) };
}
