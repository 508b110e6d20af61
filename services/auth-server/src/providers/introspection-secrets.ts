/**
 * What the auth server proves itself by where it asks providers about tokens. Each is sealed for its provider, its endpoint and
 * its client: where one of these is changed it opens no more, so that nobody is sent the secret of somebody else.
 * @module
 */
import { type Clock, type Database, type Instant, type KeyVault, ServiceError } from '@token-gateway/platform';
import { ageMs } from '@token-gateway/revocation';
import { eq } from 'drizzle-orm';
import { introspectionSecrets } from '../database/schema.ts';
import type { IntrospectionRules } from './provider-configuration.ts';

export interface IntrospectionSecrets {
  /** Null = none was given for these rules. Rejects with a ServiceError of status 503 where that cannot be told. */
  find(providerId: string, rules: IntrospectionRules): Promise<string | null>;
  /** Rejects with `key_vault_unavailable` where there is nothing to seal it by. */
  put(providerId: string, rules: IntrospectionRules, secret: string): Promise<void>;
  /** Seals what a former key-encryption key has sealed under the newest. */
  sealAnew(): Promise<void>;
}

interface Deps {
  readonly database: Database;
  readonly keyVault: KeyVault | null;
  readonly clock: Clock;
}

/** How long one is used before its row is read again. */
const ageMaxMs = 1000;

export function createIntrospectionSecrets({ database: { drizzle }, keyVault, clock }: Deps): IntrospectionSecrets {
  const known = new Map<
    string,
    { readonly context: string; readonly secret: string | null; readonly readAt: Instant }
  >();

  function requireVault(): KeyVault {
    if (keyVault !== null) return keyVault;
    throw new ServiceError('key_vault_unavailable', { detail: 'no secret of a provider is stored as it is' });
  }

  async function read(providerId: string, context: string): Promise<string | null> {
    const isIt = eq(introspectionSecrets.providerId, providerId);
    const [row] = await drizzle.select().from(introspectionSecrets).where(isIt).catch(unavailable);
    if (row === undefined || row.context !== context) return null;
    return Buffer.from(await requireVault().open(row.sealed, context)).toString('utf8');
  }

  return {
    async find(providerId, rules) {
      const context = contextOf(providerId, rules);
      const now = clock.now();
      const last = known.get(providerId);
      if (last?.context === context && ageMs(last.readAt, now) < ageMaxMs) return last.secret;
      const secret = await read(providerId, context);
      known.set(providerId, { context, secret, readAt: now });
      return secret;
    },

    async put(providerId, rules, secret) {
      const context = contextOf(providerId, rules);
      const sealed = Buffer.from(await requireVault().seal(Buffer.from(secret), context));
      const values = { context, sealed, updatedAt: new Date(clock.now().wallMs) };
      await drizzle
        .insert(introspectionSecrets)
        .values({ providerId, ...values })
        .onConflictDoUpdate({ target: introspectionSecrets.providerId, set: values })
        .catch(unavailable);
      known.delete(providerId);
    },

    async sealAnew() {
      if (keyVault === null) return;
      for (const { context, sealed } of await drizzle.select().from(introspectionSecrets)) {
        if (keyVault.isCurrent(sealed)) continue;
        const anew = Buffer.from(await keyVault.seal(await keyVault.open(sealed, context), context));
        // Not over one that was given meanwhile.
        const isIt = eq(introspectionSecrets.sealed, sealed);
        await drizzle.update(introspectionSecrets).set({ sealed: anew }).where(isIt);
      }
    },
  };
}

function unavailable(cause: unknown): never {
  throw new ServiceError('decision_unavailable', { detail: 'secrets of providers are not within reach', cause });
}

function contextOf(providerId: string, { endpoint, clientId }: IntrospectionRules): string {
  return `auth-server introspection_secrets.sealed ${JSON.stringify([providerId, endpoint, clientId])}`;
}
