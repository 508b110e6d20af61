/** One service, by this server and by grpc-js: what a message begins with says how it is answered. */
import { type handleUnaryCall, Server, ServerCredentials } from '@grpc/grpc-js';
import type { Answer } from './call.ts';
import { createGrpcUnaryServer } from './server.ts';
import { status } from './status.ts';
import { machineTime } from './time.testing.ts';

export interface Served {
  readonly port: number;
  close(): Promise<void>;
}

export interface ServeOptions {
  readonly host?: string;
  /** 0, the default, takes a free one. */
  readonly port?: number;
  /** A handler was told that nobody waits for it any more. */
  readonly onAborted?: () => void;
}

export const messageOctetsMax = 1024 * 1024;

function behave(message: Buffer, signal: AbortSignal, onAborted = () => {}): Answer | Promise<Answer> {
  switch (String.fromCharCode(message[0] ?? 0)) {
    case 'f':
      return { status: status.permissionDenied, message: 'caf\u00e9: 100%' };
    case 'l':
      return Buffer.alloc(300_000, message);
    case 'p':
      return Promise.resolve(message);
    case 'h':
      return new Promise((resolve) => {
        signal.addEventListener('abort', () => {
          onAborted();
          resolve(message);
        });
      });
    default:
      return message;
  }
}

async function serveGrpcUnary({ host = '127.0.0.1', port = 0, onAborted }: ServeOptions): Promise<Served> {
  return createGrpcUnaryServer(
    {
      handlers: { '/test.Echo/Say': ({ message, signal }) => behave(message, signal, onAborted) },
      time: machineTime,
      random: Math.random,
    },
    { host, port, limits: { messageOctetsMax } },
  );
}

async function serveGrpcJs({ host = '127.0.0.1', port = 0, onAborted }: ServeOptions): Promise<Served> {
  const server = new Server({ 'grpc.max_receive_message_length': messageOctetsMax });
  const same = (bytes: Buffer) => bytes;
  const say: handleUnaryCall<Buffer, Buffer> = (call, reply) => {
    const controller = new AbortController();
    call.on('cancelled', () => controller.abort());
    void Promise.resolve(behave(call.request, controller.signal, onAborted)).then((answer) => {
      if (answer instanceof Uint8Array) reply(null, Buffer.from(answer));
      else reply({ code: answer.status, details: answer.message });
    });
  };
  server.addService(
    {
      say: {
        path: '/test.Echo/Say',
        requestStream: false,
        responseStream: false,
        requestSerialize: same,
        requestDeserialize: same,
        responseSerialize: same,
        responseDeserialize: same,
      },
    },
    { say },
  );
  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`${host}:${port}`, ServerCredentials.createInsecure(), (error, at) =>
      error === null ? resolve(at) : reject(error),
    );
  });
  return {
    port: bound,
    async close() {
      server.forceShutdown();
    },
  };
}

export const echoServers: Readonly<Record<string, (options: ServeOptions) => Promise<Served>>> = {
  'grpc-unary': serveGrpcUnary,
  'grpc-js': serveGrpcJs,
};
