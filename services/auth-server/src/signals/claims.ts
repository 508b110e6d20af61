import { ServiceError } from '@token-gateway/platform';

/** Of a signal that does not say what one has to say. */
export function invalid(detail: string): ServiceError {
  return new ServiceError('token_claims_invalid', { detail });
}
