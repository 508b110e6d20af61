/**
 * Makes the next signing key now, as the schedule would in its time; with the environment of the auth server:
 *
 *     node services/auth-server/src/signing-keys-main.ts rotate
 * @module
 */
import { parseArgs } from 'node:util';
import {
  createLifecycle,
  createPostgresDatabase,
  createTelemetry,
  openKeyVault,
  systemClock,
} from '@token-gateway/platform';
import { loadProcessConfig } from './config.ts';
import { createKeyStore } from './signing/key-store.ts';

const { positionals } = parseArgs({ allowPositionals: true });
if (positionals.join(' ') !== 'rotate') throw new Error('usage: signing-keys-main.ts rotate');

const config = loadProcessConfig(process.env);
const { logger } = createTelemetry({ service: 'signing-keys', level: 'info' });
const lifecycle = createLifecycle(logger);
try {
  const keyVault = await openKeyVault(config);
  lifecycle.onClose('key vault', async () => keyVault?.close());
  const database = createPostgresDatabase(config.databaseUrl.reveal(), { logger });
  lifecycle.onClose('database', () => database.close());
  const store = createKeyStore({ database, keyVault, clock: systemClock, logger });
  await store.rotate(config.authServer.signingAlgorithm);
} finally {
  await lifecycle.close();
}
