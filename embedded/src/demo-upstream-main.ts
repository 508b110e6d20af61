import { commonFields, loadConfig, port, runService, startHealthServer, text, url } from '@token-gateway/platform';
import { createDemoUpstream } from './demo-upstream.ts';

await runService('demo-upstream', async ({ env, lifecycle, logger, registry }) => {
  const config = loadConfig(
    {
      ...commonFields,
      port: port('TG_UPSTREAM_PORT', 8090),
      issuer: url('TG_ISSUER'),
      jwksUrl: url('TG_JWKS_URL'),
      audience: text('TG_AUDIENCE', { default: 'internal' }),
    },
    env,
  );
  const { host } = config;
  const app = await createDemoUpstream({ logger }, config);
  lifecycle.onClose('demo upstream', () => app.close());
  await app.listen({ host, port: config.port });
  await startHealthServer({ host, port: config.metricsPort, registry, ready: async () => [], lifecycle });
});
