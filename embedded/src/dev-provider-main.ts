import {
  commonFields,
  loadConfig,
  port,
  runService,
  secret,
  startHealthServer,
  text,
  url,
} from '@token-gateway/platform';
import { demoAudience, demoUsers } from './demo.ts';
import { startDevProvider } from './dev-provider.ts';

await runService('dev-provider', async ({ env, lifecycle, registry }) => {
  const config = loadConfig(
    {
      ...commonFields,
      port: port('TG_DEV_PROVIDER_PORT', 8091),
      issuer: url('TG_DEV_PROVIDER_ISSUER', { default: 'http://127.0.0.1:8091' }),
      password: secret('TG_DEV_PROVIDER_PASSWORD'),
      audience: text('TG_DEV_PROVIDER_AUDIENCE', { default: demoAudience }),
    },
    env,
  );
  const { host, issuer, audience } = config;
  const provider = await startDevProvider({
    host,
    port: config.port,
    issuer,
    audience,
    users: demoUsers,
    password: config.password.reveal(),
  });
  lifecycle.onClose('development provider', () => provider.close());
  await startHealthServer({ host, port: config.metricsPort, registry, ready: async () => [], lifecycle });
});
