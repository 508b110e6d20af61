import { createHttpApp, type HttpApp, type Logger, problemAnswers } from '@token-gateway/platform';
import { scimRoutes } from '../scim/routes.ts';
import { apiKeyRevocationRoutes, createKeyRevocation } from './api-key-revocation.ts';
import { apiKeyRoutes } from './api-keys.ts';
import { auditCalls } from './audit.ts';
import { changeRoutes } from './changes.ts';
import type { RestContext } from './context.ts';
import { credentialRoutes } from './credentials.ts';
import { globalRevocationRoutes } from './global-revocation.ts';
import { leakRoutes } from './leaks.ts';
import { providerRoutes } from './providers.ts';
import { receiptRoutes } from './receipts.ts';
import { sessionRoutes } from './sessions.ts';
import { signingKeyRoutes } from './signing-keys.ts';
import { tenantRoutes } from './tenants.ts';
import { userRoutes } from './users.ts';

/** The REST API, not listening. */
export async function createRestApp(logger: Logger, given: RestContext): Promise<HttpApp> {
  const app = await createHttpApp({ logger, title: 'Token gateway: identity', version: '1' });
  app.addHook('onRoute', (route) => {
    // SCIM says of itself how it refuses.
    route.schema = { ...route.schema, response: { ...problemAnswers, ...(route.schema?.response ?? {}) } };
  });
  const context = { ...given, callers: auditCalls(app, given) };
  tenantRoutes(app, context);
  providerRoutes(app, context);
  userRoutes(app, context);
  apiKeyRoutes(app, context);
  const revokeKey = createKeyRevocation(context);
  apiKeyRevocationRoutes(app, context, revokeKey);
  leakRoutes(app, context, revokeKey);
  sessionRoutes(app, context);
  credentialRoutes(app, context);
  globalRevocationRoutes(app, context);
  signingKeyRoutes(app, context);
  changeRoutes(app, context);
  receiptRoutes(app, context);
  scimRoutes(app, context, logger);
  return app;
}
