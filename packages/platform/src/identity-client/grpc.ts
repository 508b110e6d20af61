import { type ChannelCredentials, credentials as grpcCredentials } from '@grpc/grpc-js';
import { type Change, IdentityServiceService as service } from '@token-gateway/schemas/identity';
import type { Clock, Timer } from '../clock/port.ts';
import { ServiceError } from '../errors.ts';
import type { Logger } from '../telemetry.ts';
import { Connection, type Method } from './connection.ts';
import type { IdentityClient } from './port.ts';

export interface GrpcIdentityClientOptions {
  /** `host:port` of each replica of identity; calls go to the first that is connected. */
  readonly addresses: readonly string[];
  /** Default: plaintext. */
  readonly credentials?: ChannelCredentials;
  readonly logger: Logger;
  readonly clock: Clock;
  /** After this a watermark is asked of the next replica as well. */
  readonly hedgeDelayMs?: number;
}

/** Identity over gRPC. Connects at once and stays connected; nothing is retried on the replica that failed. */
export function createGrpcIdentityClient({
  addresses,
  credentials = grpcCredentials.createInsecure(),
  logger,
  clock,
  hedgeDelayMs = 100,
}: GrpcIdentityClientOptions): IdentityClient {
  const connections = addresses.map((address) => new Connection(address, credentials));
  let watchesBroken = 0;

  /** The connected ones first, each group in the order given. */
  function candidates(): Connection[] {
    const ready = connections.filter((connection) => connection.isReady);
    return [...ready, ...connections.filter((connection) => !ready.includes(connection))];
  }

  /** Asks one replica after another, the next when one has failed or `patienceMs` passed; the first answer counts. */
  function ask<Request, Response>(
    method: Method<Request, Response>,
    request: Request,
    timeoutMs: number,
    patienceMs: number,
  ): Promise<Response> {
    return new Promise((resolve, reject) => {
      const waiting = candidates();
      const deadline = Date.now() + timeoutMs;
      const settled = new AbortController();
      let underWay = 0;
      let timer: Timer | undefined;

      function askNext(): void {
        timer?.cancel();
        const connection = waiting.shift();
        if (connection === undefined) return;
        underWay += 1;
        if (waiting.length > 0) timer = clock.setTimer(askNext, patienceMs);
        connection.call(method, request, { deadline }, settled.signal).then(
          (response) => {
            settle();
            resolve(response);
          },
          (error: unknown) => {
            underWay -= 1;
            if (settled.signal.aborted) return;
            if (waiting.length > 0) return askNext();
            if (underWay > 0) return;
            settle();
            reject(new ServiceError('identity_unavailable', { cause: error }));
          },
        );
      }

      function settle(): void {
        timer?.cancel();
        // Made for nobody, an abort costs as much as the call.
        if (underWay > 1) settled.abort();
      }

      askNext();
    });
  }

  return {
    resolve: (request, { timeoutMs }) => ask(service.resolve, request, timeoutMs, timeoutMs / connections.length),
    watermark: (request, { timeoutMs }) => ask(service.watermark, request, timeoutMs, hedgeDelayMs),
    listProviders: ({ timeoutMs }) => ask(service.listProviders, {}, timeoutMs, timeoutMs / connections.length),

    // A second replica may do it again, which is harmless.
    revoke: (request, { timeoutMs }) => ask(service.revoke, request, timeoutMs, timeoutMs / connections.length),
    receiveSignal: (signal, { timeoutMs }) =>
      ask(service.receiveSignal, signal, timeoutMs, timeoutMs / connections.length),

    async watch(request, onChange, signal, onOpen) {
      if (signal.aborted) return;
      const ready = connections.filter((connection) => connection.isReady);
      const choice = ready.length > 0 ? ready : connections;
      // A replica may be connected and yet unable to serve a watch: the next attempt goes to another.
      const connection = choice[watchesBroken % choice.length];
      if (connection === undefined) throw new ServiceError('identity_unavailable', { detail: 'no address' });
      const ended = new AbortController();
      let stream: ReturnType<typeof connection.stream<typeof request, Change>> | undefined;
      try {
        stream = connection.stream(service.watch, request);
        signal.addEventListener('abort', () => stream?.cancel(), { signal: ended.signal });
        stream.once('metadata', () => {
          try {
            onOpen?.();
          } catch (error) {
            stream?.destroy(error as Error);
          }
        });
        for await (const change of stream) {
          if (signal.aborted) return;
          onChange(change);
        }
        throw new Error('identity ended the watch');
      } catch (error) {
        if (signal.aborted) return;
        watchesBroken += 1;
        logger.debug({ err: error }, 'watch broke');
        throw new ServiceError('identity_unavailable', { cause: error });
      } finally {
        ended.abort();
        stream?.cancel();
      }
    },

    async close() {
      for (const connection of connections) connection.close();
    },
  };
}
