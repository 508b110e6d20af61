/**
 * A signer whose keys are rows of the database. Replicas agree on a key by its generation and algorithm, which are unique:
 * whoever inserts it first wins, and the others load what is there.
 * @module
 */
import { type Clock, type Database, type Logger, ServiceError } from '@token-gateway/platform';
import { and, asc, isNull, lt } from 'drizzle-orm';
import { type CryptoKey, calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK, type JWK, SignJWT } from 'jose';
import { signingKeys } from '../database/schema.ts';
import type { Signer } from './port.ts';

export type SigningAlgorithm = 'ES256' | 'EdDSA';

interface Deps {
  readonly database: Database;
  readonly clock: Clock;
  readonly logger: Logger;
}

type StoredKey = typeof signingKeys.$inferSelect;

interface SigningKey {
  readonly kid: string;
  readonly generation: number;
  readonly privateKey: CryptoKey;
}

/** The rounds after which replicas that make keys at the same time must have agreed. */
const roundsMax = 5;

/** Resolves once a key is there. */
export async function createDatabaseSigner(
  { database, clock, logger }: Deps,
  config: { readonly algorithm: SigningAlgorithm },
): Promise<Signer> {
  const { drizzle } = database;
  let current: SigningKey;
  let making: Promise<SigningKey> | null = null;
  let lastKnown: readonly StoredKey[] = [];

  async function load(): Promise<readonly StoredKey[]> {
    lastKnown = await drizzle.select().from(signingKeys).orderBy(asc(signingKeys.generation));
    return lastKnown;
  }

  const isValid = (key: StoredKey): boolean => key.notAfter === null || key.notAfter.getTime() > clock.now().wallMs;

  async function find(minGeneration: number): Promise<SigningKey> {
    for (let round = 0; round < roundsMax; round += 1) {
      const keys = await load();
      const found = keys.findLast(
        (key) => key.algorithm === config.algorithm && key.generation >= minGeneration && isValid(key),
      );
      if (found !== undefined) {
        return { kid: found.kid, generation: found.generation, privateKey: await importPrivate(found) };
      }
      await make(Math.max(minGeneration, keys.at(-1)?.generation ?? 0));
    }
    throw new ServiceError('decision_unavailable', { detail: 'no signing key could be agreed on' });
  }

  async function make(generation: number): Promise<void> {
    const pair = await generateKeyPair(config.algorithm, { extractable: true });
    const publicJwk = await exportJWK(pair.publicKey);
    const kid = await calculateJwkThumbprint(publicJwk);
    const created = await drizzle
      .insert(signingKeys)
      .values({
        kid,
        generation,
        algorithm: config.algorithm,
        publicJwk: { ...publicJwk, kid, alg: config.algorithm, use: 'sig' },
        privateJwk: await exportJWK(pair.privateKey),
        createdAt: new Date(clock.now().wallMs),
      })
      .onConflictDoNothing()
      .returning({ kid: signingKeys.kid });
    if (created.length > 0) logger.info({ kid, generation, algorithm: config.algorithm }, 'signing key created');
  }

  /** Keys of a generation that may not sign any more: nobody may accept what they signed. */
  async function retireBelow(minGeneration: number): Promise<void> {
    await drizzle
      .update(signingKeys)
      .set({ notAfter: new Date(clock.now().wallMs) })
      .where(and(lt(signingKeys.generation, minGeneration), isNull(signingKeys.notAfter)));
  }

  /** The current key, or the one newer key that all who need it at this moment wait for. */
  async function keyOf(minGeneration: number): Promise<SigningKey> {
    while (current.generation < minGeneration) {
      making ??= find(minGeneration)
        .then(async (key) => {
          await retireBelow(minGeneration);
          current = key;
          return key;
        })
        .finally(() => {
          making = null;
        });
      await making;
    }
    return current;
  }

  current = await find(1);

  return {
    async sign(claims, minGeneration) {
      const key = await keyOf(minGeneration).catch((cause: unknown) => {
        throw new ServiceError('decision_unavailable', { detail: 'no signing key of the generation required', cause });
      });
      return new SignJWT(claims)
        .setProtectedHeader({ alg: config.algorithm, typ: 'at+jwt', kid: key.kid })
        .sign(key.privateKey);
    },
    async publicKeys(): Promise<readonly JWK[]> {
      const keys = await load().catch((error: unknown) => {
        logger.warn({ err: error }, 'signing keys not read again, answering from memory');
        return lastKnown;
      });
      return keys.filter(isValid).map((key) => key.publicJwk);
    },
  };
}

async function importPrivate(key: StoredKey): Promise<CryptoKey> {
  const imported = await importJWK(key.privateJwk, key.algorithm);
  if (imported instanceof Uint8Array) {
    throw new ServiceError('decision_unavailable', { detail: `signing key ${key.kid} is not asymmetric` });
  }
  return imported;
}
