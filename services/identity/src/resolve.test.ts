import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { createTestClock } from '@token-gateway/platform/testing';
import type { ExternalCredential } from '@token-gateway/schemas/identity';
import { Resolver } from './resolve.ts';
import { createMemoryStore } from './store/memory.ts';

const clock = createTestClock();
const provider = { id: 'p', issuer: 'https://idp.example', audiences: ['api'], jwksUri: null, algorithms: [] };

describe('an external identity that nobody is linked to', () => {
  it('is not refused when the user just made for it is lost in a failover', async () => {
    let database = createMemoryStore({ clock });
    const { seq: revision } = database.commit({ type: 'tg.provider.created', subjects: [], actor: 'a' }, (state) => {
      state.tenants.set('t', { id: 't', isSuspended: false, tokenTtlSeconds: 300, maxStalenessMs: 1000 });
      const policy = { revision: 1, tenantId: 't', claimMapping: {}, isDisabled: false, provisioning: 'jit' } as const;
      state.providers.set('p', { ...provider, ...policy });
    });
    let fails = true;
    const resolver = new Resolver({
      clock,
      random: randomBytes,
      store: {
        ...database,
        external: (name) => database.external(name),
        async provision(user, change) {
          await database.provision(user, change);
          if (fails) database = database.promote(revision);
        },
      },
    });
    const value = {
      providerId: 'p',
      providerRevision: revision,
      providerEpoch: (await database.head()).epoch,
      subject: 'alice',
      sessionId: '',
      signingInputSha256: Buffer.alloc(32),
      issuedAtSeconds: 1,
      email: '',
      displayName: '',
    };
    const resolve = async (external: ExternalCredential) => {
      const { outcome } = await resolver.resolve({ credential: { $case: 'external', value: external } });
      return outcome?.$case === 'refused' ? outcome.value.code : outcome?.$case;
    };
    // To be verified and asked for again.
    assert.equal(await resolve(value), 'provider_configuration_stale');
    fails = false;
    assert.equal(await resolve({ ...value, providerEpoch: (await database.head()).epoch }), 'granted');
  });
});
