import type { Credential } from '../../exchange/exchange.ts';
import type { Parameters } from '../parameters.ts';

/** A grant of the token endpoint: how its credential is read from the parameters. */
export interface Grant {
  readonly type: string;
  /** Throws OAuthError `invalid_request` for what the grant does not allow. */
  readCredential(parameters: Parameters, clientId: string): Credential;
}
