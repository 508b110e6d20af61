/**
 * A signer whose keys are rows of the database. It reads them again by itself, so that no request waits for a rotation: only
 * a generation that identity raised makes the next request wait for its key.
 * @module
 */
import { KeyObject, sign } from 'node:crypto';
import { type Clock, type Logger, ServiceError, startPeriodic } from '@token-gateway/platform';
import type { JWTPayload } from 'jose';
import { abandoned, dueForRotation, signingKey } from './key-schedule.ts';
import type { KeyStore, SigningAlgorithm, StoredKey } from './key-store.ts';
import type { PublishedKey, Signer } from './port.ts';

interface Deps {
  readonly store: KeyStore;
  readonly clock: Clock;
  readonly logger: Logger;
}

interface Config {
  readonly algorithm: SigningAlgorithm;
  /** How long a key signs. */
  readonly rotationMs: number;
}

interface SigningKey {
  readonly kid: string;
  readonly generation: number;
  readonly notBeforeMs: number;
  readonly privateKey: KeyObject;
  /** The encoded protected header of everything it signs (RFC 9068 section 2.1). */
  readonly header: string;
}

export interface DatabaseSigner extends Signer {
  close(): Promise<void>;
}

/** The rounds after which replicas that make keys at the same time must have agreed. */
const roundsMax = 5;
/** Within it every replica knows of a key that another made, long before it signs. */
const maintenanceMs = 30_000;

/** Resolves once a key is there. */
export async function createDatabaseSigner({ store, clock, logger }: Deps, config: Config): Promise<DatabaseSigner> {
  const { algorithm, rotationMs } = config;
  let lastKnown: readonly StoredKey[] = [];
  /** Those of our algorithm that may sign, now or later, in their order. */
  let usable: readonly SigningKey[] = [];
  let leastGeneration = 1;
  let making: Promise<void> | null = null;

  const nowMs = (): number => clock.now().wallMs;
  const current = (): SigningKey | undefined => signingKey(usable, leastGeneration, nowMs());

  async function load(): Promise<readonly StoredKey[]> {
    lastKnown = await store.load();
    return lastKnown;
  }

  /** Opens what was not opened before. */
  async function adopt(keys: readonly StoredKey[]): Promise<void> {
    const opened: SigningKey[] = [];
    for (const key of keys) {
      if (key.algorithm !== algorithm || (key.privateJwk ?? key.privateKeySealed) === null) continue;
      const { kid, generation, notBefore } = key;
      const known = usable.find((candidate) => candidate.kid === kid);
      const privateKey = known?.privateKey ?? KeyObject.from(await store.privateKeyOf(key));
      const header = encoded({ alg: algorithm, typ: 'at+jwt', kid });
      opened.push({ kid, generation, notBeforeMs: notBefore.getTime(), privateKey, header });
    }
    usable = opened;
  }

  /** Makes sure of a key of the least generation or later. */
  async function ensureKey(): Promise<void> {
    for (let round = 0; round < roundsMax; round += 1) {
      const keys = await load();
      await adopt(keys);
      if (current() !== undefined) return;
      await store.makeFirst(Math.max(leastGeneration, keys.at(-1)?.generation ?? 0), algorithm);
    }
    throw new ServiceError('decision_unavailable', { detail: 'no signing key could be agreed on' });
  }

  /** Raises the least generation, and resolves with a key of it: one newer key that all who need it wait for. */
  async function keyOf(minGeneration: number): Promise<SigningKey> {
    for (;;) {
      leastGeneration = Math.max(leastGeneration, minGeneration);
      const key = current();
      if (key !== undefined) return key;
      making ??= ensureKey()
        .then(() => store.retireBelow(leastGeneration))
        .finally(() => {
          making = null;
        });
      await making;
    }
  }

  async function maintain(): Promise<void> {
    const keys = await load();
    const due = dueForRotation(keys, algorithm, rotationMs, nowMs());
    if (due !== null) await store.makeNext(due);
    // Again: whoever made the newer key may have ended before it ended the older ones.
    await store.retireBelow(leastGeneration);
    await store.retire(abandoned(keys, algorithm, rotationMs, nowMs()));
    await store.cleanUp();
    await adopt(await load());
  }

  await store.sealAnew();
  await keyOf(1);
  const maintenance = startPeriodic(
    { clock, logger },
    { what: 'maintenance of signing keys', intervalMs: maintenanceMs, work: maintain },
  );

  return {
    async sign(claims, minGeneration) {
      const key = await keyOf(minGeneration).catch((cause: unknown) => {
        throw new ServiceError('decision_unavailable', { detail: 'no signing key of the generation required', cause });
      });
      return signed(key, algorithm, claims);
    },
    async publicKeys(minGeneration): Promise<readonly PublishedKey[]> {
      await keyOf(minGeneration).catch((err: unknown) =>
        logger.error({ err }, 'no signing key of the generation required'),
      );
      const keys = await load().catch((err: unknown) => {
        logger.warn({ err }, 'signing keys not read again, answering from memory');
        return lastKnown;
      });
      return keys
        .filter(({ generation }) => generation >= leastGeneration)
        .map(({ publicJwk, generation }) => ({ ...publicJwk, tg_generation: generation }));
    },
    async close() {
      await maintenance.close();
    },
  };
}

/**
 * A JWS in compact form (RFC 7515 section 3.1), at once: by WebCrypto, which jose uses, the way to another thread and back costs
 * more than the signature.
 */
function signed({ privateKey, header }: SigningKey, algorithm: SigningAlgorithm, claims: JWTPayload): string {
  const input = `${header}.${encoded(claims)}`;
  const bytes = Buffer.from(input);
  const signature =
    algorithm === 'EdDSA'
      ? sign(null, bytes, privateKey)
      : sign('sha256', bytes, { key: privateKey, dsaEncoding: 'ieee-p1363' });
  return `${input}.${signature.toString('base64url')}`;
}

function encoded(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}
