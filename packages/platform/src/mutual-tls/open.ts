/**
 * Mutual TLS between the services, from a folder as cert-manager and spiffe-helper write it: `tls.crt`, `tls.key`, `ca.crt`. It is
 * read again as it changes, so that short-lived certificates need no restart.
 * @module
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createSecureContext } from 'node:tls';
import { type ChannelCredentials, experimental, type ServerCredentials } from '@grpc/grpc-js';
import type { Clock, Timer } from '../clock/port.ts';
import { ConfigError, optional, text } from '../config.ts';
import type { Logger } from '../telemetry.ts';
import { peerNamesOf } from './peers.ts';

export const mutualTlsFields = { internalTlsFolder: optional(text('TG_INTERNAL_TLS_FOLDER')) };

/** What a service that calls identity reads, beside the addresses. */
export const identityClientFields = { ...mutualTlsFields, identityPeer: optional(text('TG_IDENTITY_PEER')) };

export interface MutualTls {
  /** Of a server that takes nobody without a certificate of the same authorities. */
  readonly server: ServerCredentials;
  /** Of a client of a server that is called `peer` (`spiffe://...` or `dns:NAME`); undefined: as the address says. */
  client(peer: string | undefined): ChannelCredentials;
  close(): void;
}

export interface MutualTlsOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly rereadEveryMs?: number;
}

interface Material {
  readonly certificate: Buffer;
  readonly privateKey: Buffer;
  readonly caCertificate: Buffer;
}

/** Rejects with ConfigError when the folder does not hold a certificate with its key, and an authority. */
export async function openMutualTls(
  folder: string,
  { clock, logger, rereadEveryMs = 10_000 }: MutualTlsOptions,
): Promise<MutualTls> {
  let current = await read(folder).catch((cause: unknown) => {
    const problem = cause instanceof Error ? cause.message : String(cause);
    throw new ConfigError([`TG_INTERNAL_TLS_FOLDER: tls.crt, tls.key, ca.crt cannot be used: ${problem}`]);
  });
  const provider = new Provider(() => current);
  let timer: Timer | null = null;

  function schedule(): void {
    timer = clock.setTimer(() => void reread(), rereadEveryMs);
  }

  /** What cannot be used, a half-written pair for one, changes nothing. */
  async function reread(): Promise<void> {
    try {
      const next = await read(folder);
      const isSame = (['certificate', 'privateKey', 'caCertificate'] as const).every((name) =>
        next[name].equals(current[name]),
      );
      if (!isSame) {
        current = next;
        provider.announce();
        logger.info('certificates for mutual TLS were read again');
      }
    } catch (err) {
      logger.warn({ err }, 'certificates for mutual TLS cannot be read again, the last ones stay in use');
    }
    if (timer !== null) schedule();
  }

  schedule();
  return {
    server: experimental.createCertificateProviderServerCredentials(provider, provider, true),
    client: (peer) =>
      experimental.createCertificateProviderChannelCredentials(provider, provider, {
        ...(peer === undefined
          ? {}
          : {
              checkServerIdentity: (_host, { subjectaltname }) =>
                peerNamesOf(subjectaltname).includes(peer) ? undefined : new Error(`the server is not ${peer}`),
            }),
      }),
    close() {
      timer?.cancel();
      timer = null;
    },
  };
}

async function read(folder: string): Promise<Material> {
  const [certificate, privateKey, caCertificate] = await Promise.all(
    ['tls.crt', 'tls.key', 'ca.crt'].map((name) => readFile(join(folder, name))),
  );
  if (certificate === undefined || privateKey === undefined || caCertificate === undefined) throw new Error('unread');
  // Throws for what is none, and for a key of another certificate.
  createSecureContext({ cert: certificate, key: privateKey, ca: caCertificate });
  return { certificate, privateKey, caCertificate };
}

/**
 * grpc-js's own hands out a pair that does not fit, and the server then takes nobody. Listeners are told after they were
 * added: it does not expect it earlier.
 */
class Provider implements experimental.CertificateProvider {
  readonly #current: () => Material;
  readonly #caListeners = new Set<experimental.CaCertificateUpdateListener>();
  readonly #identityListeners = new Set<experimental.IdentityCertificateUpdateListener>();

  constructor(current: () => Material) {
    this.#current = current;
  }

  announce(): void {
    for (const listener of this.#caListeners) listener(this.#current());
    for (const listener of this.#identityListeners) listener(this.#current());
  }

  addCaCertificateListener(listener: experimental.CaCertificateUpdateListener): void {
    this.#caListeners.add(listener);
    queueMicrotask(() => listener(this.#current()));
  }

  removeCaCertificateListener(listener: experimental.CaCertificateUpdateListener): void {
    this.#caListeners.delete(listener);
  }

  addIdentityCertificateListener(listener: experimental.IdentityCertificateUpdateListener): void {
    this.#identityListeners.add(listener);
    queueMicrotask(() => listener(this.#current()));
  }

  removeIdentityCertificateListener(listener: experimental.IdentityCertificateUpdateListener): void {
    this.#identityListeners.delete(listener);
  }
}
