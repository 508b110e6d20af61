import { createSilentTelemetry, ServiceError } from '@token-gateway/platform';
import { createApp } from './http/app.ts';

/** The OpenAPI document of the HTTP side; needs no database and nothing else that runs. */
export async function buildOpenApi(): Promise<object> {
  const nothing = async (): Promise<never> => {
    throw new ServiceError('internal', { detail: 'built for its description only' });
  };
  const app = await createApp(
    {
      tokenEndpoint: nothing,
      introspectionEndpoint: nothing,
      revocationEndpoint: nothing,
      backChannelLogoutEndpoint: nothing,
      securityEventEndpoint: nothing,
      previewEndpoint: nothing,
      introspectionSecretEndpoint: nothing,
      publishedKeys: nothing,
      logger: createSilentTelemetry().logger,
    },
    { issuer: 'http://127.0.0.1:8081' },
  );
  await app.ready();
  const document = app.swagger();
  await app.close();
  return document;
}
