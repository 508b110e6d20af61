import type { Clock, IdentityClient, Instant, Logger } from '@token-gateway/platform';
import { ageMs } from '@token-gateway/revocation';
import type { PublishedKey, Signer } from './port.ts';

export type PublishedKeys = () => Promise<readonly PublishedKey[]>;

interface Deps {
  readonly identity: Pick<IdentityClient, 'resolve'>;
  readonly signer: Pick<Signer, 'publicKeys'>;
  readonly clock: Clock;
  readonly logger: Logger;
}

interface Config {
  readonly identityTimeoutMs: number;
  /** How old what identity said may be. */
  readonly cooldownMs: number;
}

/**
 * The keys for the JWKS. Identity is asked for the least generation each time, so that a compromised key leaves at once also
 * where nobody exchanges anything. While identity is away nothing is known to be compromised but what was before.
 */
export function createPublishedKeys({ identity, signer, clock, logger }: Deps, config: Config): PublishedKeys {
  let least = 1;
  let askedAt: Instant | null = null;
  let asking: Promise<void> | null = null;

  async function ask(): Promise<void> {
    const now = clock.now();
    try {
      // A question about no credential: the answer has the generation beside the refusal.
      const { minSigningGeneration } = await identity.resolve({}, { timeoutMs: config.identityTimeoutMs });
      least = Math.max(least, minSigningGeneration);
      askedAt = now;
    } catch (err) {
      logger.warn({ err }, 'identity does not say which signing keys are compromised');
    }
  }

  return async () => {
    if (askedAt === null || ageMs(askedAt, clock.now()) >= config.cooldownMs) {
      asking ??= ask().finally(() => {
        asking = null;
      });
      await asking;
    }
    return signer.publicKeys(least);
  };
}
