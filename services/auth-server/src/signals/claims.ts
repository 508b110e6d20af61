import { ServiceError } from '@token-gateway/platform';

/** JSON of that kind, neither null nor a list. */
export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Of a signal that does not say what one has to say. */
export function invalid(detail: string): ServiceError {
  return new ServiceError('token_claims_invalid', { detail });
}
