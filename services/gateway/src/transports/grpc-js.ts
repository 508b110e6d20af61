import { type handleUnaryCall, Server, ServerCredentials } from '@grpc/grpc-js';
import {
  type TransportServer,
  type UnaryMethod,
  type UnaryServerConfig,
  type UnaryServerDeps,
  unaryLimits,
} from './grpc-server.ts';

const same = (bytes: Buffer) => bytes;

export async function serveByGrpcJs(
  _deps: UnaryServerDeps,
  { path, handle }: UnaryMethod,
  { host, port }: UnaryServerConfig,
): Promise<TransportServer> {
  const answer: handleUnaryCall<Buffer, Buffer> = (call, callback) => {
    const response = handle(call.request);
    // A call that was cancelled meanwhile is answered into the void.
    if (response instanceof Promise) void response.then((settled) => callback(null, bufferOf(settled)));
    else callback(null, bufferOf(response));
  };
  const server = new Server({
    'grpc.max_receive_message_length': unaryLimits.messageOctetsMax,
    'grpc.keepalive_time_ms': unaryLimits.keepAliveMs,
    'grpc.keepalive_timeout_ms': unaryLimits.keepAliveTimeoutMs,
    'grpc.max_connection_age_ms': unaryLimits.connectionAgeMsMax,
    'grpc.max_connection_age_grace_ms': unaryLimits.drainMsMax,
  });
  server.addService(
    {
      answer: {
        path,
        requestStream: false,
        responseStream: false,
        requestSerialize: same,
        requestDeserialize: same,
        responseSerialize: same,
        responseDeserialize: same,
      },
    },
    { answer },
  );
  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(
      `${host.includes(':') ? `[${host}]` : host}:${port}`,
      ServerCredentials.createInsecure(),
      (error, at) => (error === null ? resolve(at) : reject(error)),
    );
  });
  return {
    port: bound,
    close() {
      return new Promise((resolve) => {
        const deadline = AbortSignal.timeout(unaryLimits.drainMsMax);
        deadline.addEventListener('abort', () => server.forceShutdown());
        server.tryShutdown(() => resolve());
      });
    },
  };
}

function bufferOf(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
