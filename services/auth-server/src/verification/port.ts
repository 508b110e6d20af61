import type { Provider } from '@token-gateway/schemas/identity';
import type { JwtForm } from '../exchange/jwt-form.ts';

/** Verifies the signatures of external tokens. A port, so that a simulation can verify deterministically. */
export interface SignatureVerifier {
  /**
   * Resolves when a key that the provider has by this configuration verifies the token. Rejects with
   * `token_signature_invalid` or `token_key_unknown` when none does, and with `provider_unavailable` when that cannot be known.
   */
  verify(token: string, form: JwtForm, provider: Provider): Promise<void>;
}
