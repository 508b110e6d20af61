import { createSilentTelemetry, createTestClock } from '@token-gateway/platform/testing';
import { UnsecuredJWT } from 'jose';
import { startLocalProvider } from '../local-provider.testing.ts';
import { createDocumentFetcher } from '../providers/document-fetcher.ts';
import { createProviderDirectory } from '../providers/provider-directory.ts';
import { createProviderKeys } from '../providers/provider-keys.ts';
import type { Signer } from '../signing/port.ts';
import { createJoseVerifier } from '../verification/jose.ts';
import { Authority } from './authority.testing.ts';
import { conditionNames, createExchange, type ExchangeRequest, type ExchangeResult } from './exchange.ts';

export const issuer = 'https://auth.example.com';

/** An exchange with a provider on the network, and identity as a test says. */
export async function startWorld() {
  const clock = createTestClock();
  const provider = await startLocalProvider(clock);
  const authority = new Authority();
  const { logger } = createSilentTelemetry();
  const fetchDocument = createDocumentFetcher({ timeoutMs: 2000, bytesMax: 100_000, allowInsecure: true });
  const keys = createProviderKeys(
    { fetchDocument, clock, logger },
    { ageMaxMs: 600_000, outageMaxMs: 86_400_000, outageKnownMs: 60_000, cooldownMs: 1000 },
  );
  const directory = createProviderDirectory(
    { identity: authority.client, clock, onList: (list) => void keys.follow(list) },
    { identityTimeoutMs: 1000, cooldownMs: 250 },
  );
  let tokenCount = 0;
  const generations: number[] = [];
  /** Signs nothing: the claims are what matters here. */
  const signer: Signer = {
    async sign(claims, minGeneration) {
      generations.push(minGeneration);
      return new UnsecuredJWT(claims).encode();
    },
    publicKeys: async () => [],
  };
  const exchange = createExchange(
    {
      identity: authority.client,
      signer,
      directory,
      verifier: createJoseVerifier(keys),
      clock,
      logger,
      newTokenId: () => `token-${++tokenCount}`,
    },
    { issuer, identityTimeoutMs: 1000 },
  );
  const withJwt = (value: string, more: Partial<ExchangeRequest> = {}): Promise<ExchangeResult> =>
    exchange({
      credential: { kind: 'jwt', value },
      audience: 'internal',
      clientId: 'gateway',
      heeds: conditionNames,
      ...more,
    });
  return {
    clock,
    provider,
    authority,
    exchange,
    generations,
    withJwt,
    [Symbol.asyncDispose]: () => provider[Symbol.asyncDispose](),
  };
}

/** The same, with the provider known to identity. */
export async function startKnownWorld(mapping: Record<string, string> = {}) {
  const world = await startWorld();
  const { id } = world.authority.addProvider({
    issuer: world.provider.issuer,
    claimMappingJson: JSON.stringify(mapping),
  });
  return { ...world, providerId: id };
}
