import { type IdentityClient, ServiceError } from '@token-gateway/platform';
import type { Granted, Provider, ResolveRequest, ResolveResponse } from '@token-gateway/schemas/identity';

/**
 * Identity as far as an exchange asks it, so that a test can say what it answers and when it is away. What the real one
 * answers is tested with it, in auth-server.test.ts.
 */
export class Authority {
  seq = 1;
  isAway = false;
  minSigningGeneration = 1;
  providers: Provider[] = [];
  listCount = 0;
  readonly questions: ResolveRequest[] = [];
  granted: Partial<Granted> = {};
  /** The code of a refusal, until null. */
  refusal: string | null = null;
  /** Runs before each answer of resolve. */
  onResolve: () => void = () => {};

  addProvider(provider: Partial<Provider> & { readonly issuer: string }): Provider {
    this.seq += 1;
    const added = {
      id: `prv_${this.providers.length + 1}`,
      tenantId: 'ten_1',
      audiences: ['api'],
      jwksUri: '',
      algorithms: [],
      claimMappingJson: '',
      revision: this.seq,
      ...provider,
    };
    this.providers.push(added);
    return added;
  }

  changeProvider(id: string, change: Partial<Provider>): void {
    this.seq += 1;
    this.providers = this.providers.map((provider) =>
      provider.id === id ? { ...provider, ...change, revision: this.seq } : provider,
    );
  }

  readonly client: IdentityClient = {
    resolve: async (request) => {
      if (this.isAway) throw new ServiceError('identity_unavailable');
      this.questions.push(request);
      this.onResolve();
      const { seq, minSigningGeneration } = this;
      return { epoch: 1, seq, minSigningGeneration, outcome: this.#outcome(request) };
    },
    listProviders: async () => {
      if (this.isAway) throw new ServiceError('identity_unavailable');
      this.listCount += 1;
      return { epoch: 1, seq: this.seq, providers: [...this.providers] };
    },
    revoke: () => Promise.reject(new ServiceError('internal')),
    receiveSignal: () => Promise.reject(new ServiceError('internal')),
    watermark: () => Promise.reject(new ServiceError('internal')),
    watch: () => Promise.reject(new ServiceError('internal')),
    close: async () => {},
  };

  #outcome({ credential }: ResolveRequest): ResolveResponse['outcome'] {
    const refused = (code: string, subjects: string[]): ResolveResponse['outcome'] => ({
      $case: 'refused',
      value: { code, subjects },
    });
    const granted: Granted = {
      tenantId: 'ten_1',
      userId: 'usr_1',
      entitlements: ['read'],
      scopes: [],
      audiences: [],
      allowedCidrs: [],
      quotas: [],
      keyId: '',
      providerId: '',
      tokenTtlSeconds: 300,
      maxStalenessMs: 1000,
      credentialExpiresAtMs: 0,
      attributesJson: '',
      subjects: ['user:usr_1'],
    };
    if (this.refusal !== null) return refused(this.refusal, ['user:usr_1']);
    if (credential?.$case === 'external') {
      const { providerId, providerRevision } = credential.value;
      const provider = this.providers.find(({ id }) => id === providerId);
      if (provider?.revision !== providerRevision) return refused('provider_configuration_stale', []);
      return { $case: 'granted', value: { ...granted, providerId, ...this.granted } };
    }
    const keyId = credential?.$case === 'apiKey' ? credential.value.keyId : '';
    return { $case: 'granted', value: { ...granted, keyId, ...this.granted } };
  }
}
