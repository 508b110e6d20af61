import type { Clock, Logger, Registry } from '@token-gateway/platform';
import { serveByGrpcJs } from './grpc-js.ts';
import { serveByGrpcUnary } from './grpc-unary.ts';

export const grpcTransports = ['grpc-unary', 'grpc-js'] as const;
export type GrpcTransport = (typeof grpcTransports)[number];

export interface TransportServer {
  readonly port: number;
  /** Ends idle connections, and lets requests under way finish until a deadline. */
  close(): Promise<void>;
}

/** What is served: messages reach the handler as bytes, so that it answers also what it cannot decode. */
export interface UnaryMethod {
  /** Such as `/package.Service/Method`. */
  readonly path: string;
  /** Neither throws nor rejects. */
  readonly handle: (bytes: Buffer) => Uint8Array | Promise<Uint8Array>;
}

export interface UnaryServerDeps {
  readonly logger: Logger;
  readonly registry: Registry;
  readonly clock: Clock;
  readonly random: () => number;
}

export interface UnaryServerConfig {
  readonly host: string;
  readonly port: number;
}

export const unaryLimits = {
  /** Above the largest request that Envoy passes on without its body: headers. */
  messageOctetsMax: 1024 * 1024,
  keepAliveMs: 30_000,
  keepAliveTimeoutMs: 10_000,
  /** So that proxies find the gateways that came after they connected. */
  connectionAgeMsMax: 600_000,
  drainMsMax: 5000,
};

const transports = { 'grpc-unary': serveByGrpcUnary, 'grpc-js': serveByGrpcJs };

/** Serves one method until it is closed. */
export function serveUnary(
  transport: GrpcTransport,
  deps: UnaryServerDeps,
  method: UnaryMethod,
  config: UnaryServerConfig,
): Promise<TransportServer> {
  return transports[transport](deps, method, config);
}
