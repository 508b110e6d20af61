/**
 * The rows of signing keys. Replicas that make a key at once agree on it: generation, algorithm and rotation are unique, so
 * whoever inserts it first wins, and the others load what is there.
 * @module
 */
import { type Clock, type Database, type KeyVault, type Logger, ServiceError } from '@token-gateway/platform';
import { and, eq, gt, inArray, isNotNull, isNull, lt, or } from 'drizzle-orm';
import { type CryptoKey, calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK, type JWK } from 'jose';
import { signingKeys } from '../database/schema.ts';
import { inOrder, leadMs, overlapMs, publishedUntilMs, signsUntilMs } from './key-schedule.ts';

export type SigningAlgorithm = 'ES256' | 'EdDSA';
export type StoredKey = typeof signingKeys.$inferSelect;

interface Deps {
  readonly database: Database;
  /** null = private keys are stored as they are. */
  readonly keyVault: KeyVault | null;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** What is kept of a key after the last token it signed has ended. */
const afterlifeMs = 86_400_000;

export interface KeyStore {
  /** Every key that is still published, in the order in which they sign. */
  load(): Promise<readonly StoredKey[]>;
  /** Rejects with `key_vault_unavailable` or `sealed_data_invalid`. */
  privateKeyOf(key: StoredKey): Promise<CryptoKey>;
  /** Makes a key to sign at once, as where a generation has none, unless another replica does at the same time. */
  makeFirst(generation: number, algorithm: SigningAlgorithm): Promise<void>;
  /** Makes the key that follows, to sign when every verifier has it, unless another replica has. */
  makeNext(key: StoredKey): Promise<void>;
  /** The same for the newest key, unless that one is still to sign itself. Rejects where there is none. */
  rotate(algorithm: SigningAlgorithm): Promise<void>;
  /** Nobody may accept any more what keys of older generations signed. */
  retireBelow(minGeneration: number): Promise<void>;
  /** Nobody will sign with these any more; what they signed goes on until it ends. */
  retire(keys: readonly StoredKey[]): Promise<void>;
  /** Removes private parts that may not sign any more, and keys that ended some time ago. */
  cleanUp(): Promise<void>;
  /** Seals what is not sealed, or not under the newest key-encryption key. */
  sealAnew(): Promise<void>;
}

export function createKeyStore({ database: { drizzle }, keyVault, clock, logger }: Deps): KeyStore {
  const nowMs = (): number => clock.now().wallMs;
  const gone = { privateJwk: null, privateKeySealed: null } as const;
  const hasPrivatePart = or(isNotNull(signingKeys.privateJwk), isNotNull(signingKeys.privateKeySealed));

  async function loadAll(): Promise<StoredKey[]> {
    return inOrder(await drizzle.select().from(signingKeys));
  }

  async function protect(kid: string, privateJwk: JWK): Promise<Pick<StoredKey, 'privateJwk' | 'privateKeySealed'>> {
    if (keyVault === null) return { privateJwk, privateKeySealed: null };
    const sealed = await keyVault.seal(Buffer.from(JSON.stringify(privateJwk)), contextOf(kid));
    return { privateJwk: null, privateKeySealed: Buffer.from(sealed) };
  }

  async function reveal({ kid, privateJwk, privateKeySealed }: StoredKey): Promise<JWK> {
    if (privateKeySealed === null) {
      if (privateJwk === null)
        throw new ServiceError('decision_unavailable', { detail: `${kid} may not sign any more` });
      return privateJwk;
    }
    if (keyVault === null) {
      throw new ServiceError('key_vault_unavailable', {
        detail: `signing key ${kid} is sealed, and there is no key vault`,
      });
    }
    return JSON.parse(Buffer.from(await keyVault.open(privateKeySealed, contextOf(kid))).toString());
  }

  async function make(of: Pick<StoredKey, 'generation' | 'rotation'>, algorithm: string, notBeforeMs: number) {
    const pair = await generateKeyPair(algorithm, { extractable: true });
    const publicJwk = await exportJWK(pair.publicKey);
    const kid = await calculateJwkThumbprint(publicJwk);
    const created = await drizzle
      .insert(signingKeys)
      .values({
        ...of,
        kid,
        algorithm,
        publicJwk: { ...publicJwk, kid, alg: algorithm, use: 'sig' },
        ...(await protect(kid, await exportJWK(pair.privateKey))),
        createdAt: new Date(nowMs()),
        notBefore: new Date(notBeforeMs),
      })
      .onConflictDoNothing()
      .returning({ kid: signingKeys.kid });
    if (created.length > 0)
      logger.info({ kid, ...of, algorithm, signsFrom: new Date(notBeforeMs) }, 'signing key made');
  }

  const makeNext: KeyStore['makeNext'] = ({ generation, rotation, algorithm }) =>
    make({ generation, rotation: rotation + 1 }, algorithm, nowMs() + leadMs);

  return {
    async load() {
      const keys = await loadAll();
      return keys.filter((key) => publishedUntilMs(key, keys) > nowMs());
    },

    async privateKeyOf(key) {
      const imported = await importJWK(await reveal(key), key.algorithm);
      if (imported instanceof Uint8Array) {
        throw new ServiceError('decision_unavailable', { detail: `signing key ${key.kid} is not asymmetric` });
      }
      return imported;
    },

    async makeFirst(generation, algorithm) {
      const last = (await loadAll()).findLast((key) => key.generation === generation && key.algorithm === algorithm);
      await make({ generation, rotation: (last?.rotation ?? 0) + 1 }, algorithm, nowMs());
    },
    makeNext,

    async rotate(algorithm) {
      const newest = (await loadAll()).findLast((key) => key.algorithm === algorithm && key.notAfter === null);
      if (newest === undefined) throw new ServiceError('not_found', { detail: 'there is no signing key to follow' });
      const { kid, notBefore } = newest;
      if (notBefore.getTime() > nowMs()) logger.info({ kid, signsFrom: notBefore }, 'the next signing key is there');
      else await makeNext(newest);
    },

    async retireBelow(minGeneration) {
      const now = new Date(nowMs());
      await drizzle
        .update(signingKeys)
        .set({ notAfter: now, ...gone })
        .where(
          and(
            lt(signingKeys.generation, minGeneration),
            or(isNull(signingKeys.notAfter), gt(signingKeys.notAfter, now), hasPrivatePart),
          ),
        );
    },

    async retire(keys) {
      const notAfter = new Date(nowMs() + overlapMs);
      for (const { kid } of keys) {
        logger.info({ kid, notAfter }, 'signing key of an algorithm not in use any more retired');
        await drizzle
          .update(signingKeys)
          .set({ notAfter, ...gone })
          .where(eq(signingKeys.kid, kid));
      }
    },

    async cleanUp() {
      const keys = await loadAll();
      const silent = keys.filter(
        (key) => (key.privateJwk ?? key.privateKeySealed) !== null && signsUntilMs(key, keys) <= nowMs(),
      );
      const ended = keys.filter((key) => publishedUntilMs(key, keys) + afterlifeMs <= nowMs());
      const kids = (of: readonly StoredKey[]): string[] => of.map(({ kid }) => kid);
      if (silent.length > 0)
        await drizzle
          .update(signingKeys)
          .set(gone)
          .where(inArray(signingKeys.kid, kids(silent)));
      if (ended.length > 0) await drizzle.delete(signingKeys).where(inArray(signingKeys.kid, kids(ended)));
    },

    async sealAnew() {
      if (keyVault === null) return;
      const keys = (await loadAll()).filter(({ privateJwk, privateKeySealed }) =>
        privateKeySealed === null ? privateJwk !== null : !keyVault.isCurrent(privateKeySealed),
      );
      if (keys.some(({ privateJwk }) => privateJwk !== null)) {
        logger.warn('signing keys were stored unsealed until now: backups from before have them, so rotate the keys');
      }
      for (const key of keys) {
        await drizzle
          .update(signingKeys)
          .set(await protect(key.kid, await reveal(key)))
          // Not where another replica has removed the private part meanwhile.
          .where(and(eq(signingKeys.kid, key.kid), hasPrivatePart));
      }
      if (keys.length > 0) logger.info({ count: keys.length }, 'private signing keys sealed');
    },
  };
}

/** What a sealed key is bound to: it opens in no other row. */
function contextOf(kid: string): string {
  return `auth-server signing_keys.private_key ${kid}`;
}
