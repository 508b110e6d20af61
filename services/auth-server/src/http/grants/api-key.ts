import { requireParameter } from '../parameters.ts';
import type { Grant } from './grant.ts';

/** An extension grant (RFC 6749 section 4.5): an API key for an internal token. */
export const apiKeyGrant: Grant = {
  type: 'urn:token-gateway:params:oauth:grant-type:api-key',
  readCredential: (parameters) => ({ kind: 'api-key', value: requireParameter(parameters, 'api_key') }),
};
