import {
  type handleUnaryCall,
  Metadata,
  Server,
  ServerCredentials,
  type ServerWritableStream,
  type StatusObject,
  status,
} from '@grpc/grpc-js';
import {
  type Change,
  type IdentityServiceServer,
  IdentityServiceService,
  type WatchRequest,
} from '@token-gateway/schemas/identity';
import { errorEntry, ServiceError, toServiceError } from '../errors.ts';
import { type Peers, peerNamesOf, type Role } from '../mutual-tls/peers.ts';
import type { Logger } from '../telemetry.ts';
import type { CallOptions, IdentityClient } from './port.ts';

export interface GrpcIdentityServerOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  readonly logger: Logger;
  /** Default: plaintext. */
  readonly credentials?: ServerCredentials;
  /** Who may call, by the names of their certificates; absent: everybody who connects. */
  readonly peers?: Peers;
  /** How long calls under way may take to end when it closes. */
  readonly closeTimeoutMs?: number;
}

export interface GrpcIdentityServer {
  readonly port: number;
  /** Ends the watches, lets other calls end until the deadline, and closes every connection. */
  close(): Promise<void>;
}

/** What each role calls, and may call. */
const callersOf = {
  resolve: ['auth-server'],
  revoke: ['auth-server'],
  receiveSignal: ['auth-server'],
  watermark: ['gateway', 'relay'],
  watch: ['gateway', 'relay'],
  listProviders: ['auth-server', 'gateway'],
} as const satisfies Record<string, readonly Role[]>;

/** A connection of a certificate that has ended since is not kept for longer. */
const connectionAgeMsMax = 3_600_000;

/** A call that names no deadline gets this one, and none gets more. */
const callTimeoutMsMax = 10_000;
/** A watcher that is further behind is cut off: it asks again from the last change it got. */
const watchBacklogMax = 65_536;

/** Offers an identity client to other processes; the client stays the caller's, and open. */
export async function createGrpcIdentityServer(
  client: IdentityClient,
  {
    host,
    port,
    logger,
    credentials = ServerCredentials.createInsecure(),
    peers,
    closeTimeoutMs = 2000,
  }: GrpcIdentityServerOptions,
): Promise<GrpcIdentityServer> {
  const server = new Server({
    // Finds the watchers that went without a word.
    'grpc.keepalive_time_ms': 5000,
    'grpc.keepalive_timeout_ms': 2000,
    'grpc.enable_channelz': 0,
    ...(peers === undefined ? {} : { 'grpc.max_connection_age_ms': connectionAgeMsMax }),
  });
  const closing = new AbortController();
  const watches = new Set<Promise<void>>();

  function toStatus(method: string, cause: unknown): Pick<StatusObject, 'code' | 'details'> {
    const error = toServiceError(cause);
    if (error.code === 'internal') logger.error({ err: error, method }, 'identity call failed');
    else logger.debug({ err: error, method }, 'identity call failed');
    const { grpc, publicMessage } = errorEntry(error.code);
    return { code: grpc, details: publicMessage };
  }

  /** What a call that its caller may not make is answered with, else null. */
  function refusal(
    method: keyof typeof callersOf,
    call: Pick<ServerWritableStream<unknown, unknown>, 'getAuthContext'>,
  ): Pick<StatusObject, 'code' | 'details'> | null {
    if (peers === undefined) return null;
    const names = peerNamesOf(call.getAuthContext().sslPeerCertificate?.subjectaltname);
    const callers = peers(names);
    if (callersOf[method].some((role) => callers.has(role))) return null;
    logger.warn({ method, names }, 'identity was called by a peer that may not');
    return { code: status.PERMISSION_DENIED, details: 'The caller may not call this.' };
  }

  function unary<Request, Response>(
    method: keyof typeof callersOf,
    answer: (request: Request, options: CallOptions) => Promise<Response>,
  ): handleUnaryCall<Request, Response> {
    return (call, callback) => {
      const refused = refusal(method, call);
      if (refused !== null) return callback(refused);
      const leftMs = Number(call.getDeadline()) - Date.now();
      const options = { timeoutMs: Math.min(Math.max(leftMs, 1), callTimeoutMsMax) };
      Promise.resolve()
        .then(() => answer(call.request, options))
        .then(
          (response) => callback(null, response),
          (error: unknown) => callback(toStatus(method, error)),
        )
        .catch((error: unknown) => logger.error({ err: error, method }, 'identity call was not answered'));
    };
  }

  async function watch(call: ServerWritableStream<WatchRequest, Change>): Promise<void> {
    const cancelled = new AbortController();
    call.once('cancelled', () => cancelled.abort());
    const backlog = new AbortController();
    const signal = AbortSignal.any([cancelled.signal, closing.signal, backlog.signal]);
    function onChange(change: Change): void {
      if (signal.aborted) return;
      if (call.writableLength >= watchBacklogMax) backlog.abort();
      else call.write(change);
    }
    try {
      await client.watch(call.request, onChange, signal, () => call.sendMetadata(new Metadata()));
      if (backlog.signal.aborted) {
        call.emit('error', { code: status.RESOURCE_EXHAUSTED, details: 'The watcher is too slow.' });
      } else {
        throw new ServiceError('identity_unavailable', { detail: 'watch ended' });
      }
    } catch (error) {
      if (!cancelled.signal.aborted) call.emit('error', toStatus('watch', error));
    }
  }

  const implementation: IdentityServiceServer = {
    resolve: unary('resolve', (request, options) => client.resolve(request, options)),
    watermark: unary('watermark', (request, options) => client.watermark(request, options)),
    listProviders: unary('listProviders', (_request, options) => client.listProviders(options)),
    revoke: unary('revoke', (request, options) => client.revoke(request, options)),
    receiveSignal: unary('receiveSignal', (signal, options) => client.receiveSignal(signal, options)),
    watch(call) {
      const refused = refusal('watch', call);
      if (refused !== null) {
        call.emit('error', refused);
        return;
      }
      const ended = watch(call)
        .catch((error: unknown) => logger.error({ err: error, method: 'watch' }, 'identity call was not answered'))
        .finally(() => watches.delete(ended));
      watches.add(ended);
    },
  };
  server.addService(IdentityServiceService, implementation);
  const boundPort = await new Promise<number>((resolve, reject) => {
    const address = `${host.includes(':') ? `[${host}]` : host}:${port}`;
    server.bindAsync(address, credentials, (error, bound) => (error === null ? resolve(bound) : reject(error)));
  });

  return {
    port: boundPort,
    async close() {
      closing.abort();
      const overrun = new Promise<void>((resolve) => setTimeout(resolve, closeTimeoutMs).unref());
      const shutDown = new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
      await Promise.race([Promise.all([...watches, shutDown]), overrun]);
      server.forceShutdown();
    },
  };
}
