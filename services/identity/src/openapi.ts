import { noAuditTrail, systemClock } from '@token-gateway/platform';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import { createRestApp } from './rest/app.ts';
import type { RestContext } from './rest/context.ts';

/** The OpenAPI 3.1 document of the REST API, from the schemas of its routes. Needs no database. */
export async function buildOpenApi(): Promise<object> {
  const context = {
    clock: systemClock,
    random: () => new Uint8Array(),
    audit: noAuditTrail,
    callers: { read: () => Promise.reject(new Error('documentation only')) },
  } as unknown as RestContext;
  const app = await createRestApp(createSilentTelemetry().logger, context);
  await app.ready();
  return app.swagger();
}
