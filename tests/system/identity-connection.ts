import { createGrpcIdentityClient, type IdentityClient, openMutualTls, systemClock } from '@token-gateway/platform';
import { createSilentTelemetry } from '@token-gateway/platform/testing';
import { type System, trustDomain } from './system.ts';

const { logger } = createSilentTelemetry();

/** Identity at an address as one of its callers sees it; closing ends it. */
export async function connectIdentityAs(
  { tlsFolders }: Pick<System, 'tlsFolders'>,
  role: 'auth-server' | 'gateway',
  address: string,
): Promise<IdentityClient> {
  const tls = await openMutualTls(tlsFolders[role], { clock: systemClock, logger });
  const client = createGrpcIdentityClient({
    addresses: [address],
    credentials: tls.client(`${trustDomain}/identity`),
    logger,
    clock: systemClock,
  });
  return {
    ...client,
    async close() {
      await client.close();
      tls.close();
    },
  };
}
