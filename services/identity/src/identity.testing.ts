import { randomBytes } from 'node:crypto';
import { createApiKey, type Database, systemClock } from '@token-gateway/platform';
import { createSilentTelemetry, createTestDatabase } from '@token-gateway/platform/testing';
import { createIdentity, type Identity } from './identity.ts';

/** Identity on a database of its own, with an operator. */
export interface TestIdentity extends AsyncDisposable {
  readonly database: Database;
  readonly identity: Identity;
  readonly operatorKey: string;
}

export async function startTestIdentity(): Promise<TestIdentity> {
  const operatorKey = createApiKey(randomBytes, Date.now()).key;
  const database = await createTestDatabase();
  const identity = await createIdentity(
    { database, eventLog: null, clock: systemClock, ...createSilentTelemetry() },
    {
      issuer: 'http://127.0.0.1:1',
      jwksUrl: 'http://127.0.0.1:1',
      audience: 'internal',
      bootstrapAdminKey: operatorKey,
    },
  );
  return {
    database,
    identity,
    operatorKey,
    async [Symbol.asyncDispose]() {
      await identity.close();
      await database.close();
    },
  };
}
