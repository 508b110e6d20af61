import { ServiceError } from '@token-gateway/platform';
import { compactVerify, errors } from 'jose';
import type { ProviderKeys } from '../providers/provider-keys.ts';
import type { SignatureVerifier } from './port.ts';

export function createJoseVerifier(keys: Pick<ProviderKeys, 'find'>): SignatureVerifier {
  return {
    async verify(token, { header }, provider) {
      const key = await keys.find(provider, header);
      try {
        await compactVerify(token, key, { algorithms: [header.alg] });
      } catch (cause) {
        if (!(cause instanceof errors.JOSEError) && !(cause instanceof TypeError)) throw cause;
        throw new ServiceError('token_signature_invalid', { detail: provider.id, cause });
      }
    },
  };
}
