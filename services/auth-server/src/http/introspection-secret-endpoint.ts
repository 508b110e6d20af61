/** PUT /v1/providers/{id}/introspection-secret: by what the auth server proves itself at the provider. Nobody reads it again. */
import { ServiceError } from '@token-gateway/platform';
import { Compile } from 'typebox/compile';
import type { IntrospectionSecrets } from '../providers/introspection-secrets.ts';
import { configurationOf } from '../providers/provider-configuration.ts';
import type { Administration, AdministrativeCall } from './administration.ts';
import { parseBody } from './json-body.ts';
import { IntrospectionSecretSchema } from './schemas.ts';

/** Rejects with ServiceError; `conflict` where the provider is not asked about tokens. */
export type IntrospectionSecretEndpoint = (call: AdministrativeCall) => Promise<void>;

export const introspectionSecretRoute = '/v1/providers/:id/introspection-secret';
const requestForm = Compile(IntrospectionSecretSchema);

export function createIntrospectionSecretEndpoint({
  administration,
  secrets,
}: {
  readonly administration: Administration;
  readonly secrets: Pick<IntrospectionSecrets, 'put'>;
}): IntrospectionSecretEndpoint {
  return (call) =>
    administration.run(call, { method: 'PUT', route: introspectionSecretRoute, status: 204 }, async (provider) => {
      const { clientSecret } = parseBody(call.body, requestForm);
      const { introspection } = configurationOf(provider);
      if (introspection === null) {
        throw new ServiceError('conflict', { detail: `${provider.id} is not asked about tokens` });
      }
      await secrets.put(provider.id, introspection, clientSecret);
    });
}
