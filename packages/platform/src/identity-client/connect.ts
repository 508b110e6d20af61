import type { Clock } from '../clock/port.ts';
import type { Lifecycle } from '../lifecycle.ts';
import { openMutualTls } from '../mutual-tls/open.ts';
import type { Logger } from '../telemetry.ts';
import { createGrpcIdentityClient } from './grpc.ts';
import type { IdentityClient } from './port.ts';

export interface IdentityClientConfig {
  /** `host:port` each. */
  readonly identityAddresses: readonly string[];
  readonly internalTlsFolder: string | undefined;
  readonly identityPeer: string | undefined;
}

/** Identity as the configuration says, over mutual TLS or plaintext; closed with the service. Rejects with ConfigError. */
export async function connectIdentity(
  { identityAddresses: addresses, internalTlsFolder, identityPeer }: IdentityClientConfig,
  { lifecycle, logger, clock }: { readonly lifecycle: Lifecycle; readonly logger: Logger; readonly clock: Clock },
): Promise<IdentityClient> {
  const tls = internalTlsFolder === undefined ? null : await openMutualTls(internalTlsFolder, { clock, logger });
  if (tls === null)
    logger.warn('identity is called without TLS: whoever is on the way reads and changes what it answers');
  else lifecycle.onClose('mutual TLS', async () => tls.close());
  const credentials = tls === null ? {} : { credentials: tls.client(identityPeer) };
  const client = createGrpcIdentityClient({ addresses, ...credentials, logger, clock });
  lifecycle.onClose('identity client', () => client.close());
  return client;
}
